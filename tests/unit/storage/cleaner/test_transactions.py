"""Which batches and markers of transactions stay in a compacted log, and which may go."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.records.batch import CONTROL_BIT, DELETE_HORIZON_BIT, TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record
from ottla.storage.aborted import Aborted
from ottla.storage.cleaner.filtering import Filter, LastBatch, emptied
from ottla.storage.cleaner.latest import LatestOffsets
from ottla.storage.cleaner.transactions import Transactions

HOUR = 3_600_000


def data(base: int, pid: int, key: bytes = b"k", bits: int = TRANSACTIONAL_BIT) -> BatchView:
    raw = build_batch(
        [Record(key, b"v", 1, offset=base)],
        base_offset=base,
        producer=Producer(pid, 0, 0),
        attributes=bits,
    )
    return BatchView(memoryview(raw))


def marker(base: int, pid: int, kind: ControlType, epoch: int = 0) -> BatchView:
    return BatchView(memoryview(build_end_marker(EndMarker(kind, 0), pid, epoch, 1, base)))


def aborted(pid: int, first: int, last: int) -> Aborted:
    return Aborted(pid, Offset(first), Offset(last), Offset(last + 1))


def noted(**keys: int) -> LatestOffsets:
    offsets = LatestOffsets(1 << 20)
    for key, offset in keys.items():
        offsets.table[key.encode()] = offset
    return offsets


def filter_of(
    transactions: Transactions, now_ms: int = 0, producers: dict[int, LastBatch] | None = None
) -> Filter:
    return Filter(
        noted(k=0), 1 << 40, transactions, producers or {}, (now_ms, HOUR), (1 << 50, 1 << 20)
    )


def kept(one: Filter, batch: BatchView) -> BatchView | None:
    found = one.kept(batch, bytes(batch.view), 0)
    return None if found is None else BatchView(memoryview(found))


def test_what_was_taken_back_goes_and_what_the_same_producer_commits_next_stays():
    transactions = Transactions([aborted(7, 0, 2)])
    assert transactions.data(data(0, 7))
    assert not transactions.control(marker(2, 7, ControlType.ABORT))  # some of it was there
    assert not transactions.data(data(3, 7))
    assert not transactions.control(marker(4, 7, ControlType.COMMIT))
    assert [one.first_offset for one in transactions.observed] == [0]


def test_transactions_of_two_producers_that_overlap_are_told_apart():
    transactions = Transactions([aborted(8, 1, 3)])
    assert not transactions.data(data(0, 7))
    assert transactions.data(data(1, 8))
    assert not transactions.control(marker(2, 7, ControlType.COMMIT))
    assert not transactions.control(marker(3, 8, ControlType.ABORT))


@pytest.mark.parametrize("kind", list(ControlType))
def test_a_marker_without_anything_left_of_its_transaction_may_go(kind):
    transactions = Transactions([aborted(7, 0, 2)] if kind == ControlType.ABORT else [])
    assert transactions.control(marker(2, 7, kind))
    assert transactions.observed == []


def test_a_batch_without_a_transaction_is_nobodys_to_take_back():
    assert not Transactions([aborted(7, 0, 2)]).data(data(1, 7, bits=0))


def test_a_marker_that_may_go_stays_until_its_time_has_come():
    first = kept(filter_of(Transactions([]), now_ms=5000), marker(2, 7, ControlType.COMMIT))
    assert first is not None
    assert (first.base_timestamp, first.is_control) == (5000 + HOUR, True)
    early = kept(filter_of(Transactions([]), now_ms=4999 + HOUR), first)
    assert early is not None
    assert bytes(early.view) == bytes(first.view)
    assert kept(filter_of(Transactions([]), now_ms=5000 + HOUR), first) is None


def test_the_last_batch_of_a_producer_stays_without_its_records():
    last = {7: LastBatch(4, 0)}
    batch = data(4, 7)
    transactions = Transactions([aborted(7, 4, 5)])
    empty = kept(filter_of(transactions, producers=last), batch)
    assert empty is not None
    assert (empty.records_count, empty.last_offset, empty.last_sequence) == (0, 4, 0)
    assert empty.attributes == TRANSACTIONAL_BIT
    again = kept(filter_of(Transactions([aborted(7, 4, 5)]), producers=last), empty)
    assert again is not None
    assert bytes(again.view) == bytes(empty.view)
    assert kept(filter_of(Transactions([])), empty) is None


def test_a_producer_that_is_known_by_its_marker_alone_keeps_that():
    raised = {7: LastBatch(-1, 3)}
    batch = marker(9, 7, ControlType.ABORT, epoch=3)
    first = kept(filter_of(Transactions([]), 0, raised), batch)
    assert first is not None
    empty = kept(filter_of(Transactions([]), HOUR, raised), first)
    assert empty is not None
    assert (empty.records_count, empty.attributes) == (0, TRANSACTIONAL_BIT | CONTROL_BIT)


def test_the_last_batch_below_the_end_of_a_round_stays():
    batch = data(4, 7, key=b"old", bits=0)
    one = Filter(noted(old=9), 10, Transactions([]), {}, (0, HOUR), (5, 1 << 20))
    found = kept(one, batch)
    assert found is not None
    assert bytes(found.view) == emptied(batch)
    assert one.records_dropped == 1


def test_a_batch_that_is_made_smaller_again_keeps_the_time_when_its_tombstones_may_go():
    raw = build_batch([Record(b"k", None, 1, offset=0), Record(b"l", None, 1, offset=1)])
    fresh = Filter(noted(k=0, l=1), 10, Transactions([]), {}, (5000, HOUR), (1 << 50, 1 << 20))
    first = kept(fresh, BatchView(memoryview(raw)))
    assert first is not None
    later = Filter(noted(k=0, l=9), 10, Transactions([]), {}, (6000, HOUR), (1 << 50, 1 << 20))
    smaller = kept(later, first)
    assert smaller is not None
    assert smaller.records_count == 1
    assert smaller.attributes & DELETE_HORIZON_BIT
    assert smaller.base_timestamp == 5000 + HOUR
    due = Filter(noted(k=0), 10, Transactions([]), {}, (5000 + HOUR, HOUR), (1 << 50, 1 << 20))
    assert kept(due, smaller) is None
