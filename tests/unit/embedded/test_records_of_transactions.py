"""What of a fetch's batches is given to a reader of committed records."""

from __future__ import annotations

from ottla.embedded.records import Fetched, unpack
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record

ABORT, COMMIT = ControlType.ABORT, ControlType.COMMIT


def batch(offset: int, pid: int = -1, count: int = 1) -> bytes:
    who = Producer(pid, 0, 0) if pid >= 0 else Producer()
    bits = TRANSACTIONAL_BIT if pid >= 0 else 0
    records = [Record(value=b"%d" % (offset + at)) for at in range(count)]
    return build_batch(records, base_offset=offset, producer=who, attributes=bits)


def marker(offset: int, pid: int, kind: ControlType) -> bytes:
    return bytes(build_end_marker(EndMarker(kind, 0), pid, 0, 1, offset))


def read(data: bytes, *aborted: tuple[int, int], start: int = 0) -> list[int]:
    return [one.offset for one in unpack(Fetched(data, aborted), 0, start, 1 << 20)]


def test_an_aborted_transaction_is_left_out_up_to_its_marker():
    data = batch(0, 7) + batch(1) + batch(2, 7) + marker(3, 7, ABORT) + batch(4, 7)
    assert read(data, (7, 0)) == [1, 4]


def test_a_committed_transaction_of_the_same_producer_is_not():
    data = batch(0, 7) + marker(1, 7, COMMIT) + batch(2, 7) + marker(3, 7, ABORT)
    assert read(data, (7, 2)) == [0]


def test_transactions_that_are_told_in_the_order_of_their_markers_are_skipped_by_their_first():
    data = batch(0, 7) + batch(1, 8) + marker(2, 8, ABORT) + batch(3, 8) + marker(4, 7, ABORT)
    assert read(data, (8, 1), (7, 0)) == [3]


def test_a_plain_batch_of_the_same_producer_is_read():
    plain = build_batch([Record(value=b"x")], base_offset=1, producer=Producer(7, 0, 3))
    assert read(batch(0, 7) + plain + marker(2, 7, ABORT), (7, 0)) == [1]


def test_reading_may_begin_inside_an_aborted_transaction():
    data = batch(5, 7, count=3) + marker(8, 7, ABORT) + batch(9)
    assert read(data, (7, 0), start=6) == [9]
    assert read(data, start=6) == [6, 7, 9]


def test_what_is_aborted_behind_the_batches_takes_nothing_away():
    assert read(batch(0, 7) + batch(1, 8), (9, 40)) == [0, 1]
