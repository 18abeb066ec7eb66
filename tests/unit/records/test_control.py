"""The markers that end transactions."""

from __future__ import annotations

import pytest

from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView, RecordError
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker, end_marker_of
from ottla.records.reader import Record


@pytest.mark.parametrize("kind", list(ControlType))
def test_a_marker_is_a_control_batch_of_its_producer(kind: ControlType) -> None:
    marker = EndMarker(kind, 12)
    batch = BatchView(memoryview(build_end_marker(marker, 5, 3, 1_000, 44)))
    assert end_marker_of(batch) == marker
    assert batch.is_control
    assert batch.is_transactional
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (5, 3, -1)
    assert (batch.base_offset, batch.records_count, batch.max_timestamp) == (44, 1, 1_000)


def test_a_marker_has_the_bytes_that_the_general_builder_gives_it() -> None:
    record = Record(b"\0\0\0\1", b"\0\0\0\0\0\x07", 1_000)
    built = build_batch(
        [record],
        base_offset=44,
        producer=Producer(1 << 40, 3),
        attributes=CONTROL_BIT | TRANSACTIONAL_BIT,
    )
    marker = EndMarker(ControlType.COMMIT, 7)
    assert build_end_marker(marker, 1 << 40, 3, 1_000, 44) == built


def test_a_marker_with_other_framing_is_read_as_well() -> None:
    record = Record(b"\0\0\0\0", b"\0\0\0\0\0\x07", headers=[("who", b"someone else")])
    batch = build_batch([record], attributes=CONTROL_BIT | TRANSACTIONAL_BIT)
    assert end_marker_of(BatchView(memoryview(batch))) == EndMarker(ControlType.ABORT, 7)


def control_batch(key: bytes | None, value: bytes | None) -> BatchView:
    return BatchView(memoryview(build_batch([Record(key, value)], attributes=CONTROL_BIT)))


def test_an_unknown_type_ends_no_transaction() -> None:
    assert end_marker_of(control_batch(b"\0\0\0\x02", b"")) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        (b"\0\0", None),
        (b"\0\0\0\1", None),
        (b"\0\0\0\1", b"\0\0\0"),
        (b"\xff\xff\0\1", b""),
    ],
)
def test_a_control_record_cut_short_is_an_error(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(RecordError):
        end_marker_of(control_batch(key, value))
