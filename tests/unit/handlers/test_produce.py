"""Produce: each error with its code and its row of the hostile table, and what an answer carries.

What Kafka 4.3.1 answers was asked of a running one where a test says "as Kafka".
"""

from __future__ import annotations

from typing import Any

import pytest

from ottla.cluster.changes import TopicConfigChanged, TopicCreated
from ottla.cluster.image import TopicImage
from ottla.core.model import Offset, TopicId
from ottla.handlers import produce as handler
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from ottla.records.builder import Producer
from ottla.records.compress import GZIP, NONE, ZSTD
from ottla.records.crc import crc32c
from ottla.records.reader import read_batches, records_of
from ottla.testing.simnode import SimNode
from tests.asking import NOW_MS, Want, batch, batches, get, produce, produced, put

from .ways import both_ways

GOOD = batch(b"a", b"b")


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t", 3)
    return node


def configured(**configs: str) -> SimNode:
    node = SimNode()
    node.create_topic("t", **configs)
    return node


def told(part: PartitionProduceResponse) -> tuple[ErrorCode, int, int, int]:
    """Error, base offset, log append time, log start."""
    return (
        ErrorCode(part.error_code),
        part.base_offset,
        part.log_append_time_ms,
        part.log_start_offset,
    )


# --- what is answered


@pytest.mark.parametrize("version", range(3, 14))
@pytest.mark.parametrize("acks", [-1, 1])
def test_every_version_is_answered_with_the_offset_the_batch_was_given(
    version: int, acks: int
) -> None:
    node = SimNode()
    topic_id = node.create_topic("t")
    put(node, GOOD)
    part = PartitionProduceData(index=0, records=GOOD)
    body = ProduceRequest(
        acks=acks,
        timeout_ms=1000,
        topic_data=[TopicProduceData(name="t", topic_id=topic_id, partition_data=[part])],
    )
    call = node.connect().ask(body, version)
    node.settle()
    start = 0 if version >= 5 else -1
    assert told(produced(call)) == (ErrorCode.NONE, 2, -1, start)
    topic = call.answer.responses[0]
    assert topic.topic_id == topic_id if version >= 13 else topic.name == "t"


def test_partitions_are_judged_each_on_its_own_and_answered_in_their_order(node: SimNode) -> None:
    parts = {("t", 2): GOOD, ("gone", 0): GOOD, ("t", 0): batch(b"x")[:-1], ("t", 1): GOOD}
    call = node.connect().ask(produce(parts), 9)
    node.settle()
    assert [
        (topic.name, part.index, part.error_code)
        for topic in call.answer.responses
        for part in topic.partition_responses
    ] == [("t", 2, 0), ("t", 0, 87), ("t", 1, 0), ("gone", 0, 3)]


def test_a_topic_without_partitions_is_left_out_of_the_answer_as_kafka_does(
    node: SimNode,
) -> None:
    body = ProduceRequest(acks=-1, topic_data=[TopicProduceData(name="t", partition_data=[])])
    assert node.answer(node.connect().ask(body, 9)).responses == []


def test_acks_zero_is_not_answered_and_the_connection_goes_on(node: SimNode) -> None:
    connection = node.connect()
    connection.ask(produce({("t", 0): GOOD}, acks=0), 9, answered=False)
    call = connection.ask(produce({("t", 0): GOOD}, acks=1), 9)
    node.settle()
    assert produced(call).base_offset == 2


@pytest.mark.parametrize(
    "parts",
    [{("gone", 0): GOOD}, {("t", 0): None}, {("t", 0): GOOD, ("t", 9): GOOD}],
    ids=["unknown", "null", "one of two"],
)
def test_h30_acks_zero_with_any_error_closes_the_connection(node: SimNode, parts: Any) -> None:
    connection = node.connect()
    connection.ask(produce(parts, acks=0), 9, answered=False)
    node.settle()
    assert connection.closed
    if len(parts) == 2:
        assert get(node).high_watermark == 2, "what was sound is stored all the same"


# --- refusals


@pytest.mark.parametrize("acks", [2, -2, 1000, -32768])
def test_h29_acks_that_do_not_exist_are_refused_for_each_partition(
    node: SimNode, acks: int
) -> None:
    call = node.connect().ask(produce({("t", 0): GOOD, ("t", 1): GOOD}, acks), 9)
    node.settle()
    parts = call.answer.responses[0].partition_responses
    assert [told(part) for part in parts] == [(ErrorCode.INVALID_REQUIRED_ACKS, -1, -1, -1)] * 2
    assert get(node).high_watermark == 0


def test_h29_an_unknown_topic_is_told_first_as_kafka_does(node: SimNode) -> None:
    part = put(node, GOOD, acks=2, topic="gone")
    assert part.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def altered(at: int, value: int) -> bytes:
    raw = bytearray(GOOD)
    raw[at] = value
    return bytes(raw)


TRANSACTIONAL = batch(b"a", producer=Producer(7, 0, 0), attributes=0x10)


@pytest.mark.parametrize(
    ("records", "error", "start"),
    [
        (None, ErrorCode.INVALID_RECORD, -1),  # H31
        (GOOD + GOOD, ErrorCode.INVALID_RECORD, -1),  # H32
        (altered(16, 1), ErrorCode.INVALID_RECORD, -1),  # H33
        (altered(16, 3), ErrorCode.CORRUPT_MESSAGE, -1),  # H33
        (GOOD[:-1] + b"!", ErrorCode.CORRUPT_MESSAGE, -1),  # H35
        (batch(b"a", base_offset=5), ErrorCode.INVALID_RECORD, 0),  # H36
        (batch(b"a" * 1_100_000), ErrorCode.MESSAGE_TOO_LARGE, -1),  # H37
        (batch(b"a", attributes=0x20), ErrorCode.INVALID_RECORD, 0),  # H44
        (batch(b"a", timestamp=NOW_MS + 7_200_000), ErrorCode.INVALID_TIMESTAMP, 0),  # H46
    ],
    ids=["H31", "H32", "H33 old", "H33 unknown", "H35", "H36", "H37", "H44", "H46"],
)
def test_a_batch_that_is_not_sound_is_refused_and_takes_no_offset(
    node: SimNode, records: bytes | None, error: ErrorCode, start: int
) -> None:
    assert told(put(node, records)) == (error, -1, -1, start)
    assert put(node, GOOD).base_offset == 0


def test_a_batch_larger_than_a_segment_is_refused() -> None:  # H38
    node = configured(segment_bytes="1048576", max_message_bytes="3000000")
    assert put(node, batch(b"a" * 1_100_000)).error_code == ErrorCode.RECORD_LIST_TOO_LARGE


def test_refused_records_are_named_from_version_8_on() -> None:  # H47
    node = configured(cleanup_policy="compact")
    part = put(node, GOOD, version=8)
    assert told(part) == (ErrorCode.INVALID_RECORD, -1, -1, 0)
    assert [error.batch_index for error in part.record_errors] == [0, 1]
    assert "2 record errors" in str(part.error_message)
    part = put(node, GOOD, version=7)
    assert (part.record_errors, part.error_message) == ([], None)


@pytest.mark.parametrize("topic", ["__consumer_offsets", "__transaction_state"])
@pytest.mark.parametrize("acks", [-1, 1])
def test_h62_internal_topics_are_not_for_clients(node: SimNode, topic: str, acks: int) -> None:
    assert put(node, GOOD, topic=topic).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    image = node.image.topics["t"]
    internal = TopicImage(topic, TopicId(b"\7" * 16), image.partitions[:1])
    node.table.apply(TopicCreated(internal))
    assert put(node, GOOD, acks, topic=topic).error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize(("topic", "partition"), [("gone", 0), ("t", 3), ("t", -1), ("", 0)])
def test_h64_a_partition_that_is_not_here_is_unknown(
    node: SimNode, topic: str, partition: int
) -> None:
    part = put(node, GOOD, topic=topic, partition=partition)
    assert told(part) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1)
    assert part.index == partition


@pytest.mark.parametrize(
    ("topic_id", "index", "error"),
    [
        (None, 9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (bytes(16), 0, ErrorCode.UNKNOWN_TOPIC_ID),
        (b"\1" * 16, 0, ErrorCode.UNKNOWN_TOPIC_ID),
    ],
)
def test_h64_an_id_that_is_not_here_is_unknown(
    topic_id: bytes | None, index: int, error: ErrorCode
) -> None:
    node = SimNode()
    known = node.create_topic("t")
    part = PartitionProduceData(index=index, records=GOOD)
    topic = TopicProduceData(topic_id=topic_id or known, partition_data=[part])
    call = node.connect().ask(ProduceRequest(acks=1, topic_data=[topic]), 13)
    node.settle()
    assert told(produced(call)) == (error, -1, -1, -1)


def test_h65_a_partition_named_twice_is_refused_both_times(node: SimNode) -> None:
    twice = [PartitionProduceData(index=0, records=GOOD) for _ in range(2)]
    once = PartitionProduceData(index=1, records=GOOD)
    topics = [
        TopicProduceData(name="t", partition_data=[twice[0], once]),
        TopicProduceData(name="t", partition_data=[twice[1]]),
    ]
    call = node.connect().ask(ProduceRequest(acks=-1, topic_data=topics), 9)
    node.settle()
    first, second = call.answer.responses
    assert [part.error_code for part in first.partition_responses] == [42, 0]
    assert [part.error_code for part in second.partition_responses] == [42]
    assert get(node).high_watermark == 0


def test_h28_a_request_that_names_too_many_partitions_is_refused_whole() -> None:
    node = SimNode(request_partitions_max="2")
    node.create_topic("t", 3)
    call = node.connect().ask(produce({("t", number): GOOD for number in range(3)}), 9)
    node.settle()
    assert [part.error_code for part in call.answer.responses[0].partition_responses] == [42] * 3


def test_a_transactional_batch_without_a_transactional_id_refuses_the_request(
    node: SimNode,
) -> None:  # H59
    call = node.connect().ask(produce({("t", 0): TRANSACTIONAL, ("t", 1): GOOD}), 9)
    node.settle()
    assert [part.error_code for part in call.answer.responses[0].partition_responses] == [53] * 2


def test_a_batch_of_a_transaction_that_nobody_knows_is_refused_alone(node: SimNode) -> None:  # H60
    body = produce({("t", 0): TRANSACTIONAL, ("t", 1): GOOD})
    body.transactional_id = "mine"
    call = node.connect().ask(body, 9)
    node.settle()
    assert [part.error_code for part in call.answer.responses[0].partition_responses] == [49, 0]


# --- idempotence


def sequence(number: int, epoch: int = 0, producer_id: int = 7) -> bytes:
    return batch(b"x", producer=Producer(producer_id, epoch, number))


def test_a_repeated_batch_is_answered_as_the_first_time_and_not_stored_twice(
    node: SimNode,
) -> None:
    put(node, GOOD)
    first = put(node, sequence(0))
    again = put(node, sequence(0))
    assert again.base_offset == first.base_offset == 2
    assert first.log_append_time_ms == -1
    assert again.log_append_time_ms == NOW_MS, "a duplicate tells its timestamp, as Kafka does"
    assert get(node).high_watermark == 3


def test_a_repeated_batch_waits_for_the_first_to_be_on_disk(node: SimNode) -> None:
    put(node, GOOD)
    connection = node.connect()
    calls = [connection.ask(produce({("t", 0): sequence(0)}), 9) for _ in range(2)]
    calls.append(connection.ask(produce({("t", 0): sequence(1)}), 9))
    calls.append(connection.ask(produce({("t", 0): sequence(0)}), 9))
    while node.loop.turn():
        pass
    assert not any(call.done for call in calls)
    node.settle()
    assert [produced(call).base_offset for call in calls] == [2, 2, 3, 2]


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (sequence(2, epoch=1), ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),  # H56
        (sequence(5, epoch=2), ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),  # H58
        (sequence(1, epoch=0), ErrorCode.INVALID_PRODUCER_EPOCH),  # H57
    ],
    ids=["gap", "new epoch", "old epoch"],
)
def test_a_sequence_out_of_place_is_refused_and_tells_the_log_start(
    node: SimNode, records: bytes, error: ErrorCode
) -> None:
    put(node, sequence(0, epoch=1))
    assert told(put(node, records)) == (error, -1, -1, 0)
    assert get(node).high_watermark == 1


@pytest.mark.parametrize(("codec", "version", "start"), [(4, 6, -1), (5, 9, 0)])
def test_an_unusable_codec_is_refused_and_tells_the_log_start_where_kafkas_log_refuses_it(
    node: SimNode, codec: int, version: int, start: int
) -> None:
    raw = bytearray(GOOD)
    raw[22] |= codec  # the lower byte of the attributes
    raw[17:21] = crc32c(raw[21:]).to_bytes(4)
    refused = (ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, -1, -1, start)
    assert told(put(node, bytes(raw), version=version)) == refused


# --- the usual request, which has a way of its own

REQUESTS = {
    "plain": GOOD,
    "many": batch(*[b"x"] * 50),
    "packed": batch(b"a" * 1000, codec=GZIP),
    "none": None,
    "cut": GOOD[:-1],
    "two": GOOD + GOOD,
    "corrupt": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "first of a producer": sequence(0),
    "again": sequence(0),
    "a gap": sequence(5),
    "too new": batch(b"a", timestamp=NOW_MS + 7_200_000),
    "too large": batch(b"a" * 3000),
    "transactional": TRANSACTIONAL,
    "plain once more": GOOD,
}


@pytest.mark.parametrize("version", [4, 5, 8, 9, 13])
@pytest.mark.parametrize("acks", [-1, 0, 1, 2])
@pytest.mark.parametrize(
    ("policy", "timestamps"),
    [("os", "CreateTime"), ("commit", "CreateTime"), ("os", "LogAppendTime")],
)
def test_the_usual_request_is_answered_as_if_it_had_no_way_of_its_own(
    version: int, acks: int, policy: str, timestamps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[object]:
        node = SimNode(flush_policy=policy)
        configs = {"max_message_bytes": "2000", "message_timestamp_type": timestamps}
        topic_id = node.create_topic("t", **configs)
        answers: list[object] = []
        for name, records in REQUESTS.items():
            if name == "a gap":
                node.table.delete_records(node.partition("t"), Offset(1))
                node.settle()
            part = PartitionProduceData(index=0, records=records)
            topic = TopicProduceData(name="t", topic_id=topic_id, partition_data=[part])
            body = ProduceRequest(acks=acks, timeout_ms=1000, topic_data=[topic])
            connection = node.connect()
            call = connection.ask(body, version, answered=acks != 0)
            node.settle()
            answers.append((name, call.answer, connection.closed))
        log = node.partition("t").log
        answers += [one.log.read_nowait(0, one.size) for one in log.segments]
        return answers

    own, general = both_ways(monkeypatch, told, handler)
    assert own == general


@pytest.mark.parametrize("acks", [-1, 1])
def test_most_requests_go_the_quick_way(acks: int) -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t")
    put(node, GOOD)
    body = produce({("t", 0): memoryview(bytearray(GOOD))}, acks)
    assert handler.quick(node.context, 9, body) is not None
    node.table.little_room = True
    body = produce({("t", 0): memoryview(bytearray(GOOD))}, acks)
    assert handler.quick(node.context, 9, body) is None
    assert put(node, GOOD, acks).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert get(node).high_watermark == 4


# --- waiting


def test_acks_all_that_is_not_on_disk_in_time_is_told_so(node: SimNode) -> None:
    put(node, GOOD)
    call = node.connect().ask(produce({("t", 0): GOOD}, timeout_ms=1500), 9)
    node.loop.advance(1.4)
    assert not call.done
    node.loop.advance(0.2)
    assert told(produced(call)) == (ErrorCode.REQUEST_TIMED_OUT, -1, -1, -1)
    node.settle()
    assert get(node).high_watermark == 4, "it was written, and may well be there"


def test_of_several_partitions_only_those_not_on_disk_in_time_are_told_so(node: SimNode) -> None:
    put(node, GOOD)
    put(node, GOOD, partition=1)
    connection = node.connect()
    connection.ask(produce({("t", 0): sequence(0)}, acks=1), 9)
    node.settle()
    call = connection.ask(produce({("t", 0): sequence(0), ("t", 1): GOOD}, timeout_ms=100), 9)
    node.loop.advance(0.2)
    parts = call.answer.responses[0].partition_responses
    assert [part.error_code for part in parts] == [0, ErrorCode.REQUEST_TIMED_OUT]


def test_a_deleted_topic_is_unknown_to_those_who_wait_for_its_disk(node: SimNode) -> None:
    put(node, GOOD)
    call = node.connect().ask(produce({("t", 0): GOOD}), 9)
    node.table.apply(_deleted(node))
    node.settle()
    assert produced(call).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_topic_deleted_while_its_files_are_made_is_unknown(node: SimNode) -> None:
    call = node.connect().ask(produce({("t", 0): GOOD}, acks=1), 9)
    node.table.apply(_deleted(node))
    node.settle()
    assert produced(call).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _deleted(node: SimNode):
    from ottla.cluster.changes import TopicDeleted

    return TopicDeleted(node.image.topics["t"])


def test_min_insync_replicas_counts_at_most_the_replicas_there_are_as_kafka_does() -> None:
    assert put(configured(min_insync_replicas="2"), GOOD).error_code == ErrorCode.NONE


# --- what topics ask of batches


def values(node: SimNode) -> list[bytes | None]:
    raw = bytes(get(node).records)
    return [record.value for one in read_batches(raw) for record in records_of(one)]


def test_log_append_time_is_stamped_and_told() -> None:
    node = configured(message_timestamp_type="LogAppendTime")
    node.advance(5.0)
    part = put(node, batch(b"a", timestamp=1))
    assert told(part) == (ErrorCode.NONE, 0, NOW_MS + 5000, 0)
    (stored,) = batches(get(node))
    assert (stored.log_append_time, stored.max_timestamp) == (True, NOW_MS + 5000)


def test_under_log_append_time_a_clients_timestamps_roll_no_segment() -> None:
    node = configured(message_timestamp_type="LogAppendTime")
    for timestamp in (1, 1 << 60, 1):
        assert put(node, batch(b"a", timestamp=timestamp)).error_code == 0
    assert len(node.partition("t").log.segments) == 1


@pytest.mark.parametrize("sent", [NONE, GZIP, ZSTD])
@pytest.mark.parametrize("size", [10, 100_000])
def test_compression_type_packs_a_batch_anew_wherever_it_is_done(sent: int, size: int) -> None:
    node = configured(compression_type="gzip")
    part = put(node, batch(b"a" * size, b"b", codec=sent))
    assert part.error_code == 0
    (stored,) = batches(get(node))
    assert stored.codec == GZIP
    assert values(node) == [b"a" * size, b"b"]
    assert node.offload.runs_count == (size > 1000)


def test_a_batch_that_is_too_large_once_it_is_unpacked_is_refused_as_kafka_does() -> None:
    node = configured(compression_type="uncompressed", max_message_bytes="2000")
    part = put(node, batch(b"a" * 3000, codec=ZSTD))
    assert told(part) == (ErrorCode.MESSAGE_TOO_LARGE, -1, -1, -1)


def broken(size: int) -> bytes:
    """A batch whose header is sound and whose second record is not."""
    from ottla.records.batch import stamp_crc

    raw = bytearray(batch(b"a" * size, b"b"))
    raw[-8] = 0xFF
    stamp_crc(memoryview(raw))
    return bytes(raw)


@pytest.mark.parametrize("size", [10, 100_000])
def test_records_are_walked_where_the_topic_asks_and_only_there(size: int) -> None:
    walked = configured(record_validation="records")
    assert put(walked, broken(size)).error_code == ErrorCode.INVALID_RECORD
    assert put(walked, batch(b"a" * size)).base_offset == 0
    assert walked.offload.runs_count == 2 * (size > 1000)
    assert put(configured(record_validation="header"), broken(size)).error_code == 0


def test_a_large_batch_that_is_walked_elsewhere_keeps_its_place_among_the_others() -> None:
    node = configured(record_validation="records")
    connection = node.connect()
    large = [batch(b"a" * 50_000, producer=Producer(7, 0, number)) for number in range(0, 4, 2)]
    small = [batch(b"b", producer=Producer(7, 0, number)) for number in range(1, 4, 2)]
    sent = [large[0], small[0], large[1], small[1]]
    calls = [connection.ask(produce({("t", 0): raw}), 9) for raw in sent]
    node.settle()
    assert [produced(call).base_offset for call in calls] == [0, 1, 2, 3]


def test_with_too_much_work_waiting_a_large_batch_is_refused_so_that_its_client_comes_again() -> (
    None
):
    node = configured(record_validation="records")
    node.offload.full = True
    part = put(node, batch(b"a" * 50_000))
    assert told(part) == (ErrorCode.REQUEST_TIMED_OUT, -1, -1, -1)
    assert put(node, batch(b"a")).base_offset == 0


def test_a_connection_that_goes_while_its_batch_is_walked_leaves_nothing_behind() -> None:
    node = configured(record_validation="records")
    connection = node.connect()
    connection.ask(produce({("t", 0): batch(b"a" * 50_000)}), 9)
    connection.close()
    node.settle()
    assert get(node).high_watermark == 0


def test_a_topics_settings_hold_from_the_next_batch_on(node: SimNode) -> None:
    assert put(node, batch(b"a" * 500)).error_code == 0
    topic = node.image.topics["t"]
    changed = TopicConfigChanged(topic.id, "t", {"max.message.bytes": "100"})
    node.table.apply(changed)
    assert put(node, batch(b"a" * 500)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert put(node, batch(b"a")).base_offset == 1


def test_a_batch_that_claims_two_billion_offsets_rolls_instead_of_overflowing(
    node: SimNode,
) -> None:
    from ottla.records.batch import HEADER, stamp_crc

    raw = bytearray(batch(b"a"))
    fields = list(HEADER.unpack_from(raw))
    fields[6], fields[12] = (1 << 31) - 2, (1 << 31) - 1
    HEADER.pack_into(raw, 0, *fields)
    stamp_crc(memoryview(raw))
    assert [put(node, bytes(raw)).base_offset for _ in range(3)] == [
        number * ((1 << 31) - 1) for number in range(3)
    ]
    assert get(node, Want(5)).error_code == 0
