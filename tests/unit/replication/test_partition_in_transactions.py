"""A partition in transactions: what readers of committed records see, and when they are woken."""

from __future__ import annotations

from errno import ENOSPC

import pytest

from ottla.core.model import FileSlice, Offset
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, end_marker_of
from ottla.records.reader import Record, read_batches
from ottla.replication.partition import Appended, Partition, ReadWaiter
from ottla.storage.aborted import Aborted
from ottla.testing.simfile import Fault
from ottla.testing.simnode import SimNode


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t")
    return node


@pytest.fixture
def partition(node: SimNode) -> Partition:
    return ready(node, node.partition("t"))


def ready(node: SimNode, partition: Partition) -> Partition:
    assert partition.prepare(view(-1)) is not None
    node.settle()
    return partition


def view(sequence: int, pid: int = 7, epoch: int = 0, count: int = 1) -> BatchView:
    records = [Record(value=b"x", timestamp=1_700_000_000_000)] * count
    producer = Producer(pid, epoch, sequence) if sequence >= 0 else Producer()
    bits = TRANSACTIONAL_BIT if sequence >= 0 else 0
    raw = build_batch(records, producer=producer, attributes=bits)
    return BatchView(memoryview(bytearray(raw)))


def write(partition: Partition, sequence: int, pid: int = 7, epoch: int = 0) -> Offset:
    """Append a batch of a transaction, verified if it must be."""
    batch = view(sequence, pid, epoch)
    verification = partition.verify(pid, epoch, sequence, bumps=True)
    assert partition.prepare(batch) is None
    appended = partition.append_as_leader(batch, verification)
    assert isinstance(appended, Appended), appended
    return appended.base_offset


def plain(partition: Partition) -> Offset:
    batch = view(-1)
    assert partition.prepare(batch) is None
    appended = partition.append_as_leader(batch)
    assert isinstance(appended, Appended), appended
    return appended.base_offset


def end(
    node: SimNode, partition: Partition, *, commit: bool, pid: int = 7, epoch: int = 1
) -> Offset:
    outcome = mark(partition, commit=commit, pid=pid, epoch=epoch)
    if isinstance(outcome, Pending):
        node.settle()
        outcome = mark(partition, commit=commit, pid=pid, epoch=epoch)
    assert isinstance(outcome, Appended), outcome
    return outcome.base_offset


def mark(
    partition: Partition,
    *,
    commit: bool,
    pid: int = 7,
    epoch: int = 1,
    coordinator: int = 0,
    version: int = 2,
    by_admin: bool = False,
) -> Pending[None] | Appended | ErrorCode:
    kind = ControlType.COMMIT if commit else ControlType.ABORT
    return partition.append_marker(pid, epoch, EndMarker(kind, coordinator), version, by_admin)


def read(piece: FileSlice) -> bytes:
    content = piece.file.read_nowait(piece.position, piece.length)
    assert content is not None, "what this process wrote is in memory"
    return content


def seen(partition: Partition, offset: int, *, committed: bool = True) -> list[int]:
    """Base offsets of what a reader gets."""
    piece = partition.read(Offset(offset), 1 << 20, committed=committed)
    if piece is None:
        return []
    assert isinstance(piece, FileSlice), piece
    raw = read(piece)
    piece.release()
    return [batch.base_offset for batch in read_batches(raw)]


def skipped(partition: Partition, offset: int) -> list[Aborted]:
    piece = partition.read(Offset(offset), 1 << 20, committed=True)
    assert isinstance(piece, FileSlice), piece
    aborted = partition.aborted_in(Offset(offset), piece)
    piece.release()
    assert isinstance(aborted, list), aborted
    return aborted


def test_an_open_transaction_ends_what_is_stable_where_it_began(node, partition):
    plain(partition)
    write(partition, 0)
    plain(partition)
    node.settle()
    assert (partition.last_stable, partition.high_watermark) == (1, 3)
    assert seen(partition, 0) == [0]
    assert seen(partition, 0, committed=False) == [0, 1, 2]


def test_what_lies_behind_the_last_stable_offset_is_not_there_yet(node, partition):
    write(partition, 0)
    plain(partition)
    node.settle()
    for offset in (0, 1, 2):
        assert partition.read(Offset(offset), 100, committed=True) is None
    out_of_range = ErrorCode.OFFSET_OUT_OF_RANGE
    assert partition.read(Offset(3), 100, committed=True) is out_of_range


def test_what_was_committed_is_seen_once_its_marker_is_on_disk(node, partition):
    write(partition, 0)
    node.settle()
    end(node, partition, commit=True)
    assert (partition.last_stable, partition.log.end) == (0, 2)
    node.settle()
    assert partition.last_stable == 2
    assert seen(partition, 0) == [0, 1]
    assert skipped(partition, 0) == []


def test_what_was_aborted_is_read_and_told_to_be_skipped(node, partition):  # I39
    write(partition, 0)
    write(partition, 0, pid=8)
    end(node, partition, commit=False)
    end(node, partition, commit=True, pid=8)
    node.settle()
    assert seen(partition, 0) == [0, 1, 2, 3]
    assert skipped(partition, 0) == [Aborted(7, 0, 2, 1)]
    assert skipped(partition, 3) == []


def test_a_marker_has_the_bytes_of_a_control_batch_in_this_leaders_epoch(node, partition):
    write(partition, 0)
    end(node, partition, commit=False, epoch=4)
    node.settle()
    piece = partition.read(Offset(1), 100)
    assert isinstance(piece, FileSlice)
    batch = BatchView(memoryview(read(piece)))
    piece.release()
    assert end_marker_of(batch) == EndMarker(ControlType.ABORT, 0)
    assert batch.leader_epoch == partition.leader_epoch
    assert (batch.producer_id, batch.producer_epoch, batch.base_offset) == (7, 4, 1)


def test_the_first_open_transaction_holds_back_what_others_have_ended(node, partition):  # I38
    write(partition, 0)
    write(partition, 0, pid=8)
    end(node, partition, commit=True, pid=8)
    node.settle()
    assert partition.last_stable == 0
    assert [(one.producer_id, one.first_offset) for one in partition.open_transactions()] == [
        (7, 0)
    ]
    end(node, partition, commit=False)
    node.settle()
    assert partition.last_stable == 4
    assert list(partition.open_transactions()) == []


def test_an_open_transaction_says_who_began_it_and_when(node, partition):
    node.advance(5.0)
    write(partition, 0, epoch=3)
    (one,) = partition.open_transactions()
    assert (one.producer_id, one.epoch, one.first_offset) == (7, 3, 0)
    assert one.since_ms == node.loop.wall_ms()


def test_a_marker_that_comes_again_ends_nothing_twice(node, partition):  # I43
    write(partition, 0)
    end(node, partition, commit=True, epoch=1)
    end(node, partition, commit=True, epoch=1)
    write(partition, 0, epoch=1)
    assert mark(partition, commit=False, epoch=1) is ErrorCode.INVALID_PRODUCER_EPOCH
    end(node, partition, commit=True, epoch=2)
    node.settle()
    assert skipped(partition, 0) == []
    assert partition.last_stable == partition.high_watermark == 5


def test_markers_of_an_admin_who_names_a_coordinator_that_was_replaced_are_refused(
    node, partition
):  # I43
    write(partition, 0)
    assert isinstance(mark(partition, commit=True, coordinator=5), Appended)
    write(partition, 0, epoch=1)
    fenced = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert mark(partition, commit=False, epoch=2, coordinator=4, by_admin=True) is fenced


def test_after_a_marker_nothing_older_is_appended(node, partition):  # I40
    write(partition, 0)
    end(node, partition, commit=False, epoch=1)
    zombie = view(1)
    verification = partition.verify(7, 0, 1, bumps=True)
    assert partition.prepare(zombie) is None
    refused = partition.append_as_leader(zombie, verification)
    assert refused is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_reader_of_committed_records_is_woken_when_they_are_stable(node, partition):
    waiter, other = ReadWaiter(1, committed=True), ReadWaiter(1)
    waiter.watch(partition)
    other.watch(partition)
    write(partition, 0)
    node.settle()
    assert (waiter.pending.done, other.pending.done) == (False, True)
    end(node, partition, commit=True)
    assert not waiter.pending.done
    node.settle()
    assert waiter.pending.done


def test_without_open_transactions_both_kinds_of_reader_are_woken_alike(node, partition):
    plain(partition)
    node.settle()
    waiter = ReadWaiter(view(-1).length + 1, committed=True)
    waiter.watch(partition)
    plain(partition)
    node.settle()
    assert not waiter.pending.done
    plain(partition)
    node.settle()
    assert waiter.pending.done


def test_deleted_records_take_the_last_stable_offset_along(node, partition):
    write(partition, 0)
    plain(partition)
    node.settle()
    assert partition.last_stable == 0
    partition.log.set_start(Offset(2))
    assert partition.last_stable == 2
    assert partition.read(Offset(2), 100, committed=True) is None


def test_a_commit_holds_readers_back_until_the_round_that_covers_it_is_through(  # I38
    node, partition
):
    write(partition, 0)
    node.loop.turn()  # a round begins, without the marker
    end(node, partition, commit=True)
    committing = [partition.committed(Offset(offset)) for offset in (1, 2)]
    while not committing[0].done:
        node.disk.step()
    assert (partition.high_watermark, partition.last_stable) == (1, 0)
    node.settle()
    assert committing[1].done
    assert (partition.high_watermark, partition.last_stable) == (2, 2)


@pytest.mark.parametrize("policy", ["commit", "os"])
def test_a_commit_that_the_disk_refuses_ends_nothing(policy):
    node = SimNode(flush_policy=policy)
    node.create_topic("t")
    partition = ready(node, node.partition("t"))
    write(partition, 0)
    node.settle()
    node.disk.faults = [Fault("write", ENOSPC)]
    assert mark(partition, commit=True) is ErrorCode.KAFKA_STORAGE_ERROR
    assert (partition.log.end, partition.last_stable) == (1, 0)
    assert len(list(partition.open_transactions())) == 1


def test_where_the_operating_system_flushes_a_marker_counts_at_once():
    node = SimNode(flush_policy="os")
    node.create_topic("t")
    partition = ready(node, node.partition("t"))
    write(partition, 0)
    assert partition.last_stable == 0
    end(node, partition, commit=True)
    assert partition.last_stable == 2


def test_a_marker_counts_as_a_batch_that_came_in(node, partition):
    write(partition, 0)
    before = (partition.batches_in, partition.bytes_in)
    end(node, partition, commit=True)
    assert partition.batches_in == before[0] + 1
    assert partition.bytes_in == partition.log.size > before[1]
    assert partition.batches_by_codec == [2, 0, 0, 0, 0, 0, 0, 0]


def test_where_the_broker_stamps_the_time_it_stamps_markers_too(node):
    node.create_topic("u", message_timestamp_type="LogAppendTime")
    partition = ready(node, node.partition("u"))
    write(partition, 0)
    end(node, partition, commit=True)
    node.settle()
    piece = partition.read(Offset(1), 100)
    assert isinstance(piece, FileSlice)
    (batch,) = read_batches(read(piece))
    piece.release()
    assert batch.log_append_time
    assert end_marker_of(batch) == EndMarker(ControlType.COMMIT, 0)


def test_a_partition_that_fails_takes_no_marker(node, partition):
    write(partition, 0)
    partition.fail()
    assert mark(partition, commit=True) is ErrorCode.KAFKA_STORAGE_ERROR
    partition.deleted = True
    assert mark(partition, commit=True) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
