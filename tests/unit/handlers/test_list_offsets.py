"""ListOffsets. Expectations are what Apache Kafka 4.3.1 answers, or the header says why not."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EIO
from typing import Any

import pytest

from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.ports import DiskError, OffloadError
from ottla.handlers.list_offsets import LOOKUPS_MAX
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.records.builder import build_batch
from ottla.records.compress import GZIP
from ottla.records.reader import Record
from ottla.storage.checked import Cold
from ottla.storage.reading import TimeHit
from ottla.storage.segment import Damaged
from tests.unit.handlers.node import FakeLog, FakeNode

LATEST, EARLIEST, LARGEST, LOCAL, TIERED, PENDING_UPLOAD = range(-1, -7, -1)
VERSIONS = range(1, 12)
NOWHERE = (-1, -1, -1)


class FakeFile:
    """A file in memory that counts who needs it. `cold` reads fail until it is warmed."""

    unreadable = ()

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.holders = 0
        self.cold = False
        self.error: DiskError | None = None

    def read_nowait(self, position: int, length: int) -> bytes | None:
        assert self.holders, "nobody holds the file"
        if self.error is not None:
            raise self.error
        return None if self.cold else self.content[position : position + length]

    def retain(self) -> None:
        self.holders += 1

    def release(self) -> None:
        assert self.holders, "released once too often"
        self.holders -= 1


class Stored:
    """One batch of records with the given timestamps, at offset 100, in epoch 2."""

    def __init__(self, *timestamps: int, codec: int = 0, value: bytes = b"v") -> None:
        records = [Record(value=value, timestamp=one) for one in timestamps]
        self.file: Any = FakeFile(b"before" + build_batch(records, base_offset=100, codec=codec))
        self.timestamps = timestamps

    def hit(self) -> TimeHit:
        length = len(self.file.content) - 6
        last = Offset(99 + len(self.timestamps))
        piece = FileSlice(self.file, 6, length)
        return TimeHit(piece, Offset(100), last, max(self.timestamps), LeaderEpoch(2))

    def cold(self) -> Cold:
        return Cold(FileSlice(self.file, 0, 6))


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def log(node: FakeNode) -> FakeLog:
    log = FakeLog(start=90, end=200)
    log.epochs.assign(LeaderEpoch(1), Offset(0))
    node.partition("t", 0, log)
    return log


@pytest.fixture
def stored() -> Iterator[Stored]:
    """A batch whose file nobody may hold at the end of the test."""
    stored = Stored(10, 30, 20, 40)
    yield stored
    assert stored.file.holders == 0


def asking(*timestamps: int, epoch: int = -1, isolation: int = 0) -> ListOffsetsRequest:
    """One partition for each timestamp, from 0 on."""
    partitions = [
        ListOffsetsPartition(partition_index=number, current_leader_epoch=epoch, timestamp=one)
        for number, one in enumerate(timestamps)
    ]
    topic = ListOffsetsTopic(name="t", partitions=partitions)
    return ListOffsetsRequest(replica_id=-1, isolation_level=isolation, topics=[topic])


def only(answer: Any) -> ListOffsetsPartitionResponse:
    (topic,) = answer.topics
    (partition,) = topic.partitions
    assert isinstance(partition, ListOffsetsPartitionResponse)
    return partition


def told(answer: Any) -> tuple[int, int, int]:
    """(timestamp, offset, leader epoch) of the one partition, which has no error."""
    partition = only(answer)
    assert partition.error_code == ErrorCode.NONE
    return partition.timestamp, partition.offset, partition.leader_epoch


def refused(answer: Any) -> int:
    partition = only(answer)
    assert (partition.timestamp, partition.offset, partition.leader_epoch) == NOWHERE
    return partition.error_code


# --- what needs no look into the log --------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_latest_is_the_high_watermark_and_earliest_the_log_start(version: int) -> None:
    node = FakeNode()
    log = FakeLog(start=90, end=200)
    log.epochs.assign(LeaderEpoch(1), Offset(0))
    node.partition("t", 0, log, high_watermark=150)
    epochs = (3, 1) if version >= 4 else (-1, -1)
    assert told(node.ask(asking(LATEST), version)) == (-1, 150, epochs[0])
    assert told(node.ask(asking(EARLIEST), version)) == (-1, 90, epochs[1])
    if version >= 8:
        assert told(node.ask(asking(LOCAL), version)) == (-1, 90, 1)


def test_an_empty_log_begins_and_ends_in_the_present_epoch(node: FakeNode) -> None:
    node.partition("t", 0, FakeLog())
    assert told(node.ask(asking(EARLIEST), 5)) == (-1, 0, 3)
    assert told(node.ask(asking(LATEST), 5)) == (-1, 0, 3)
    assert told(node.ask(asking(LARGEST), 7)) == NOWHERE
    assert told(node.ask(asking(5), 7)) == NOWHERE


def test_read_committed_stops_at_the_last_stable_offset(node: FakeNode) -> None:
    node.partition("t", 0, FakeLog(end=9)).last_stable = Offset(7)
    assert told(node.ask(asking(LATEST, isolation=1), 2))[1] == 7
    assert told(node.ask(asking(LATEST), 2))[1] == 9


@pytest.mark.parametrize(
    ("timestamp", "since"),
    [(LARGEST, 7), (LOCAL, 8), (TIERED, 9), (PENDING_UPLOAD, 11), (-7, 12), (-(2**63), 12)],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_special_timestamp_before_its_version_is_unsupported(
    node: FakeNode, log: FakeLog, version: int, timestamp: int, since: int
) -> None:
    answer = node.ask(asking(timestamp), version)
    if version < since:
        assert refused(answer) == ErrorCode.UNSUPPORTED_VERSION
    elif timestamp != LOCAL:
        assert told(answer) == NOWHERE
    assert log.asked == (["max"] if timestamp == LARGEST and version >= since else [])


@pytest.mark.parametrize(
    ("epoch", "error"),
    [
        (2, ErrorCode.FENCED_LEADER_EPOCH),
        (4, ErrorCode.UNKNOWN_LEADER_EPOCH),
        (-2, ErrorCode.FENCED_LEADER_EPOCH),
    ],
)
@pytest.mark.parametrize("timestamp", [LATEST, EARLIEST, LARGEST, 5])
def test_h72_the_epoch_a_client_believes_in_is_checked(
    node: FakeNode, log: FakeLog, timestamp: int, epoch: int, error: ErrorCode
) -> None:
    assert refused(node.ask(asking(timestamp, epoch=epoch), 7)) == error
    assert log.asked == []
    assert told(node.ask(asking(LATEST, epoch=3), 7))[1] == 200


@pytest.mark.parametrize("timestamp", [LATEST, LARGEST, 5])
def test_a_partition_that_is_not_there_says_so(node: FakeNode, timestamp: int) -> None:
    assert refused(node.ask(asking(timestamp), 7)) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("isolation", [2, 5, -1])
def test_an_isolation_level_that_does_not_exist_is_invalid(node: FakeNode, isolation: int) -> None:
    answer = node.ask(asking(LATEST, isolation=isolation), 5)
    assert refused(answer) == ErrorCode.INVALID_REQUEST


@pytest.mark.usefixtures("log")
def test_a_partition_asked_for_twice_is_invalid_and_answered_once(node: FakeNode) -> None:
    node.partition("t", 1, FakeLog(start=4, end=5))
    twice = [
        ListOffsetsPartition(partition_index=0, timestamp=5),
        ListOffsetsPartition(partition_index=1, timestamp=EARLIEST),
        ListOffsetsPartition(partition_index=0, timestamp=EARLIEST),
    ]
    topics = [
        ListOffsetsTopic(name="t", partitions=twice),
        ListOffsetsTopic(name="u", partitions=[]),
        ListOffsetsTopic(name="t", partitions=twice[:1]),
    ]
    first, second = node.ask(ListOffsetsRequest(topics=topics), 5).topics
    errors = {one.partition_index: one.error_code for one in first.partitions}
    assert errors == {0: ErrorCode.INVALID_REQUEST, 1: ErrorCode.NONE}
    assert len(first.partitions) == 2
    assert (second.name, second.partitions) == ("u", [])


def test_h28_a_request_that_names_too_many_partitions_is_invalid() -> None:
    node = FakeNode(request_partitions_max="1")
    node.partition("t", 0, FakeLog())
    (topic,) = node.ask(asking(LATEST, LATEST), 5).topics
    assert [one.error_code for one in topic.partitions] == [ErrorCode.INVALID_REQUEST] * 2
    assert refused(node.ask(asking(9), 5)) == ErrorCode.NONE


# --- the exact record -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "record"),
    [(0, (10, 100)), (10, (10, 100)), (11, (30, 101)), (20, (30, 101)), (31, (40, 103))],
)
@pytest.mark.parametrize("version", [1, 4, 11])
def test_a_time_finds_the_first_record_at_or_after_it(
    node: FakeNode, log: FakeLog, stored: Stored, version: int, timestamp: int,
    record: tuple[int, int],
) -> None:  # fmt: skip
    log.places = [stored.hit]
    expected = (*record, 2 if version >= 4 else -1)
    assert told(node.ask(asking(timestamp), version)) == expected
    assert log.asked == [timestamp]


def test_the_largest_timestamp_is_that_of_its_first_record(node: FakeNode, log: FakeLog) -> None:
    stored = Stored(10, 40, 20, 40)
    log.places = [stored.hit]
    assert told(node.ask(asking(LARGEST), 7)) == (40, 101, 2)


def test_records_before_the_log_start_are_not_found(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    log.start = Offset(102)
    log.places = [stored.hit]
    assert told(node.ask(asking(5), 7)) == (20, 102, 2)


def test_a_record_that_is_not_committed_is_not_told(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    node.partition("t", 0, log, high_watermark=103)
    log.places = [stored.hit, stored.hit]
    assert told(node.ask(asking(LARGEST), 7)) == NOWHERE
    assert told(node.ask(asking(30), 7)) == (30, 101, 2)


def test_damage_in_the_log_is_a_storage_error(node: FakeNode, log: FakeLog) -> None:
    def damaged() -> None:
        raise Damaged("t-0/0.log", 77)

    log.places = [damaged]
    assert refused(node.ask(asking(5), 7)) == ErrorCode.KAFKA_STORAGE_ERROR
    (told_of,) = node.table.partitions["t", 0].read_errors
    assert str(told_of) == "read t-0/0.log: there is no batch at byte 77"


def test_a_batch_that_can_not_be_read_answers_with_its_own_offset(
    node: FakeNode, log: FakeLog
) -> None:
    stored = Stored(10, 30, codec=GZIP)
    stored.file.content = stored.file.content[:70] + bytes(len(stored.file.content) - 70)
    log.places = [stored.hit]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    node.offload.runs.pop()()
    assert told(node.as_sent(parked.resume(), 2, 7)) == (30, 100, 2)


@pytest.mark.parametrize(
    "stored_off_the_loop",
    [Stored(10, 30, codec=GZIP), Stored(10, 30, value=bytes(5000))],
    ids=["compressed", "large"],
)
def test_a_batch_that_costs_time_is_opened_off_the_loop(
    node: FakeNode, log: FakeLog, stored_off_the_loop: Stored
) -> None:
    log.places = [stored_off_the_loop.hit]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    assert not parked.before_effect
    assert stored_off_the_loop.file.holders == 0
    (work,) = node.offload.runs
    work()
    assert parked.pending.done
    assert told(node.as_sent(parked.resume(), 2, 7)) == (30, 101, 2)


def test_where_the_worker_has_too_much_to_do_the_client_is_to_come_again(
    node: FakeNode, log: FakeLog
) -> None:
    log.places = [Stored(10, 30, codec=GZIP).hit]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    node.offload.fail(OffloadError("256 tasks are waiting already"))
    assert refused(node.as_sent(parked.resume(), 2, 7)) == ErrorCode.REQUEST_TIMED_OUT


# --- waiting --------------------------------------------------------------------------------


def test_what_is_cold_is_warmed_and_asked_for_again(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    log.places = [stored.cold, stored.hit, stored.hit]
    stored.file.cold = True
    parked = node.ask(asking(20), 7)  # the index is cold
    assert isinstance(parked, Parked)
    assert stored.file.holders == 1
    node.disk.warming.pop().complete(None)
    parked = parked.resume()  # then the batch is
    assert isinstance(parked, Parked)
    assert stored.file.holders == 1
    stored.file.cold = False
    node.disk.warming.pop().complete(None)
    assert told(node.as_sent(parked.resume(), 2, 7)) == (30, 101, 2)


def test_a_connection_that_goes_away_keeps_the_file_until_it_is_warm(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    log.places = [stored.cold]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    assert parked.abandon is not None
    parked.abandon()
    assert stored.file.holders == 1
    node.disk.warming.pop().complete(None)


def test_a_disk_that_can_not_read_is_a_storage_error_of_its_partition_alone(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    other = FakeLog(end=200)
    other.places = [Stored(10).hit]
    node.partition("t", 1, other)
    partition = node.table.partitions["t", 0]
    fault = DiskError("read", "t-0/0.log", OSError(EIO, "it is broken"))

    def unreadable() -> None:
        raise fault

    def answered(outcome: Any) -> list[tuple[int, int]]:
        (topic,) = outcome.topics
        return [(one.error_code, one.offset) for one in topic.partitions]

    expected = [(ErrorCode.KAFKA_STORAGE_ERROR, -1), (ErrorCode.NONE, 100)]
    log.places = [unreadable]  # its index
    assert answered(node.ask(asking(5, 5), 7)) == expected

    log.places, other.places = [stored.hit], [Stored(10).hit]
    stored.file.error = fault  # the batch itself
    assert answered(node.ask(asking(5, 5), 7)) == expected
    assert stored.file.holders == 0

    log.places, other.places = [stored.cold], [Stored(10).hit]
    parked = node.ask(asking(5, 5), 7)
    assert isinstance(parked, Parked)
    node.disk.warming.pop().fail(fault)  # what was cold
    assert answered(node.as_sent(parked.resume(), 2, 7)) == expected
    assert partition.read_errors == [fault] * 3


def test_a_disk_that_takes_too_long_is_a_time_out(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    log.places = [stored.cold]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    assert parked.deadline_s == 30
    assert refused(node.as_sent(parked.resume(), 2, 7)) == ErrorCode.REQUEST_TIMED_OUT
    assert stored.file.holders == 1
    node.disk.warming.pop().complete(None)


def test_all_waits_together_have_one_deadline(node: FakeNode, log: FakeLog, stored: Stored) -> None:
    log.places = [stored.cold, stored.cold]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    node.clock.now += 20
    node.disk.warming.pop().complete(None)
    again = parked.resume()
    assert isinstance(again, Parked)
    assert again.deadline_s == 10
    node.disk.warming.pop().complete(None)
    assert told(node.as_sent(again.resume(), 2, 7)) == NOWHERE


def test_a_partition_that_is_deleted_meanwhile_says_so(
    node: FakeNode, log: FakeLog, stored: Stored
) -> None:
    log.places = [stored.cold]
    parked = node.ask(asking(20), 7)
    assert isinstance(parked, Parked)
    node.table.partitions.clear()
    node.disk.warming.pop().complete(None)
    error = refused(node.as_sent(parked.resume(), 2, 7))
    assert error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_only_so_many_partitions_are_looked_into_at_a_time(node: FakeNode) -> None:
    count = LOOKUPS_MAX + 5
    stored = Stored(10)
    for number in range(count):
        log = FakeLog(end=200)
        log.places = [stored.cold, stored.hit]
        node.partition("t", number, log)
    parked = node.ask(asking(*[5] * count), 7)
    assert isinstance(parked, Parked)
    assert len(node.disk.warming) == LOOKUPS_MAX
    for one in node.disk.warming:
        one.complete(None)
    parked = parked.resume()
    assert isinstance(parked, Parked)
    for one in node.disk.warming[LOOKUPS_MAX:]:
        one.complete(None)
    (topic,) = node.as_sent(parked.resume(), 2, 7).topics
    assert [one.offset for one in topic.partitions] == [100] * count
    assert stored.file.holders == 0
