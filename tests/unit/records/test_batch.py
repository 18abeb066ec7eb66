"""A batch's header: read, stamped, checksummed."""

from __future__ import annotations

import pytest

from ottla.records.batch import (
    HEADER_SIZE,
    TRANSACTIONAL_BIT,
    BatchView,
    crc_ok,
    stamp_log_append_time,
)
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record, records_of

RECORDS = [Record(b"k", b"v", 1_000), Record(None, b"w", 3_000), Record(b"l", None, 2_000)]


def a_batch(**fields: object) -> memoryview:
    return memoryview(bytearray(build_batch(RECORDS, **fields)))


def test_a_view_has_every_header_field() -> None:
    producer = Producer(7, 3, 40)
    batch = BatchView(a_batch(base_offset=50, producer=producer, attributes=TRANSACTIONAL_BIT))
    assert (batch.base_offset, batch.last_offset, batch.records_count) == (50, 52, 3)
    assert (batch.base_timestamp, batch.max_timestamp) == (1_000, 3_000)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == producer
    assert batch.last_sequence == 42
    assert (batch.leader_epoch, batch.magic, batch.codec) == (-1, 2, 0)
    assert batch.is_transactional
    assert not batch.is_control
    assert not batch.log_append_time


def test_a_view_holds_exactly_its_batch_among_others() -> None:
    first, second = build_batch(RECORDS), build_batch(RECORDS[:1])
    both = memoryview(first + second)
    assert bytes(BatchView(both).view) == first
    assert bytes(BatchView(both, len(first)).view) == second
    assert BatchView(both, len(first)).length == len(second)


def test_a_header_alone_can_be_read() -> None:
    whole = a_batch()
    batch = BatchView(whole[:HEADER_SIZE])
    assert batch.length == len(whole)
    assert len(batch.view) == HEADER_SIZE


def test_stamping_places_the_batch_and_leaves_the_checksum_valid() -> None:
    view = a_batch()
    BatchView(view).stamp(1 << 40, 9)
    batch = BatchView(view)
    assert (batch.base_offset, batch.leader_epoch) == (1 << 40, 9)
    assert crc_ok(view)


def test_stamping_through_a_view_keeps_its_fields_in_step() -> None:
    batch = BatchView(a_batch())
    batch.stamp(77, 2)
    batch.stamp_log_append_time(123_456)
    again = BatchView(batch.view)
    for name in BatchView.__slots__:
        assert getattr(batch, name) == getattr(again, name), name


def test_log_append_time_is_every_records_timestamp_and_the_checksum_fits() -> None:
    view = a_batch()
    stamp_log_append_time(view, 5_000)
    batch = BatchView(view)
    assert batch.log_append_time
    assert crc_ok(view)
    assert {record.timestamp for record in records_of(batch)} == {5_000}


@pytest.mark.parametrize(
    ("base", "last"), [(0, 2), (2**31 - 3, 2**31 - 1), (2**31 - 2, 0), (2**31 - 1, 1), (-1, -1)]
)
def test_the_last_sequence_wraps_after_its_greatest_value(base: int, last: int) -> None:
    assert BatchView(a_batch(producer=Producer(1, 0, base))).last_sequence == last


def test_any_bit_flipped_after_the_checksum_is_seen() -> None:
    """H35, exhaustive."""
    view = a_batch()
    for bit in range(17 * 8, len(view) * 8):
        view[bit // 8] ^= 1 << bit % 8
        assert not crc_ok(view), bit
        view[bit // 8] ^= 1 << bit % 8
    assert crc_ok(view)
