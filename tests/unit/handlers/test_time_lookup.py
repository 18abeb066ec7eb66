"""Which record of a batch a time means."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.handlers.time_lookup import first_since
from ottla.records.batch import HEADER_SIZE, BatchView
from ottla.records.builder import build_batch
from ottla.records.compress import GZIP, LZ4, NONE, SNAPPY, ZSTD
from ottla.records.reader import Record

CODECS = [NONE, GZIP, SNAPPY, LZ4, ZSTD]
ZERO = Offset(0)


def batch(*timestamps: int, codec: int = NONE, offsets: tuple[int, ...] = ()) -> bytes:
    places = offsets or tuple(range(5, 5 + len(timestamps)))
    records = [
        Record(value=b"v", timestamp=timestamp, offset=offset)
        for timestamp, offset in zip(timestamps, places, strict=True)
    ]
    return build_batch(records, base_offset=5, codec=codec)


@pytest.mark.parametrize("codec", CODECS)
def test_the_first_record_at_or_after_the_time_in_every_codec(codec: int) -> None:
    data = batch(10, 30, 20, codec=codec)
    assert first_since(data, 10, ZERO, 1000) == (10, 5)
    assert first_since(data, 15, ZERO, 1000) == (30, 6)
    assert first_since(data, 31, ZERO, 1000) is None


def test_compaction_leaves_gaps_between_offsets() -> None:
    assert first_since(batch(10, 20, offsets=(7, 9)), 15, ZERO, 1000) == (20, 9)


def test_records_before_the_start_do_not_count() -> None:
    assert first_since(batch(10, 20), 5, Offset(6), 1000) == (20, 6)


def test_under_append_time_all_records_have_the_batchs_time() -> None:
    data = bytearray(batch(10, 20))
    BatchView(memoryview(data), 0).stamp_log_append_time(77)
    assert first_since(bytes(data), 21, ZERO, 1000) == (77, 5)
    assert first_since(bytes(data), 78, ZERO, 1000) is None


@pytest.mark.parametrize("codec", CODECS)
def test_what_can_not_be_read_is_nothing(codec: int) -> None:
    data = batch(10, 20, codec=codec)
    ruined = data[:HEADER_SIZE] + b"\xff" * (len(data) - HEADER_SIZE)
    assert first_since(ruined, 5, ZERO, 1000) is None
    assert first_since(data[:-1], 5, ZERO, 1000) is None


def test_a_batch_that_grows_past_the_cap_is_nothing() -> None:
    records = [Record(value=bytes(100_000), timestamp=10)]
    data = build_batch(records, codec=ZSTD)
    assert first_since(data, 5, ZERO, 10_000) is None
    assert first_since(data, 5, ZERO, 1_000_000) == (10, 0)
