"""Our batches read by other clients' own code, and theirs by ours, with every codec.

kafka-python and aiokafka: their record modules, no broker. librdkafka: the mock broker that it
carries, which stores a batch as it was produced and serves it as it was stored.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from ottla.records.batch import BatchView, crc_ok
from ottla.records.builder import NO_PRODUCER, Producer, build_batch
from ottla.records.compress import CODEC_NAMES
from ottla.records.reader import Record, read_batches, records_of
from ottla.records.validate import Rules, check_header, check_records

NOW = 1_700_000_000_000
SMALL = [
    Record(b"key", b"value", NOW, [("h", b"x"), ("h", b""), ("é", b"y")]),
    Record(None, b"v", NOW - 5),
    Record(b"tombstone", None, NOW + 70_000),
    Record(b"", b"", NOW),
]
LARGE = [Record(b"%d" % n, b"some text %d " % n * 300, NOW + n) for n in range(100)]
SETS = [SMALL, LARGE]
CODECS = range(5)


def plain(records: Any) -> list[tuple[Any, ...]]:
    """What a record is to every client: key, value, timestamp, headers."""
    return [(r.key, r.value, r.timestamp, [tuple(h) for h in r.headers]) for r in records]


def accepted(data: bytes) -> BatchView:
    """The batch, as a broker that walks every record accepts it."""
    batch = check_header(memoryview(bytearray(data)), Rules(), NOW, 9)
    assert isinstance(batch, BatchView), batch
    assert check_records(batch.view, Rules(depth="records"), NOW) == batch.max_timestamp
    assert batch.view == data
    return batch


@pytest.mark.parametrize("records", SETS, ids=["small", "large"])
@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_kafka_python_reads_ours(codec: int, records: list[Record]) -> None:
    memory_records = pytest.importorskip("kafka.record").MemoryRecords
    data = build_batch(records, codec=codec, base_offset=9, producer=Producer(4, 1, 2))
    theirs = memory_records(data).next_batch()
    assert theirs.validate_crc()
    assert (theirs.base_offset, theirs.producer_id, theirs.base_sequence) == (9, 4, 2)
    read = list(theirs)
    assert plain(read) == plain(records)
    assert [record.offset for record in read] == list(range(9, 9 + len(records)))


@pytest.mark.parametrize("records", SETS, ids=["small", "large"])
@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_kafka_pythons_are_read_by_us(codec: int, records: list[Record]) -> None:
    builder = pytest.importorskip("kafka.record.memory_records").MemoryRecordsBuilder(
        magic=2, compression_type=codec, batch_size=1 << 20
    )
    for record in records:
        assert builder.append(record.timestamp, record.key, record.value, list(record.headers))
    builder.close()
    data = bytes(builder.buffer())
    assert plain(records_of(accepted(data))) == plain(records)
    if codec == 0:
        assert build_batch(records)[21:] == data[21:]


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_aiokafka_reads_ours_and_is_read_by_us(codec: int) -> None:
    memory_records = pytest.importorskip("aiokafka.record.memory_records")
    builders = pytest.importorskip("aiokafka.record.default_records")
    theirs = memory_records.MemoryRecords(build_batch(LARGE, codec=codec)).next_batch()
    assert theirs.validate_crc()
    assert plain(theirs) == plain(LARGE)
    builder = builders.DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, record in enumerate(LARGE):
        assert builder.append(
            offset, timestamp=record.timestamp, key=record.key, value=record.value, headers=[]
        )
    assert plain(records_of(accepted(bytes(builder.build())))) == plain(LARGE)


class MockBroker:
    """librdkafka's own broker, spoken to in Produce 3 and Fetch 4, byte by byte."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = f"{address[0]}:{address[1]}"
        self._socket = socket.create_connection(address, timeout=10)

    def close(self) -> None:
        self._socket.close()

    def produce(self, topic: str, batch: bytes) -> None:
        body = struct.pack(">hhii", -1, -1, 5_000, 1) + self._partition(topic)
        answer = self._call(0, 7, body + struct.pack(">i", len(batch)) + batch)
        (error,) = struct.unpack_from(">h", answer, 4 + 2 + len(topic) + 4 + 4)
        assert error == 0

    def fetch(self, topic: str) -> bytes:
        """All records of partition 0, from offset 0."""
        body = struct.pack(">iiiibi", -1, 500, 1, 1 << 24, 0, 1) + self._partition(topic)
        answer = self._call(1, 4, body + struct.pack(">qi", 0, 1 << 24))
        at = 4 + 4 + 2 + len(topic) + 4
        _, error, _, _, aborted = struct.unpack_from(">ihqqi", answer, at)
        assert error == 0
        at += 26 + 16 * max(aborted, 0)
        return answer[at + 4 : at + 4 + struct.unpack_from(">i", answer, at)[0]]

    def _partition(self, topic: str) -> bytes:
        return struct.pack(">h", len(topic)) + topic.encode() + struct.pack(">ii", 1, 0)

    def _call(self, key: int, version: int, body: bytes) -> bytes:
        frame = struct.pack(">hhih", key, version, 1, -1) + body
        self._socket.sendall(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", self._read(4))
        return self._read(size)[4:]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            assert piece, "the mock broker hung up"
            data += piece
        return data


@pytest.fixture(scope="module")
def mock_broker() -> Iterator[MockBroker]:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    host = confluent_kafka.Producer({"test.mock.num.brokers": 1})
    (broker,) = host.list_topics("t", timeout=10).brokers.values()
    mock = MockBroker((broker.host, broker.port))
    yield mock
    mock.close()


@pytest.fixture
def topic(mock_broker: MockBroker, request: pytest.FixtureRequest) -> str:
    """A topic of this test alone, in the mock broker."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    admin = confluent_kafka.Producer({"bootstrap.servers": mock_broker.address})
    admin.list_topics(name, timeout=10)
    return name


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_librdkafka_reads_ours(codec: int, mock_broker: MockBroker, topic: str) -> None:
    import confluent_kafka

    for records, producer in ((SMALL, NO_PRODUCER), (LARGE, Producer(4, 0, 0))):
        mock_broker.produce(topic, build_batch(records, codec=codec, producer=producer))
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": mock_broker.address, "group.id": "g", "check.crcs": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    expected = plain(SMALL + LARGE)
    messages: list[Any] = []
    while len(messages) < len(expected):
        read = consumer.consume(len(expected), timeout=10)
        assert read
        assert not any(message.error() for message in read)
        messages += read
    consumer.close()
    assert [
        (m.key(), m.value(), m.timestamp()[1], [tuple(h) for h in m.headers() or []])
        for m in messages
    ] == expected


@pytest.mark.parametrize("codec", CODECS, ids=CODEC_NAMES)
def test_librdkafkas_are_read_by_us(codec: int, mock_broker: MockBroker, topic: str) -> None:
    import confluent_kafka

    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": mock_broker.address,
            "compression.codec": CODEC_NAMES[codec],
            "linger.ms": 100,
        }
    )
    for record in SMALL + LARGE:
        producer.produce(
            topic,
            key=record.key,
            value=record.value,
            partition=0,
            timestamp=record.timestamp,
            headers=list(record.headers),
        )
    assert producer.flush(10) == 0
    batches = list(read_batches(mock_broker.fetch(topic)))
    assert {batch.codec for batch in batches} == {codec}
    assert all(crc_ok(batch.view) for batch in batches)
    read = [record for batch in batches for record in records_of(batch)]
    assert plain(read) == plain(SMALL + LARGE)
    for batch in batches:
        data = bytearray(batch.view)
        data[:8] = bytes(8)
        accepted(bytes(data))
