"""Records out of batches: for tools, compaction, tests and the one batch a time lookup hits.

Owns the form of a record (magic 2): varint length, attributes, timestamp delta, offset delta,
key, value, headers. Must not be used on the way of a produce or fetch. Whatever the bytes are, it
ends, and raises RecordError at most: a batch stored under `record.validation=header` may hold
anything behind its header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from ottla.core.model import NO_TIMESTAMP
from ottla.core.ports import Buffer
from ottla.records.batch import (
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    BatchView,
    RecordError,
    batch_length,
)
from ottla.records.compress import NONE, decompress

DECOMPRESSED_MAX: Final = 128 << 20
"""Bytes that a batch may decompress to, whatever it claims."""

Header: TypeAlias = tuple[str, bytes | None]

_MAGIC_AT = 16


class Record(NamedTuple):
    """One record. To a builder, offset -1 means the one after the record before.

    `timestamp` in milliseconds since 1970, -1 for none. A header's name that is not UTF-8 keeps
    its bytes as surrogates, so that writing it again loses nothing.
    """

    key: bytes | None = None
    value: bytes | None = None
    timestamp: int = NO_TIMESTAMP
    headers: Sequence[Header] = ()
    offset: int = -1


class Frame(NamedTuple):
    """Where the parts of one record lie in the decompressed bytes. A length of -1 is null."""

    end: int
    attributes: int
    timestamp_delta: int
    offset_delta: int
    key_at: int
    key_length: int
    value_at: int
    value_length: int
    headers_at: int


def read_batches(buffer: Buffer) -> Iterator[BatchView]:
    """Each whole batch of a log or a fetch answer, in order.

    Stops where the next one is not whole, as every reader of a log does. Raises RecordError
    where the bytes are no batch of magic 2. Checksums are the caller's to check.
    """
    view = memoryview(buffer)
    at = 0
    while at + HEADER_SIZE <= len(view):
        length = batch_length(view, at)
        if length < HEADER_SIZE or view[_MAGIC_AT + at] != MAGIC:
            raise RecordError(
                f"no batch at {at}: length {length - LOG_OVERHEAD}, magic {view[_MAGIC_AT + at]}"
            )
        if at + length > len(view):
            return
        yield BatchView(view, at)
        at += length


def records_of(batch: BatchView, decompressed_max: int = DECOMPRESSED_MAX) -> Iterator[Record]:
    """Each record of a batch, keys and values copied out. Raises RecordError.

    Yields what is sound before it raises; never more records than the header counts.
    """
    data = payload(batch, decompressed_max)
    view = memoryview(data)
    base_offset, base_timestamp = batch.base_offset, batch.base_timestamp
    append_time = batch.max_timestamp if batch.log_append_time else None
    at = 0
    for _ in range(batch.records_count):
        frame = frame_at(data, at)
        at = frame.end
        yield Record(
            _slice(view, frame.key_at, frame.key_length),
            _slice(view, frame.value_at, frame.value_length),
            base_timestamp + frame.timestamp_delta if append_time is None else append_time,
            headers_at(data, frame),
            base_offset + frame.offset_delta,
        )
    if at != len(view):
        raise RecordError(f"{len(view) - at} bytes remain after the last record")


def pairs_of(
    batch: BatchView, decompressed_max: int = DECOMPRESSED_MAX
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """As `records_of`, but only the key and the value of each: half the cost, for coordinators that
    read a million at a start."""
    data = payload(batch, decompressed_max)
    end = 0
    for _ in range(batch.records_count):
        frame = frame_at(data, end)
        end, _attributes, _time, _delta, key_at, key_length, value_at, value_length, _ = frame
        yield (
            None if key_length < 0 else bytes(data[key_at : key_at + key_length]),
            None if value_length < 0 else bytes(data[value_at : value_at + value_length]),
        )
    if end != len(data):
        raise RecordError(f"{len(data) - end} bytes remain after the last record")


def payload(batch: BatchView, decompressed_max: int = DECOMPRESSED_MAX) -> bytes | bytearray:
    """The records' bytes, decompressed. Raises RecordError, also where the batch is not whole."""
    if batch.length < HEADER_SIZE or len(batch.view) < batch.length:
        raise RecordError(f"{len(batch.view)} bytes of a batch of {batch.length}")
    if batch.codec == NONE:
        return bytes(batch.view[HEADER_SIZE:])
    data = decompress(batch.codec, batch.view[HEADER_SIZE:], decompressed_max)
    return data if isinstance(data, bytearray) else bytes(data)


def frame_at(data: bytes | bytearray, at: int) -> Frame:
    """The record at `at`, measured, its headers skipped. Raises RecordError.

    Allocates nothing of a size that the bytes claim.
    """
    try:
        length, at = varint(data, at)
        end = at + length
        # Every part must end before the record does, and the record before the bytes do.
        if length < 0 or end > len(data):
            raise RecordError(f"a record of {length} bytes where {len(data) - at} are left")
        attributes = data[at]
        timestamp_delta, at = varint(data, at + 1, 64)
        offset_delta, at = varint(data, at)
        key_length, key_at = varint(data, at)
        at = key_at + _length(key_length, end - key_at, "key")
        value_length, value_at = varint(data, at)
        headers_at = value_at + _length(value_length, end - value_at, "value")
        at = _skip_headers(data, headers_at, end)
    except IndexError:
        raise RecordError("a record is cut short") from None
    if at != end:
        raise RecordError(f"a record of {length} bytes has its last part end at {at - end:+d}")
    return Frame(
        end,
        attributes,
        timestamp_delta,
        offset_delta,
        key_at,
        key_length,
        value_at,
        value_length,
        headers_at,
    )


def headers_at(data: bytes | bytearray, frame: Frame) -> list[Header]:
    """The headers of a record that `frame_at` has measured."""
    count, at = varint(data, frame.headers_at)
    headers: list[Header] = []
    for _ in range(count):
        length, at = varint(data, at)
        name = bytes(data[at : at + length]).decode(errors="surrogateescape")
        length, at = varint(data, at + length)
        headers.append((name, bytes(data[at : at + length]) if length >= 0 else None))
        at += max(length, 0)
    return headers


def varint(data: bytes | bytearray, at: int, bits: int = 32) -> tuple[int, int]:
    """A zigzag varint and where it ends. Raises RecordError; IndexError where bytes run out."""
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value = byte & 0x7F
    shift = 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= bits:
            raise RecordError(f"a varint of more than {bits} bits")
    if value >> bits:
        raise RecordError(f"a varint of more than {bits} bits")
    return (value >> 1) ^ -(value & 1), at + 1


def _skip_headers(data: bytes | bytearray, at: int, end: int) -> int:
    """Where the headers end. Their count is believed only as far as bytes are left (H41)."""
    count, at = varint(data, at)
    if not 0 <= count <= (end - at) // 2:
        raise RecordError(f"{count} headers in {end - at} bytes")
    for _ in range(count):
        length, at = varint(data, at)
        if not 0 <= length < end - at:
            raise RecordError(f"a header's name of {length} bytes where {end - at} are left")
        length, at = varint(data, at + length)
        at += _length(length, end - at, "header")
    return at


def _length(length: int, left: int, part: str) -> int:
    """The bytes that a nullable part takes. Raises RecordError."""
    if length == -1:
        return 0
    if not 0 <= length <= left:
        raise RecordError(f"a {part} of {length} bytes where {left} are left")
    return length


def _slice(view: memoryview, at: int, length: int) -> bytes | None:
    return None if length < 0 else bytes(view[at : at + length])
