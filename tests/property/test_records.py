"""Whatever bytes arrive, a batch is judged, read or refused: never a crash, never without end."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ottla.protocol.errors import ErrorCode
from ottla.records import validate
from ottla.records.batch import (
    CRC_START,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    BatchView,
    RecordError,
    crc_ok,
    stamp_crc,
)
from ottla.records.builder import Producer, build_batch, recompress
from ottla.records.compress import DecompressError, compress, decompress
from ottla.records.control import end_marker_of
from ottla.records.reader import Record, read_batches, records_of
from ottla.records.validate import Rejected, Rules, check_header, check_records

NOW = 1_800_000_000_000
RULES = Rules(message_max_bytes=1 << 16)
WALK = Rules(message_max_bytes=1 << 16, depth="records", compacted=True)

timestamps = st.integers(-1, NOW)
names = st.text(max_size=9)
parts = st.none() | st.binary(max_size=70)
records = st.builds(
    Record,
    key=parts,
    value=parts | st.just(b"v" * 40_000),
    timestamp=timestamps,
    headers=st.lists(st.tuples(names, parts), max_size=3),
    offset=st.just(-1),
)
codecs = st.integers(0, 4)
many = settings(max_examples=max(1_000, settings().max_examples))


@given(st.lists(records, min_size=1, max_size=8), codecs, codecs, st.integers(0, 1 << 50))
def test_what_is_built_is_accepted_and_read_back(
    given_records: list[Record], codec: int, other: int, base_offset: int
) -> None:
    built = build_batch(given_records, codec=codec, producer=Producer(3, 0, 7))
    batch = check_header(memoryview(bytearray(built)), Rules(), NOW, 9)
    assert isinstance(batch, BatchView)
    assert check_records(batch.view, Rules(depth="records"), NOW) == batch.max_timestamp
    assert batch.view == built
    batch.stamp(base_offset, 4)
    expected = [
        record._replace(offset=base_offset + index) for index, record in enumerate(given_records)
    ]
    for stored in (bytes(batch.view), recompress(batch.view, other)):
        (again,) = read_batches(stored)
        assert list(records_of(again)) == expected


@many
@given(st.none() | st.binary(max_size=200), st.integers(0, 13))
def test_any_bytes_are_a_batch_or_refused(data: bytes | None, version: int) -> None:
    outcome = check_header(None if data is None else memoryview(data), RULES, NOW, version)
    assert isinstance(outcome, Rejected)
    assert outcome.error in (ErrorCode.INVALID_RECORD, ErrorCode.CORRUPT_MESSAGE)


# Fields at their edges, behind a length and a checksum that fit: the checks that follow decide.
int64 = st.sampled_from([-(1 << 63), -2, -1, 0, 1, NOW, (1 << 63) - 1])
int32 = st.sampled_from([-(1 << 31), -2, -1, 0, 1, 2, (1 << 31) - 1])
int16 = st.integers(-(1 << 15), (1 << 15) - 1)
bodies = st.binary(max_size=120) | st.tuples(codecs, st.binary(max_size=120)).map(
    lambda pair: compress(*pair)
)


@st.composite
def sealed_batches(draw: st.DrawFn) -> memoryview:
    body = draw(bodies)
    header = HEADER.pack(
        draw(st.sampled_from([0, 0, 0, 1])),
        HEADER_SIZE - LOG_OVERHEAD + len(body),
        draw(int32),
        2,
        0,
        draw(codecs | int16),
        draw(int32),
        draw(int64),
        draw(int64),
        draw(int64),
        draw(int16),
        draw(int32),
        draw(int32 | st.just(1)),
    )
    view = memoryview(bytearray(header + body))
    stamp_crc(view)
    return view


near = st.sampled_from([-3_600_001, -3_600_000, 0, 3_600_000, 3_600_001])


@st.composite
def nearly_sound_batches(draw: st.DrawFn) -> memoryview:
    """Mostly sound: each field is off now and then, by as little as can be."""
    count = draw(st.integers(-1, 2))
    header = HEADER.pack(
        0,
        HEADER_SIZE - LOG_OVERHEAD + 9,
        -1,
        2,
        0,
        draw(st.integers(0, 63)),
        count - 1 + draw(st.sampled_from([0, 0, 0, 1, -1])),
        draw(near.map(NOW.__add__) | int64),
        draw(near.map(NOW.__add__) | int64),
        *draw(st.tuples(*[st.integers(-1, 0)] * 3) | st.just((7, 0, 3)) | st.just((-1, -1, -1))),
        count,
    )
    view = memoryview(bytearray(header + bytes(9)))
    stamp_crc(view)
    return view


@many
@given(nearly_sound_batches() | sealed_batches(), st.integers(3, 13), st.booleans(), st.booleans())
def test_what_is_accepted_at_one_glance_has_no_fault(
    view: memoryview, version: int, small: bool, strict: bool
) -> None:
    rules = Rules(
        segment_bytes=69 if small else 1 << 20,
        before_max_ms=3_600_000 if strict else 1 << 62,
        timestamp_type="LogAppendTime" if small and strict else "CreateTime",
    )
    seen = []
    for usual in (validate._USUAL, frozenset[int]()):
        with mock.patch.object(validate, "_USUAL", usual):
            outcome = check_header(memoryview(bytearray(view)), rules, NOW, version)
        seen.append(outcome if isinstance(outcome, Rejected) else bytes(outcome.view))
    assert seen[0] == seen[1]


@many
@given(sealed_batches(), st.integers(3, 13))
def test_any_header_over_any_bytes_is_judged_and_read_without_a_crash(
    view: memoryview, version: int
) -> None:
    outcome = check_header(view, RULES, NOW, version)
    assert isinstance(outcome, BatchView | Rejected)
    batch = BatchView(view)
    assert batch.records_count > 0 or isinstance(outcome, Rejected)
    check_records(view, WALK, NOW)
    assert crc_ok(view)
    for read in (records_of, end_marker_of):
        try:
            result: Any = read(batch)
            if result is not None and read is records_of:
                list(result)
        except RecordError:
            pass


@many
@given(st.lists(records, min_size=1, max_size=4), codecs, st.data())
def test_a_few_bytes_changed_behind_a_fitting_checksum_are_judged_and_read(
    given_records: list[Record], codec: int, data: st.DataObject
) -> None:
    view = memoryview(bytearray(build_batch(given_records, codec=codec)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(CRC_START, min(len(view), 400) - 1))
        view[at] = data.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]))
    stamp_crc(view)
    batch = BatchView(view)
    try:
        count = sum(1 for _ in records_of(batch, 1 << 20))
        assert count == batch.records_count
    except RecordError:
        assert isinstance(check_records(batch.view, RULES, NOW), Rejected)


@many
@given(codecs, st.binary(max_size=300), st.data())
@example(4, b"\x28\xb5\x2f\xfd\x00\x58\x00\x00\x00", None)
def test_decompression_ends_within_its_cap(
    codec: int, content: bytes, data: st.DataObject | None
) -> None:
    """H50-H54. Bytes at random, and sound frames with some of them changed."""
    packed = bytearray(content)
    if data is not None and data.draw(st.booleans()):
        packed = bytearray(compress(codec, content * data.draw(st.sampled_from([1, 1, 500]))))
        for _ in range(data.draw(st.integers(0, 3)) if packed else 0):
            packed[data.draw(st.integers(0, min(len(packed), 60) - 1))] = data.draw(
                st.integers(0, 255)
            )
    cap = 1 << 16
    tracemalloc.start()
    try:
        result = decompress(codec, packed, cap)
        assert len(result) <= max(cap, len(packed) if codec == 0 else 0)
    except DecompressError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 * cap + 20 * len(packed)


@many
@given(st.lists(st.integers(0, 255), max_size=5), st.binary(max_size=300))
def test_a_log_of_any_bytes_ends(cuts: list[int], noise: bytes) -> None:
    log = bytearray(build_batch([Record(b"k", b"v")]) * 2 + noise)
    for cut in cuts:
        log[cut % len(log)] ^= 0x41
    try:
        total = sum(batch.length for batch in read_batches(log))
        assert total <= len(log)
    except RecordError:
        pass


def test_a_batch_with_the_greatest_claims_allocates_nothing_for_them() -> None:
    """H40, H41: counts and lengths of 2^31-1."""
    greatest = b"\xfe\xff\xff\xff\x0f"
    for body in (greatest, b"\x20\0\0\0\1\1" + greatest + bytes(5), b"\x20\0\0\0" + greatest * 3):
        batch = bytearray(build_batch([Record()])[:HEADER_SIZE] + body)
        struct.pack_into(">i", batch, 8, len(batch) - LOG_OVERHEAD)
        struct.pack_into(">i", batch, 57, 2**31 - 1)
        view = memoryview(batch)
        stamp_crc(view)
        tracemalloc.start()
        try:
            outcome = check_records(view, RULES, NOW)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert isinstance(outcome, Rejected)
        assert peak < 1 << 16
