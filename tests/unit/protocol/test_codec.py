"""What decoders refuse and encoders write. Rows H15 to H22 of the hostile table are here.

That the bytes are Kafka's is shown in tests/oracle; here are the ways in which a peer can lie.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any

import pytest

from ottla.core.model import FileSlice
from ottla.protocol import schema as t
from ottla.protocol.codec import CodecError, decoder, encoder, read_uvarint, write_uvarint
from ottla.protocol.decoding import ELEMENTS_MAX
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    LeaderIdAndEpoch,
    PartitionData,
    ReplicaState,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)

BATCH = bytes(range(256)) * 4


class StubFile:
    """As much of a File as a slice needs."""

    def retain(self) -> None: ...

    def release(self) -> None: ...


class Small(t.Message, key=99, kind="request", versions=(0, 1), flexible=1):
    text: str = t.string()
    blob: bytes = t.bytestring()
    maybe: str | None = t.string(null_since=0)
    tagged: int = t.int32(since=1, tag=1)
    after: str = t.string(since=1, tag=4)


def produce(records: bytes | memoryview | None = BATCH) -> ProduceRequest:
    view = None if records is None else memoryview(records)
    partition = PartitionProduceData(index=3, records=view)
    topic = TopicProduceData(name="flights", partition_data=[partition])
    return ProduceRequest(acks=-1, timeout_ms=1500, topic_data=[topic])


def decode(cls: type[Any], version: int, data: bytes) -> Any:
    return decoder(cls, version)(memoryview(data), 0)[0]


def refused(cls: type[Any], version: int, data: bytes, match: str) -> None:
    with pytest.raises(CodecError, match=match):
        decoder(cls, version)(memoryview(data), 0)


# What a good message becomes


@pytest.mark.parametrize("version", [3, 8, 9, 12])
def test_a_produce_request_comes_back_from_its_bytes(version: int) -> None:
    [encoded] = encoder(ProduceRequest, version)(produce())
    assert decode(ProduceRequest, version, encoded) == produce()


def test_records_are_a_part_of_the_received_buffer_and_no_copy() -> None:
    buffer = bytearray(encoder(ProduceRequest, 9)(produce())[0])
    request, _ = decoder(ProduceRequest, 9)(memoryview(buffer), 0)
    records = request.topic_data[0].partition_data[0].records
    assert records is not None
    records[0] = 0xEE
    assert buffer.index(0xEE) == len(buffer) - len(BATCH) - 3


def test_names_are_copies_that_outlive_the_buffer() -> None:
    buffer = bytearray(encoder(ProduceRequest, 9)(produce())[0])
    request, _ = decoder(ProduceRequest, 9)(memoryview(buffer), 0)
    buffer[:] = bytes(len(buffer))
    assert request.topic_data[0].name == "flights"


def test_a_decoder_starts_where_it_is_told_and_says_where_it_ended() -> None:
    [encoded] = encoder(ProduceRequest, 9)(produce())
    view = memoryview(b"head" + encoded + b"tail")
    request, end = decoder(ProduceRequest, 9)(view, 4)
    assert (request, end) == (produce(), 4 + len(encoded))


def test_h22_bytes_after_the_message_are_left_alone() -> None:
    [encoded] = encoder(MetadataRequest, 4)(MetadataRequest())
    _, end = decoder(MetadataRequest, 4)(memoryview(encoded + b"\0\0\0"), 0)
    assert end == len(encoded)


def test_a_field_that_the_version_lacks_is_its_default_after_decoding() -> None:
    topic = FetchTopic(topic="a", topic_id=bytes(range(16)), partitions=[FetchPartition()])
    request = FetchRequest(topics=[topic], session_id=9, rack_id="r")
    [encoded] = encoder(FetchRequest, 4)(request)
    back = decode(FetchRequest, 4, encoded)
    assert (back.session_id, back.session_epoch, back.rack_id) == (0, -1, "")
    assert back.topics[0].topic_id == bytes(16)


def test_a_slice_of_a_file_stands_between_the_bytes_around_it() -> None:
    piece = FileSlice(StubFile(), 4096, 1000)
    partitions = [
        PartitionData(partition_index=0, records=piece),
        PartitionData(partition_index=1, records=b"inline"),
        PartitionData(partition_index=2, records=piece),
    ]
    response = FetchResponse(responses=[FetchableTopicResponse(topic="a", partitions=partitions)])
    chunks = encoder(FetchResponse, 12)(response)
    assert [type(chunk) for chunk in chunks] == [bytes, FileSlice, bytes, FileSlice, bytes]
    whole = b"".join(bytes(1000) if isinstance(c, FileSlice) else c for c in chunks)
    back = decode(FetchResponse, 12, whole)
    assert [len(p.records) for p in back.responses[0].partitions] == [1000, 6, 1000]


def test_bytes_alone_are_one_chunk() -> None:
    response = FetchResponse(responses=[FetchableTopicResponse(topic="a")])
    assert len(encoder(FetchResponse, 12)(response)) == 1


def test_empty_records_are_not_null_records() -> None:
    for version in (4, 12):
        for records in (b"", None):
            partition = PartitionData(records=records)
            response = FetchResponse(responses=[FetchableTopicResponse(partitions=[partition])])
            sent = b"".join(encoder(FetchResponse, version)(response))
            back = decode(FetchResponse, version, sent)
            assert back.responses[0].partitions[0].records == records


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 16383, 16384, 32767])
@pytest.mark.parametrize("version", [0, 1])
def test_a_string_of_any_allowed_length_comes_back(version: int, length: int) -> None:
    message = Small(text="x" * length, blob=b"y" * length, maybe="z" * length)
    [encoded] = encoder(Small, version)(message)
    assert decode(Small, version, encoded) == message


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 126, 127, 128, 300])
def test_an_array_of_numbers_of_any_length_comes_back(count: int) -> None:
    class Numbers(t.Message, key=99, kind="response", versions=(0, 1), flexible=1):
        before: int = t.int16()
        numbers: list[int] = t.array(t.int32)
        maybe: list[int] | None = t.array(t.int64, null_since=0)

    message = Numbers(before=1, numbers=list(range(count)), maybe=[-1] * count)
    for version in (0, 1):
        assert decode(Numbers, version, encoder(Numbers, version)(message)[0]) == message


# Tagged fields


def test_tagged_fields_are_written_only_if_they_are_not_their_default() -> None:
    plain = encoder(Small, 1)(Small())[0]
    tagged = encoder(Small, 1)(Small(tagged=7, after="a"))[0]
    assert plain == b"\x01\x01\x01\x00"
    assert tagged == b"\x01\x01\x01\x02" + b"\x01\x04\0\0\0\x07" + b"\x04\x02\x02a"
    assert decode(Small, 1, tagged) == Small(tagged=7, after="a")


def test_unknown_tagged_fields_are_skipped_before_between_and_after_known_ones() -> None:
    tags = (
        b"\x05"
        + b"\x00\x01?"
        + b"\x01\x04\0\0\0\x07"
        + b"\x02\x00"
        + b"\x04\x02\x02a"
        + b"\x7f\x02??"
    )
    assert decode(Small, 1, b"\x01\x01\x01" + tags) == Small(tagged=7, after="a")


def test_unknown_tagged_fields_are_skipped_where_no_tag_is_known() -> None:
    [encoded] = encoder(ApiVersionsRequest, 3)(ApiVersionsRequest())
    view = memoryview(encoded[:-1] + b"\x02" + b"\x03\x02??" + b"\x80\x01\x00")
    assert decoder(ApiVersionsRequest, 3)(view, 0)[1] == len(view)


def test_a_default_struct_in_a_tagged_field_is_not_written_even_if_it_is_a_new_one() -> None:
    assert encoder(FetchRequest, 15)(FetchRequest(replica_state=ReplicaState())) == encoder(
        FetchRequest, 15
    )(FetchRequest())
    leader = LeaderIdAndEpoch(leader_id=5, leader_epoch=6)
    response = FetchResponse(
        responses=[FetchableTopicResponse(partitions=[PartitionData(current_leader=leader)])]
    )
    back = decode(FetchResponse, 12, encoder(FetchResponse, 12)(response)[0])
    assert back.responses[0].partitions[0].current_leader == leader


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        (b"\xff\xff\xff\xff\x07", "tagged fields"),  # 2^31 - 1 of them
        (b"\x03\x00\x00", "tagged fields"),  # more than can be in what is left
        (b"\x02\x07\x00\x07\x00", "tag 7 after tag 7"),
        (b"\x02\x07\x00\x06\x00", "tag 6 after tag 7"),
        (b"\x02\x01\x04\0\0\0\x07\x01\x04\0\0\0\x07", "tag 1 after tag 1"),
        (b"\x01\x07\x09?", "9 bytes"),  # a size beyond what is left
        (b"\x01\x07\xff\xff\xff\xff\x07?", "bytes"),
        (b"\x01\x01\x03\0\0\0\x07", "off by"),  # a known one with a size too small
        (b"\x01\x01\x05\0\0\0\x07\x00", "off by"),  # and one too large
        (b"\x01\xff\xff\xff\xff\xff\xff\x01\x00", "5 bytes"),
    ],
)
def test_h16_tagged_fields_that_lie_are_refused(tags: bytes, match: str) -> None:
    refused(Small, 1, b"\x01\x01\x01" + tags, match)


@pytest.mark.parametrize(
    "tags", [b"\xff\xff\xff\xff\x07", b"\x02\x07\x00\x06\x00", b"\x01\x07\x09?"]
)
def test_h16_tagged_fields_that_lie_are_refused_where_no_tag_is_known(tags: bytes) -> None:
    [encoded] = encoder(ApiVersionsRequest, 3)(ApiVersionsRequest())
    refused(ApiVersionsRequest, 3, encoded[:-1] + tags, "tag")


# Lengths, counts and text


def test_h15_a_string_that_is_cut_negative_or_not_utf8_is_refused() -> None:
    refused(Small, 0, b"\x00\x05abc", "length 5, 3 bytes are left")
    refused(Small, 0, b"\xff\xfeabc", "length of -2")
    refused(Small, 0, b"\x7f\xffabc", "length 32767, 3 bytes")
    refused(Small, 0, b"\x00\x02\xc3\x28" + bytes(8), "utf-8")
    refused(Small, 1, b"\x03\xc3\x28" + bytes(8), "utf-8")
    refused(Small, 1, b"\x04\xed\xa0\x80" + bytes(8), "utf-8")  # a lone surrogate


def test_h15_only_minus_one_is_null() -> None:
    assert decode(Small, 0, b"\0\0" + b"\0\0\0\0" + b"\xff\xff").maybe is None
    refused(Small, 0, b"\0\0" + b"\0\0\0\0" + b"\xff\xfe", "length of -2")


def test_a_length_may_take_more_bytes_than_it_needs() -> None:
    [encoded] = encoder(Small, 1)(Small(text="x", blob=b"yyyy", maybe=None))
    at = encoded.index(b"yyyy")
    for length in (b"\x85\x00", b"\x85\x80\x00", b"\x85\x80\x80\x80\x00"):
        longer = encoded[: at - 1] + length + encoded[at:]
        assert decode(Small, 1, longer).blob == b"yyyy"
    refused(Small, 1, encoded[: at - 1] + b"\x85\x80\x80\x80\x80\x00" + encoded[at:], "5 bytes")
    refused(Small, 1, encoded[: at - 1] + b"\x85", "index out of")


def test_h17_a_varint_of_more_than_five_bytes_or_31_bits_is_refused() -> None:
    refused(Small, 1, b"\xff" * 20, "5 bytes")
    refused(Small, 1, b"\x80" * 6 + b"\x01", "5 bytes")
    refused(Small, 1, b"\xff\xff\xff\xff\x0f" + bytes(9), "31 bits")


@pytest.mark.parametrize("version", [4, 9])
def test_h18_a_count_beyond_what_is_left_is_refused_before_anything_is_made(version: int) -> None:
    count = struct.pack(">i", 2**31 - 1) if version == 4 else b"\xff\xff\xff\xff\x07"
    decoder(MetadataRequest, version)  # compiling takes memory too
    tracemalloc.start()
    refused(MetadataRequest, version, count + bytes(16), "too many")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024


def test_h18_a_count_of_numbers_beyond_what_is_left_is_refused() -> None:
    class Numbers(t.Message, key=99, kind="request", versions=(0, 1), flexible=1):
        numbers: list[int] = t.array(t.int64)

    refused(Numbers, 0, struct.pack(">i", 2**31 - 1) + bytes(20), "too many")
    refused(Numbers, 0, struct.pack(">i", 3) + bytes(23), "too many")
    refused(Numbers, 1, b"\xff\xff\xff\xff\x07" + bytes(20), "too many")
    refused(Numbers, 0, struct.pack(">i", -2), "-2")


def test_h19_null_where_it_is_not_allowed_is_refused() -> None:
    refused(Small, 0, b"\xff\xff" + bytes(9), "null")
    refused(Small, 0, b"\0\0" + b"\xff\xff\xff\xff" + bytes(9), "null")
    refused(Small, 1, b"\x00\x01\x01\x00", "null")
    refused(Small, 1, b"\x01\x00\x01\x00", "null")
    refused(MetadataRequest, 0, b"\xff\xff\xff\xff", "null")
    refused(ProduceRequest, 9, b"\x00" + bytes(6) + b"\x00" + b"\x00", "null")


def test_h20_a_compact_string_longer_than_the_old_form_allows_is_refused() -> None:
    body = write_uvarint(32769) + b"x" * 32768 + b"\x01\x01\x00"
    refused(Small, 1, body, "a string of 32768 bytes")


@pytest.mark.parametrize("version", [3, 9, 13])
def test_h21_every_strict_prefix_is_refused(version: int) -> None:
    [encoded] = encoder(ProduceRequest, version)(produce(b"r" * 140))
    decode_one = decoder(ProduceRequest, version)
    for size in range(len(encoded)):
        with pytest.raises(CodecError):
            decode_one(memoryview(encoded)[:size], 0)


def test_a_request_of_more_elements_than_the_limit_is_refused() -> None:
    topics = [MetadataRequestTopic(name="")] * (ELEMENTS_MAX + 1)
    [encoded] = encoder(MetadataRequest, 9)(MetadataRequest(topics=topics))
    refused(MetadataRequest, 9, encoded, "too many")


def test_the_limit_of_elements_counts_those_of_all_arrays_together() -> None:
    half = [PartitionProduceData()] * (ELEMENTS_MAX // 2)
    topics = [TopicProduceData(name="a", partition_data=half)] * 2
    [encoded] = encoder(ProduceRequest, 9)(ProduceRequest(topic_data=topics))
    refused(ProduceRequest, 9, encoded, "too many")


def test_cve_2022_34917_memory_is_bounded_by_the_bytes_sent_not_by_what_they_claim() -> None:
    rng = random.Random(34917)
    [good] = encoder(ProduceRequest, 9)(produce(bytes(2000)))
    decode_one = decoder(ProduceRequest, 9)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + 5] = b"\xff\xff\xff\xff\x07"
        tracemalloc.start()
        try:
            decode_one(memoryview(data), 0)
        except CodecError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak <= 8 * len(data) + 16 * 1024


def test_p1_the_densest_request_takes_a_bounded_surplus_of_memory() -> None:
    count = 20_000
    topics = [TopicProduceData()] * count
    [encoded] = encoder(ProduceRequest, 9)(ProduceRequest(topic_data=topics))
    view, decode_one = memoryview(encoded), decoder(ProduceRequest, 9)
    tracemalloc.start()
    kept = decode_one(view, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept[0].topic_data) == count
    assert peak <= 8 * len(encoded) + 160 * count + 16 * 1024  # and count <= ELEMENTS_MAX


def test_p16_varints_are_read_as_the_reference_reads_them() -> None:
    rng = random.Random(16)
    for _ in range(20_000):
        data = bytes(rng.choice((rng.randrange(256), 0xFF, 0x80)) for _ in range(rng.randrange(11)))
        expected = reference_uvarint(data)
        if expected is None:
            with pytest.raises((CodecError, IndexError)):
                read_uvarint(memoryview(data), 0)
        else:
            assert read_uvarint(memoryview(data), 0) == expected


def reference_uvarint(data: bytes) -> tuple[int, int] | None:
    for size in range(1, 6):
        if size <= len(data) and data[size - 1] < 0x80:
            groups = [format(byte & 0x7F, "07b") for byte in reversed(data[:size])]
            value = int("".join(groups), 2)
            return (value, size) if value < 1 << 31 else None
    return None


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**21, 2**28, 2**31 - 1])
def test_a_varint_comes_back(value: int) -> None:
    written = write_uvarint(value)
    assert read_uvarint(memoryview(written), 0) == (value, len(written))


# What cannot be written


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    "wrong",
    [
        {"text": None},
        {"blob": None},
        {"text": 3},
        {"blob": "text"},
        {"text": "x" * 32768},
        {"text": "\ud800"},
        {"maybe": 3},
    ],
    ids=str,
)
def test_a_value_that_a_field_cannot_have_is_refused(version: int, wrong: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        encoder(Small, version)(Small(**wrong))


@pytest.mark.parametrize("wrong", [{"acks": 1 << 15}, {"timeout_ms": None}, {"topic_data": None}])
def test_a_number_out_of_range_or_none_is_refused(wrong: dict[str, Any]) -> None:
    for version in (3, 9):
        with pytest.raises(CodecError):
            encoder(ProduceRequest, version)(ProduceRequest(**wrong))


def test_none_is_refused_in_the_versions_that_do_not_allow_it() -> None:
    request = MetadataRequest(topics=None)
    assert encoder(MetadataRequest, 1)(request) == [b"\xff\xff\xff\xff"]
    with pytest.raises(CodecError):
        encoder(MetadataRequest, 0)(request)


def test_a_version_that_a_message_does_not_have_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="versions 3 to 13, not 2"):
        decoder(ProduceRequest, 2)
    with pytest.raises(ValueError, match="versions 3 to 13, not 14"):
        encoder(ProduceRequest, 14)


def test_a_codec_is_compiled_once() -> None:
    assert decoder(ProduceRequest, 9) is decoder(ProduceRequest, 9)
    assert encoder(ProduceRequest, 9) is encoder(ProduceRequest, 9)
