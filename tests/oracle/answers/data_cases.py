"""Cases of the data path: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and their like."""

from __future__ import annotations

from typing import Any

from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
)
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from ottla.protocol.schema import Message
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record
from tests.oracle.answers.batches import (
    NOW_MS,
    OLD_MS,
    batch,
    changed,
)
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.peer import Peer
from tests.processes import wait_until

PRODUCE, FETCH, LIST_OFFSETS, DELETE_RECORDS = 0, 1, 2, 21
INIT_PRODUCER_ID, LEADER_EPOCH, DESCRIBE_PRODUCERS = 22, 23, 61
BY_ID = 13
UNKNOWN_ID = bytes(range(16))

# --- Produce ---------------------------------------------------------------------------------


def produce(peer: Peer, topic: str, records: bytes | None, version: int, **more: Any) -> Any:
    """One batch to one partition; by id where the version goes by ids."""
    data = PartitionProduceData(
        index=more.pop("partition", 0), records=None if records is None else memoryview(records)
    )
    there = TopicProduceData(partition_data=[data])
    if version >= BY_ID:
        there.topic_id = more.pop("topic_id", None) or peer.id_of(topic)
    else:
        there.name = topic
    given = {"acks": -1, "timeout_ms": 5000} | more
    request = ProduceRequest(topic_data=[there], **given)
    return peer.after(request, version) if given["acks"] == 0 else peer.ask(request, version)


def filled(peer: Peer, count: int = 3, partitions: int = 1, **configs: str) -> str:
    """A topic of the case's own with `count` batches of two records in partition 0."""
    topic = peer.topic(partitions, **configs)
    for at in range(count):
        produce(peer, topic, batch(2, timestamp=NOW_MS + 10 * at), 9)
    return topic


def a_log(peer: Peer) -> str:
    """As `filled`, made once: for cases that only read."""
    name = "a-log"
    if name not in peer.made:
        peer.make(name, 1, {})
        for at in range(3):
            produce(peer, name, batch(2, timestamp=NOW_MS + 10 * at), 9)
    return name


@success(PRODUCE, range(3))
def a_version_that_is_advertised_and_not_taken(peer: Peer, version: int) -> Any:
    return peer.ask_raw(PRODUCE, version, b"\xff\xff\0\0\0\0\0\0\0\0\0\0")


@success(PRODUCE)
def one_batch_and_another(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [produce(peer, topic, batch(2), version), produce(peer, topic, batch(1), version)]


@success(PRODUCE)
def append_time(peer: Peer, version: int) -> Any:
    topic = peer.topic(message_timestamp_type="LogAppendTime")
    return produce(peer, topic, batch(1), version)


@success(PRODUCE, (3, 13))
def acks_1_and_0(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [produce(peer, topic, batch(1), version, acks=acks) for acks in (1, 0, 1)]


@error(PRODUCE, 7, 8, 13)
def h29_acks_2(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [produce(peer, topic, batch(1), version, acks=acks) for acks in (2, -2)]


@each(PRODUCE, unknown=b"", partition=7, damaged=bytes(70))
def h30_acks_0_with_an_error(peer: Peer, version: int, given: Any) -> Any:
    topic = peer.topic()
    if given == b"":
        return produce(peer, topic, batch(1), version, acks=0, topic_id=UNKNOWN_ID)
    if given == 7:
        return produce(peer, topic, batch(1), version, acks=0, partition=7)
    return produce(peer, topic, given, version, acks=0)


MALFORMED: dict[str, bytes] = {
    "h31_empty": b"",
    "h31_short": batch(1)[:40],
    "h32_two_batches": batch(1) + batch(1),
    "h32_one_and_a_half": batch(1) + batch(1)[:-3],
    "h33_magic_0": changed(batch(1), magic=0),
    "h33_magic_1": changed(batch(1), magic=1),
    "h33_magic_3": changed(batch(1), magic=3),
    "h33_magic_negative": changed(batch(1), magic=255),
    "h34_length_13": changed(batch(1), length=13),
    "h34_length_20": changed(batch(1), length=20),
    "h34_length_negative": changed(batch(1), length=0xFFFFFFFF),
    "h34_length_past_the_end": changed(batch(1), length=len(batch(1))),
    "h35_bit_flipped": batch(1)[:-1] + b"\x01",
    "h35_crc_flipped": changed(batch(1), crc_wrong=True),
    "h36_base_offset": changed(batch(1), base_offset=5),
    "h36_leader_epoch": changed(batch(1), leader_epoch=77),
    "h39_count_0": changed(batch(1), count=0),
    "h39_count_negative": changed(batch(1), count=-1),
    "h39_count_huge": changed(batch(1), count=(1 << 31) - 1),
    "h39_delta_of_another_count": changed(batch(2), last_delta=2),
    "h39_delta_negative": changed(batch(2), last_delta=-1),
    "h44_control": changed(batch(1), attributes=0x20),
    "h45_append_time": changed(batch(1), attributes=0x08),
    "h45_append_time_without_timestamp": changed(batch(1, timestamp=-1), attributes=0x08),
    "h46_timestamp_minus_1": batch(1, timestamp=-1),
    "h46_timestamp_2_hours_ahead": batch(1, timestamp=NOW_MS + 7_200_000),
    "h46_timestamp_huge": batch(1, timestamp=(1 << 63) - 1),
    "h46_timestamp_2010": batch(1, timestamp=OLD_MS),
    "h48_codec_5": changed(batch(1), attributes=5),
    "h48_codec_6": changed(batch(1), attributes=6),
    "h48_codec_7": changed(batch(1), attributes=7),
    "h56_id_without_sequence": batch(1, Producer(9, 0, -1)),
    "h56_id_without_epoch": batch(1, Producer(9, -1, 0)),
}


@each(PRODUCE, 7, 13, **MALFORMED)
def batch_with(peer: Peer, version: int, given: bytes) -> Any:
    return produce(peer, peer.topic(), given, version)


@error(PRODUCE)
def h31_null(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    with peer.less_patient():
        return produce(peer, topic, None, version)


@error(PRODUCE, 7, 8, 13)
def h37_more_than_max_message_bytes(peer: Peer, version: int) -> Any:
    topic = peer.topic(max_message_bytes="200")
    return produce(peer, topic, batch(1, value=b"x" * 300), version)


@error(PRODUCE, 7, 13)
def h38_more_than_segment_bytes(peer: Peer, version: int) -> Any:
    topic = peer.topic(segment_bytes=str(1 << 20), max_message_bytes=str(4 << 20))
    return produce(peer, topic, batch(1, value=b"x" * (2 << 20)), version)


@error(PRODUCE, 7, 13)
def h46_older_than_the_topic_takes(peer: Peer, version: int) -> Any:
    topic = peer.topic(message_timestamp_before_max_ms="1000")
    return produce(peer, topic, batch(2, timestamp=OLD_MS), version)


@error(PRODUCE, 7, 8, 13)
def h47_no_key_on_a_compacted_topic(peer: Peer, version: int) -> Any:
    topic = peer.topic(cleanup_policy="compact")
    records = [Record(key=key, value=b"v", timestamp=NOW_MS) for key in (b"k", None, b"k", None)]
    return produce(peer, topic, build_batch(records), version)


@error(PRODUCE, 3, 6, 7)
def h49_zstd(peer: Peer, version: int) -> Any:
    return produce(peer, peer.topic(), batch(3, codec=4), version)


SEQUENCES: dict[str, list[Producer]] = {
    "in_order": [Producer(9, 0, 0), Producer(9, 0, 2), Producer(9, 0, 4)],
    "sent_again": [Producer(9, 0, 0), Producer(9, 0, 2), Producer(9, 0, 0), Producer(9, 0, 2)],
    "h56_gap": [Producer(9, 0, 0), Producer(9, 0, 5)],
    "h56_from_the_past": [*(Producer(9, 0, 2 * at) for at in range(8)), Producer(9, 0, 0)],
    "h56_overlapping": [Producer(9, 0, 0), Producer(9, 0, 1)],
    "h57_lower_epoch": [Producer(9, 2, 0), Producer(9, 1, 2)],
    "h58_new_epoch_not_from_0": [Producer(9, 0, 0), Producer(9, 1, 2)],
    "new_epoch_from_0": [Producer(9, 0, 0), Producer(9, 1, 0)],
    "unknown_producer_not_from_0": [Producer(9, 0, 17)],
}


@each(PRODUCE, 7, 13, **SEQUENCES)
def producer(peer: Peer, version: int, given: list[Producer]) -> Any:
    topic = peer.topic()
    return [produce(peer, topic, batch(2, one), version) for one in given]


@error(PRODUCE, 9, 13)
def h64_unknown_and_negative_partition(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [produce(peer, topic, batch(1), version, partition=number) for number in (1, -1)]


@error(PRODUCE, 3, 9)
def h64_unknown_and_illegal_topic(peer: Peer, version: int) -> Any:
    return [produce(peer, name, batch(1), version) for name in ("nowhere", "a/b", "")]


@error(PRODUCE, 13)
def h73_unknown_and_zero_id(peer: Peer, version: int) -> Any:
    ids = (UNKNOWN_ID, bytes(16))
    return [produce(peer, "", batch(1), version, topic_id=one) for one in ids]


@error(PRODUCE, 9, 13)
def h65_a_partition_twice(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    both = [PartitionProduceData(index=0, records=memoryview(batch(1))) for _ in range(2)]
    there = TopicProduceData(partition_data=both)
    if version >= BY_ID:
        there.topic_id = peer.id_of(topic)
    else:
        there.name = topic
    return peer.ask(ProduceRequest(acks=-1, timeout_ms=5000, topic_data=[there]), version)


@error(PRODUCE, 9)
def no_topics_and_no_partitions(peer: Peer, version: int) -> Any:
    topics = [[], [TopicProduceData(name=peer.topic(), partition_data=[])]]
    return [peer.ask(ProduceRequest(acks=-1, topic_data=one), version) for one in topics]


@error(PRODUCE, 9)
def more_replicas_wanted_than_there_are(peer: Peer, version: int) -> Any:
    return produce(peer, peer.topic(min_insync_replicas="2"), batch(1), version)


# --- Fetch -----------------------------------------------------------------------------------


def named(kind: type[Message], more: dict[str, Any]) -> dict[str, Any]:
    """Takes out of `more` what names fields of such a message."""
    return {field.name: more.pop(field.name) for field in kind.FIELDS if field.name in more}


def fetch(peer: Peer, topic: str, version: int, **more: Any) -> Any:
    """One partition; `more` names fields of the partition or of the request."""
    fields = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
    fields |= named(FetchPartition, more)
    there = FetchTopic(partitions=[FetchPartition(**fields)])
    if version >= BY_ID:
        there.topic_id = more.pop("topic_id", None) or peer.id_of(topic)
    else:
        there.topic = topic
    given: dict[str, Any] = {"max_wait_ms": 0, "min_bytes": 0, "topics": [there]}
    return peer.ask(FetchRequest(**(given | more)), version)


@success(FETCH)
def whole_batches(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    asked = [{}, {"fetch_offset": 3}, {"fetch_offset": 6}, {"partition_max_bytes": 1}]
    return [fetch(peer, topic, version, **one) for one in asked]


@success(FETCH, (4, 18))
def committed_only(peer: Peer, version: int) -> Any:
    return fetch(peer, a_log(peer), version, isolation_level=1)


@each(FETCH, 4, 18, past_the_end=7, negative=-1, very_negative=-5, huge=(1 << 63) - 1)
def h66_offset(peer: Peer, version: int, given: int) -> Any:
    return fetch(peer, a_log(peer), version, fetch_offset=given)


@error(FETCH)
def h66_offset_before_the_start(peer: Peer, version: int) -> Any:
    topic = filled(peer)
    delete(peer, topic, 2, (0, 3))
    return [fetch(peer, topic, version, fetch_offset=offset) for offset in (2, 3)]


@each(FETCH, 4, 18, zero=0, negative=-1, huge=(1 << 31) - 1)
def h67_max_bytes(peer: Peer, version: int, given: int) -> Any:
    topic = a_log(peer)
    whole = fetch(peer, topic, version, max_bytes=given)
    return [whole, fetch(peer, topic, version, partition_max_bytes=given)]


@error(FETCH)
def h68_min_bytes_huge_is_answered_when_the_wait_is_over(peer: Peer, version: int) -> Any:
    return fetch(peer, a_log(peer), version, min_bytes=(1 << 31) - 1, max_wait_ms=50)


@error(FETCH)
def h68_negative_waits(peer: Peer, version: int) -> Any:
    return fetch(peer, a_log(peer), version, min_bytes=-1, max_wait_ms=-1)


@each(FETCH, 7, 18, unknown=(12345, 1), negative=(-7, 1), closing=(12345, -1), beginning=(12345, 0))
def h69_session(peer: Peer, version: int, given: tuple[int, int]) -> Any:
    answer = fetch(peer, a_log(peer), version, session_id=given[0], session_epoch=given[1])
    return _session_named(answer)


@error(FETCH, 7, 12, 13, 18)
def h69_wrong_epoch_of_a_session(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    first = fetch(peer, topic, version, session_epoch=0)
    number = first["session_id"]
    asked = [(number, 1), (number, 1), (number, 7), (number, 2)]
    answers = [
        peer.ask(FetchRequest(session_id=number, session_epoch=epoch), version)
        for number, epoch in asked
    ]
    return [_session_named(one) for one in (first, *answers)]


@error(FETCH, 7, 13)
def a_session_forgets_and_ends(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    first = fetch(peer, topic, version, session_epoch=0)
    forgotten = ForgottenTopic(partitions=[0])
    if version >= BY_ID:
        forgotten.topic_id = peer.id_of(topic)
    else:
        forgotten.topic = topic
    number = first["session_id"]
    second = FetchRequest(session_id=number, session_epoch=1, forgotten_topics_data=[forgotten])
    third = FetchRequest(session_id=number, session_epoch=-1)
    answers = [first, peer.ask(second, version), peer.ask(third, version)]
    return [_session_named(one) for one in answers]


@success(FETCH, (7, 12, 13, 18))
def a_session_is_told_what_has_changed(peer: Peer, version: int) -> Any:
    """Of three partitions: nothing, records, records again, nothing, a start that moves."""
    topic = filled(peer, partitions=3)
    there = {"topic_id": peer.id_of(topic)} if version >= BY_ID else {"topic": topic}

    def ask(session: tuple[int, int], *wanted: tuple[int, int]) -> Any:
        parts = [
            FetchPartition(partition=number, fetch_offset=offset, partition_max_bytes=1 << 20)
            for number, offset in wanted
        ]
        topics = [FetchTopic(**there, partitions=parts)] if parts else []
        given = {"max_wait_ms": 100, "min_bytes": 1, "topics": topics}
        request = FetchRequest(session_id=session[0], session_epoch=session[1], **given)
        return peer.ask(request, version)

    first = ask((0, 0), (0, 6), (1, 0), (2, 0))
    number = first["session_id"]
    answers = [first, ask((number, 1))]
    for partition in (2, 1):
        produce(peer, topic, batch(2, timestamp=NOW_MS), 9, partition=partition)
    answers += [ask((number, 2)), ask((number, 3)), ask((number, 4), (1, 2), (2, 2))]
    delete(peer, topic, 2, (0, 4))
    answers += [ask((number, 5)), ask((number, 6))]
    return [_session_named(one) for one in answers]


def _session_named(answer: Any) -> Any:
    if isinstance(answer, dict) and answer.get("session_id"):
        answer["session_id"] = "a session"
    return answer


@each(FETCH, 9, 18, stale=-2, future=99, right=0)
def h72_leader_epoch(peer: Peer, version: int, given: int) -> Any:
    return fetch(peer, a_log(peer), version, current_leader_epoch=given)


@each(FETCH, 12, 18, same=(0, 6), later=(5, 6), negative=(-1, 3))
def last_fetched_epoch(peer: Peer, version: int, given: tuple[int, int]) -> Any:
    epoch, offset = given
    return fetch(peer, a_log(peer), version, last_fetched_epoch=epoch, fetch_offset=offset)


@error(FETCH, 4, 12)
def h73_unknown_and_illegal_topic_by_name(peer: Peer, version: int) -> Any:
    return [fetch(peer, name, version) for name in ("nowhere", "a/b", "")]


@each(FETCH, 13, 18, unknown=UNKNOWN_ID, zero=bytes(16))
def h73_topic_id(peer: Peer, version: int, given: bytes) -> Any:
    return fetch(peer, "", version, topic_id=given)


@error(FETCH, 4, 18)
def unknown_partitions(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    return [fetch(peer, topic, version, partition=number) for number in (3, -1)]


@error(FETCH, 4, 18)
def unknown_isolation_level(peer: Peer, version: int) -> Any:
    return fetch(peer, a_log(peer), version, isolation_level=2)


# --- ListOffsets -----------------------------------------------------------------------------


def list_offsets(peer: Peer, topic: str, version: int, timestamp: int, **more: Any) -> Any:
    fields = {"partition_index": 0, "timestamp": timestamp}
    fields |= named(ListOffsetsPartition, more)
    there = ListOffsetsTopic(name=topic, partitions=[ListOffsetsPartition(**fields)])
    given = {"replica_id": -1, "topics": [there], "timeout_ms": 5000} | more
    return peer.ask(ListOffsetsRequest(**given), version)


@success(LIST_OFFSETS)
def start_end_and_times(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    times = (-1, -2, 0, NOW_MS, NOW_MS + 1, NOW_MS + 11, NOW_MS + 20, NOW_MS + 9999)
    return [list_offsets(peer, topic, version, time) for time in times]


@success(LIST_OFFSETS)
def an_empty_log(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [list_offsets(peer, topic, version, time) for time in (-1, -2, 5)]


@each(LIST_OFFSETS, *range(1, 12), max=-3, local=-4, tiered=-5, pending=-6, unknown=-7)
def special(peer: Peer, version: int, given: int) -> Any:
    return list_offsets(peer, a_log(peer), version, given)


@each(LIST_OFFSETS, 4, 11, stale=-2, future=99, right=0)
def h72_epoch(peer: Peer, version: int, given: int) -> Any:
    return list_offsets(peer, a_log(peer), version, -1, current_leader_epoch=given)


@error(LIST_OFFSETS, 1, 11)
def unknown_topic_and_partition(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    unknown = [list_offsets(peer, name, version, -1) for name in ("nowhere", "a/b", "")]
    return [*unknown, list_offsets(peer, topic, version, -1, partition_index=4)]


@error(LIST_OFFSETS)
def a_partition_twice(peer: Peer, version: int) -> Any:
    both = [ListOffsetsPartition(partition_index=0, timestamp=time) for time in (-1, -2)]
    there = ListOffsetsTopic(name=a_log(peer), partitions=both)
    return peer.ask(ListOffsetsRequest(replica_id=-1, topics=[there]), version)


@each(LIST_OFFSETS, 1, 11, here=0, debugging=-2, elsewhere=5)
def replica_id(peer: Peer, version: int, given: int) -> Any:
    return list_offsets(peer, a_log(peer), version, -1, replica_id=given)


@each(LIST_OFFSETS, 2, 11, committed=1, unknown=2)
def isolation_level(peer: Peer, version: int, given: int) -> Any:
    return list_offsets(peer, a_log(peer), version, -1, isolation_level=given)


@error(LIST_OFFSETS)
def after_records_were_deleted(peer: Peer, version: int) -> Any:
    topic = filled(peer)
    delete(peer, topic, 2, (0, 3))
    return [list_offsets(peer, topic, version, time) for time in (-1, -2, -3, -4, 0, NOW_MS)]


# --- OffsetForLeaderEpoch, InitProducerId ------------------------------------------------------


def epoch_end(peer: Peer, topic: str, version: int, epoch: int, **more: int) -> Any:
    there = OffsetForLeaderPartition(leader_epoch=epoch, **more)
    topics = [OffsetForLeaderTopic(topic=topic, partitions=[there])]
    return peer.ask(OffsetForLeaderEpochRequest(replica_id=-1, topics=topics), version)


@success(LEADER_EPOCH)
def the_end_of_the_present_epoch(peer: Peer, version: int) -> Any:
    topic = a_log(peer)
    return [epoch_end(peer, topic, version, epoch) for epoch in (0, 1, -1, -2)]


@each(LEADER_EPOCH, 2, 4, stale=-2, future=99, right=0)
def h72_believed_epoch(peer: Peer, version: int, given: int) -> Any:
    return epoch_end(peer, a_log(peer), version, 0, current_leader_epoch=given)


@error(LEADER_EPOCH, 2, 4)
def an_unknown_topic_or_partition(peer: Peer, version: int) -> Any:
    unknown = [epoch_end(peer, name, version, 0) for name in ("nowhere", "a/b")]
    return [*unknown, epoch_end(peer, a_log(peer), version, 0, partition=4)]


def a_producer_id(peer: Peer, version: int, **given: int) -> Any:
    """Kafka fetches a block of ids first, on the first question."""
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000, **given)
    found: list[Any] = []

    def is_there() -> bool:
        found[:] = [peer.ask(request, version)]
        return found[0]["error_code"] != "coordinator_load_in_progress"

    wait_until(is_there, "a block of producer ids")
    [answer] = found
    return answer | {"producer_id": "an id"} if answer["producer_id"] >= 0 else answer


@success(INIT_PRODUCER_ID)
def a_new_id(peer: Peer, version: int) -> Any:
    answer = a_producer_id(peer, version)
    assert answer["producer_id"] == "an id", answer
    return answer


@each(INIT_PRODUCER_ID, 3, 5, no_epoch=(5, -1), no_id=(-1, 3), both=(5, 0), huge=(5, 32767))
def present_id(peer: Peer, version: int, given: tuple[int, int]) -> Any:
    return a_producer_id(peer, version, producer_id=given[0], producer_epoch=given[1])


@error(INIT_PRODUCER_ID, 0, 5)
def an_empty_transactional_id(peer: Peer, version: int) -> Any:
    request = InitProducerIdRequest(transactional_id="", transaction_timeout_ms=1000)
    return peer.ask(request, version)


# --- DeleteRecords, DescribeProducers ----------------------------------------------------------


def delete(peer: Peer, topic: str, version: int, *wanted: tuple[int, int], **more: Any) -> Any:
    partitions = [DeleteRecordsPartition(partition_index=n, offset=o) for n, o in wanted]
    topics = [DeleteRecordsTopic(name=topic, partitions=partitions)]
    return peer.ask(DeleteRecordsRequest(topics=topics, **({"timeout_ms": 5000} | more)), version)


@success(DELETE_RECORDS)
def up_to_an_offset_and_to_the_end(peer: Peer, version: int) -> Any:
    topic = filled(peer)
    return [delete(peer, topic, version, (0, offset)) for offset in (0, 3, 2, 6, -1)]


@each(DELETE_RECORDS, 0, 2, past=7, negative=-2, huge=(1 << 63) - 1)
def h79_offset(peer: Peer, version: int, given: int) -> Any:
    return delete(peer, filled(peer), version, (0, given))


@each(DELETE_RECORDS, 0, 2, compact="compact", both="compact,delete", none="")
def h79_cleanup_policy(peer: Peer, version: int, given: str) -> Any:
    topic = filled(peer, cleanup_policy=given)
    return [delete(peer, topic, version, one) for one in ((0, 1), (0, 99), (7, 0))]


@error(DELETE_RECORDS)
def deletion_where_nothing_is(peer: Peer, version: int) -> Any:
    unknown = [delete(peer, name, version, (0, 0)) for name in ("nowhere", "a/b", "")]
    return [*unknown, delete(peer, peer.topic(), version, (0, 0), (7, 0), (-1, 0))]


@error(DELETE_RECORDS)
def a_partition_named_twice_or_never(peer: Peer, version: int) -> Any:
    topic = filled(peer)
    asked = [[(0, 1), (0, 2)], [(0, 99), (0, 3)], [(0, 4), (0, 99)], []]
    return [delete(peer, topic, version, *one) for one in asked]


@error(DELETE_RECORDS)
def no_time_for_it(peer: Peer, version: int) -> Any:
    topic = filled(peer)
    return [delete(peer, topic, version, (0, 2 + at), timeout_ms=-at) for at in (0, 1)]


def producers_of(peer: Peer, version: int, *wanted: tuple[str, list[int]]) -> Any:
    topics = [TopicRequest(name=name, partition_indexes=numbers) for name, numbers in wanted]
    return peer.ask(DescribeProducersRequest(topics=topics), version)


@success(DESCRIBE_PRODUCERS)
def two_producers(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    for one in (Producer(9, 0, 0), Producer(9, 0, 2), Producer(4, 1, 7), Producer(4, 2, 0)):
        produce(peer, topic, batch(2, one), 9)
    return producers_of(peer, version, (topic, [0]))


@error(DESCRIBE_PRODUCERS)
def producers_where_nothing_is(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    asked = [(topic, [0, 1, -1]), ("nowhere", [0]), ("a/b", [0]), ("", [0]), (topic, [])]
    return [producers_of(peer, version, one) for one in asked]
