"""Batches built as clients build them, and built anew under another codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.records.batch import TRANSACTIONAL_BIT, BatchView, crc_ok
from ottla.records.builder import (
    NO_PRODUCER,
    Producer,
    build_batch,
    build_single,
    codec_of,
    recompress,
)
from ottla.records.compress import GZIP, LZ4, NONE, SNAPPY, ZSTD
from ottla.records.reader import Record, records_of

RECORDS = [
    Record(b"key", b"value", 1_000, [("name", b"x"), ("name", None), ("", b"")]),
    Record(None, None, 999),
    Record(b"", b"y" * 70_000, 5_000),
]


@pytest.mark.parametrize("codec", range(5))
def test_built_records_are_read_back(codec: int) -> None:
    batch = BatchView(memoryview(build_batch(RECORDS, base_offset=7, codec=codec)))
    assert batch.codec == codec
    assert crc_ok(batch.view)
    read = list(records_of(batch))
    assert [record.offset for record in read] == [7, 8, 9]
    assert [record._replace(offset=-1, headers=list(record.headers)) for record in read] == [
        record._replace(headers=list(record.headers)) for record in RECORDS
    ]


def test_records_keep_their_own_offsets_when_they_have_them() -> None:
    kept = [Record(b"a", offset=12), Record(b"b", offset=15)]
    batch = BatchView(memoryview(build_batch(kept, base_offset=10)))
    assert [record.offset for record in records_of(batch)] == [12, 15]
    assert (batch.last_offset, batch.records_count) == (15, 2)


def test_a_header_name_that_is_not_utf8_survives() -> None:
    name = b"\xff\xfe".decode(errors="surrogateescape")
    first = build_batch([Record(headers=[(name, b"v")])])
    (record,) = records_of(BatchView(memoryview(first)))
    assert build_batch([record]) == first


@pytest.mark.parametrize("source", range(5))
@pytest.mark.parametrize("target", range(5))
def test_another_codec_changes_nothing_else(source: int, target: int) -> None:
    producer = Producer(5, 1, 30)
    batch = build_batch(
        RECORDS, base_offset=9, codec=source, producer=producer, attributes=TRANSACTIONAL_BIT
    )
    before, after = (BatchView(memoryview(b)) for b in (batch, recompress(batch, target)))
    assert after.codec == target
    assert crc_ok(after.view)
    assert list(records_of(after)) == list(records_of(before))
    for name in set(BatchView.__slots__) - {"view", "crc", "length", "attributes"}:
        assert getattr(after, name) == getattr(before, name), name
    assert after.is_transactional


def test_compression_types_name_their_codecs() -> None:
    names = ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]
    assert [codec_of(name) for name in names] == [None, NONE, GZIP, SNAPPY, LZ4, ZSTD]


LENGTHS = st.sampled_from([0, 1, 63, 64, 8191, 8192, 70_000])


@given(
    LENGTHS.map(bytes),
    st.none() | LENGTHS.map(bytes),
    st.integers(-1, 1 << 62),
    st.sampled_from([NO_PRODUCER, Producer(7, 3, -1), Producer(1 << 60, 32_767, 9)]),
    st.sampled_from([0, TRANSACTIONAL_BIT]),
)
def test_a_single_record_is_the_batch_that_any_number_of_them_would_be(
    key: bytes, value: bytes | None, timestamp: int, producer: Producer, attributes: int
) -> None:
    usual = build_batch([Record(key, value, timestamp)], producer=producer, attributes=attributes)
    assert build_single(key, value, timestamp, producer, attributes) == usual
