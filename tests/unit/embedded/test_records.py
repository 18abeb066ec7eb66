"""Records of the embedded broker: which partition, how many to a batch."""

import pytest
from kafka.partitioner.default import murmur2

from ottla.embedded.records import Record, make_record, pack, partition_for


@pytest.mark.parametrize(
    ("key", "hashed"),
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_belongs_where_the_java_client_puts_it(key, hashed):
    for partitions_count in (1, 3, 7, 50):
        assert partition_for(key, partitions_count) == (hashed & 0x7FFFFFFF) % partitions_count


def test_a_key_of_any_length_belongs_where_kafka_python_puts_it():
    for length in range(70):
        key = bytes(range(200, 200 + length % 50)) * 2
        assert partition_for(key, 1000) == (murmur2(key) & 0x7FFFFFFF) % 1000


def test_batches_are_filled_up_to_their_size_and_a_larger_record_goes_alone():
    records = [Record(b"x" * size) for size in (100, 100, 100, 5000, 100)]
    sizes = [[len(one.value) for one in group] for group in pack(records, 300)]
    assert sizes == [[100, 100], [100], [5000], [100]]
    assert list(pack([], 300)) == []


def test_text_is_stored_as_utf_8_and_views_are_copied():
    made = make_record("ä", memoryview(b"k"), [("h", bytearray(b"1"))], 5)
    assert made == Record("ä".encode(), b"k", (("h", b"1"),), 5)
