"""Records read back, and batches that hold none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.records.batch import LOG_APPEND_TIME_BIT, BatchView, RecordError
from ottla.records.builder import build_batch
from ottla.records.reader import Record, read_batches, records_of


def test_batches_are_read_one_after_the_other_and_a_torn_one_ends_them() -> None:
    first = build_batch([Record(b"a")], base_offset=5)
    second = build_batch([Record(b"b"), Record(b"c")], base_offset=6)
    for cut in (0, 1, 60, len(second) - 1):
        batches = list(read_batches(first + second + second[:cut]))
        assert [bytes(batch.view) for batch in batches] == [first, second]


def test_bytes_that_are_no_batch_are_an_error(altered: Callable[..., memoryview]) -> None:
    batch = build_batch([Record(b"a")])
    for broken in ({"length": 48}, {"length": -1}, {"length": -(2**31)}, {"magic": 1}):
        with pytest.raises(RecordError):
            list(read_batches(altered(batch, **broken)))


def test_log_append_time_replaces_the_records_own() -> None:
    batch = build_batch([Record(timestamp=5), Record(timestamp=9)], attributes=LOG_APPEND_TIME_BIT)
    (view,) = read_batches(batch)
    assert [record.timestamp for record in records_of(view)] == [9, 9]


def test_what_header_validation_lets_through_is_an_error_of_ours_to_a_reader(
    raw_batch: Callable[..., memoryview], raw_record: Callable[..., bytes]
) -> None:
    """H40-H43, H50: stored as sent, and nothing that reads it may trip over it."""
    bodies = [
        b"",
        b"\xff" * 20,
        raw_record(length=2**31 - 1),
        raw_record(length=-1),
        raw_record() + b"rest",
        raw_record(headers=b"\xfe\xff\xff\xff\x0f"),
    ]
    for body in bodies:
        with pytest.raises(RecordError):
            list(records_of(BatchView(raw_batch(body))))
    for codec in (1, 2, 3, 4, 5, 6, 7):
        with pytest.raises(RecordError):
            list(records_of(BatchView(raw_batch(b"\xde\xad" * 9, codec=codec, packed=True))))


def test_a_count_beyond_the_records_ends_with_them(altered: Callable[..., memoryview]) -> None:
    """H39"""
    batch = altered(build_batch([Record(b"a")]), records_count=2**31 - 1)
    records = records_of(BatchView(batch))
    assert next(records).key == b"a"
    with pytest.raises(RecordError):
        next(records)


def test_a_negative_count_is_an_error(altered: Callable[..., memoryview]) -> None:
    with pytest.raises(RecordError):
        list(records_of(BatchView(altered(build_batch([Record(b"a")]), records_count=-1))))


def test_a_batch_that_is_only_partly_there_cannot_be_opened() -> None:
    batch = memoryview(build_batch([Record(b"a")]))
    with pytest.raises(RecordError):
        list(records_of(BatchView(batch[:61])))
