"""A partition: what is committed and when, who is woken, and what happens when it fails or goes."""

from __future__ import annotations

from errno import ENOSPC

import pytest

from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import Producer
from ottla.replication.partition import Appended, Partition, ReadWaiter
from ottla.testing.simfile import Fault
from ottla.testing.simnode import SimNode
from tests.asking import batch


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t", 2)
    return node


@pytest.fixture
def partition(node: SimNode) -> Partition:
    return ready(node, node.partition("t"))


def ready(node: SimNode, partition: Partition) -> Partition:
    """Its files are made, so that appends need no preparation."""
    assert partition.prepare(view()) is not None
    node.settle()
    return partition


def view(*values: bytes, sequence: int = -1) -> BatchView:
    producer = Producer(7, 0, sequence) if sequence >= 0 else Producer()
    return BatchView(memoryview(bytearray(batch(*(values or (b"x",)), producer=producer))))


def append(partition: Partition, **more: int) -> Appended:
    one = view(**more)
    assert partition.prepare(one) is None
    appended = partition.append_as_leader(one)
    assert isinstance(appended, Appended)
    return appended


def committed(partition: Partition, end: int) -> Pending[None]:
    pending = partition.committed(Offset(end))
    assert pending is not None
    return pending


def test_what_is_appended_is_committed_when_it_is_on_disk(
    node: SimNode, partition: Partition
) -> None:
    appended = append(partition)
    assert (appended.base_offset, appended.end, partition.high_watermark) == (0, 1, 0)
    pending = committed(partition, 1)
    node.settle()
    assert pending.done
    assert partition.high_watermark == partition.last_stable == 1
    assert partition.committed(Offset(1)) is None


def test_where_the_operating_system_flushes_it_is_committed_at_once() -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t")
    partition = ready(node, node.partition("t"))
    appended = append(partition)
    assert partition.committed(appended.end) is None
    assert partition.is_committed(appended.end)


def own(partition: Partition) -> ErrorCode | None:
    return partition.put_own(bytearray(view().view), 0)


def test_an_entry_that_was_built_here_is_committed_as_any_batch_is(
    node: SimNode, partition: Partition
) -> None:
    assert own(node.partition("t", 1)) is None, "its files are not there yet"
    append(partition)
    assert own(partition) is ErrorCode.NONE
    pending = committed(partition, 2)
    assert (partition.log.end, partition.records_in, partition.high_watermark) == (2, 2, 0)
    node.settle()
    assert pending.done
    assert partition.high_watermark == partition.last_stable == 2


def test_an_entry_that_was_built_here_wakes_who_waits_where_the_operating_system_flushes() -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("t")
    partition = ready(node, node.partition("t"))
    append(partition)
    waiter = ReadWaiter(1)
    waiter.watch(partition)
    assert own(partition) is ErrorCode.NONE
    assert waiter.pending.done
    assert partition.is_committed(Offset(2))


def test_an_entry_that_was_built_here_is_left_to_others_where_the_broker_stamps_the_time() -> None:
    node = SimNode()
    node.create_topic("t", message_timestamp_type="LogAppendTime")
    partition = ready(node, node.partition("t"))
    append(partition)
    assert own(partition) is None
    assert partition.log.end == 1


def test_an_entry_that_was_built_here_is_not_in_where_the_disk_refuses_it(
    node: SimNode, partition: Partition
) -> None:
    append(partition)
    node.disk.faults = [Fault("write", ENOSPC)]
    assert own(partition) is ErrorCode.KAFKA_STORAGE_ERROR
    assert partition.log.end == 1
    partition.fail()
    assert own(partition) is None


def test_a_round_commits_what_was_appended_before_it_began(
    node: SimNode, partition: Partition
) -> None:
    append(partition)
    first = committed(partition, 1)
    node.loop.turn()
    append(partition)
    second = committed(partition, 2)
    while not first.done:
        node.disk.step()
    assert not second.done
    node.settle()
    assert second.done


def test_who_waits_for_less_is_woken_first_whoever_came_first(
    node: SimNode, partition: Partition
) -> None:
    append(partition, sequence=0)
    node.loop.turn()
    append(partition, sequence=1)
    later = committed(partition, 2)
    again = append(partition, sequence=0)
    assert (again.base_offset, again.end) == (0, 1)
    sooner = committed(partition, again.end)
    while not sooner.done:
        node.disk.step()
    assert not later.done


def test_a_reader_that_waits_is_woken_once_enough_is_committed(
    node: SimNode, partition: Partition
) -> None:
    append(partition)
    node.settle()
    waiter = ReadWaiter(view().length + 1)
    waiter.watch(partition)
    append(partition)
    node.settle()
    assert (waiter.pending.done, waiter.missing) == (False, 1)
    append(partition)
    assert not waiter.pending.done, "written is not committed"
    node.settle()
    assert waiter.pending.done
    append(partition)
    node.settle()
    waiter.leave()
    assert not partition.readers


def test_a_reader_may_watch_several_partitions(node: SimNode, partition: Partition) -> None:
    other = ready(node, node.partition("t", 1))
    waiter = ReadWaiter(2 * view().length)
    for one in (partition, other):
        waiter.watch(one)
        append(one)
    node.settle()
    assert waiter.pending.done
    waiter.leave()
    assert not partition.readers
    assert not other.readers


@pytest.mark.parametrize("how", ["fail", "close"])
def test_who_waits_hears_when_nothing_more_will_come(partition: Partition, how: str) -> None:
    append(partition)
    pending = committed(partition, 1)
    waiter = ReadWaiter(1000)
    waiter.watch(partition)
    getattr(partition, how)()
    assert pending.done
    assert waiter.pending.done
    assert not partition.is_committed(Offset(1))


@pytest.mark.parametrize("how", ["fail", "close"])
def test_who_comes_to_wait_once_nothing_more_will_come_hears_it_at_once(
    partition: Partition, how: str
) -> None:
    append(partition)
    getattr(partition, how)()
    partition.log.closed = how == "close"
    assert committed(partition, 1).done
    assert not partition.is_committed(Offset(1))
    assert partition.committed(Offset(0)) is None


def test_a_failed_partition_takes_nothing_and_a_deleted_one_is_unknown(
    node: SimNode, partition: Partition
) -> None:
    partition.fail()
    assert partition.append_as_leader(view()) is ErrorCode.KAFKA_STORAGE_ERROR
    partition.close(deleted=True)
    assert partition.append_as_leader(view()) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_readers_see_what_is_committed_and_no_more(node: SimNode, partition: Partition) -> None:
    append(partition)
    assert partition.read(Offset(0), 1000) is None
    node.settle()
    append(partition)
    piece = partition.read(Offset(0), 1000)
    assert isinstance(piece, FileSlice)
    assert piece.length == view().length
    piece.release()
    assert partition.read(Offset(1), 1000) is None
    assert partition.read(Offset(2), 1000) is None, "written, and known to who wrote it"
    assert partition.read(Offset(3), 1000) is ErrorCode.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("epoch", "error"),
    [
        (-1, ErrorCode.NONE),
        (3, ErrorCode.NONE),
        (2, ErrorCode.FENCED_LEADER_EPOCH),
        (4, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
def test_an_epoch_is_judged_by_the_partitions_own(
    partition: Partition, epoch: int, error: ErrorCode
) -> None:
    partition.leader_epoch = LeaderEpoch(3)
    assert partition.check_epoch(epoch) is error
