"""Batches out of records: for tools, compaction, recompression, markers and tests.

Owns the writing of a batch, as `reader` owns the reading. Must not be used on the way of a
produce or fetch, save for a topic whose compression.type asks for another codec.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from ottla.core.model import NO_PRODUCER_ID, NO_TIMESTAMP
from ottla.core.ports import Buffer
from ottla.records.batch import (
    CODEC_MASK,
    CRC_START,
    HEADER,
    HEADER_CHECKED,
    HEADER_FRONT,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    BatchView,
    stamp_crc,
)
from ottla.records.compress import CODEC_NAMES, NONE, compress
from ottla.records.crc import crc32c
from ottla.records.reader import DECOMPRESSED_MAX, Header, Record, payload

NO_LEADER_EPOCH: Final = -1


class Producer(NamedTuple):
    """Who wrote a batch (KIP-98): its id, epoch and the first record's sequence number."""

    id: int = NO_PRODUCER_ID
    epoch: int = -1
    sequence: int = -1


NO_PRODUCER: Final = Producer()


def build_batch(
    records: Iterable[Record],
    *,
    base_offset: int = 0,
    codec: int = NONE,
    level: int | None = None,
    producer: Producer = NO_PRODUCER,
    attributes: int = 0,
) -> bytes:
    """A whole batch, its checksum in place, its leader epoch -1, as a client would send it.

    A record's offset is its own, or the one after the record before. `attributes` are the bits
    beside the codec; with LOG_APPEND_TIME_BIT every record has the greatest timestamp.
    """
    body = bytearray()
    base_timestamp = max_timestamp = NO_TIMESTAMP
    delta = -1
    count = 0
    for count, record in enumerate(records, 1):
        delta = delta + 1 if record.offset < 0 else record.offset - base_offset
        if count == 1:
            base_timestamp = record.timestamp
        max_timestamp = max(max_timestamp, record.timestamp)
        _append_record(body, record, record.timestamp - base_timestamp, delta)
    packed = compress(codec, body, level)
    header = HEADER.pack(
        base_offset,
        HEADER_SIZE - LOG_OVERHEAD + len(packed),
        NO_LEADER_EPOCH,
        MAGIC,
        0,
        attributes & ~CODEC_MASK | codec,
        delta,
        base_timestamp,
        max_timestamp,
        producer.id,
        producer.epoch,
        producer.sequence,
        count,
    )
    return bytes(_sealed(header, packed))


def build_single(
    key: bytes,
    value: bytes | None,
    timestamp: int,
    producer: Producer = NO_PRODUCER,
    attributes: int = 0,
) -> bytearray:
    """What `build_batch` makes of one record without headers, uncompressed, and to be stamped.

    At once, in a fifth of the time: most of what coordinators write is one record.
    """
    value_length = b"\x01" if value is None else _length(len(value))
    record = b"".join((_ONE, _length(len(key)), key, value_length, value or b"", b"\x00"))
    length = _length(len(record))
    if producer is NO_PRODUCER:  # to unpack one takes longer than all the rest of the packing
        head = HEADER_CHECKED.pack(attributes, 0, timestamp, timestamp, -1, -1, -1, 1)
    else:
        head = HEADER_CHECKED.pack(attributes, 0, timestamp, timestamp, *producer, 1)
    checked = head + length + record
    size = CRC_START - LOG_OVERHEAD + len(checked)
    batch = bytearray(HEADER_FRONT.pack(0, size, NO_LEADER_EPOCH, MAGIC, crc32c(checked)))
    batch += checked
    return batch


def recompress(
    batch: Buffer, codec: int, level: int | None = None, decompressed_max: int = DECOMPRESSED_MAX
) -> bytes:
    """The same batch under another codec: what `compression.type` other than producer asks for.

    The records' bytes are kept as they are, and with them offsets, timestamps, producer fields
    and headers. Raises RecordError where the batch doesn't decompress within the cap.
    """
    view = BatchView(memoryview(batch))
    return _assemble(bytes(view.view[:HEADER_SIZE]), payload(view, decompressed_max), codec, level)


def codec_of(compression_type: str) -> int | None:
    """The codec that a `compression.type` asks for; None for `producer`: as it was sent."""
    if compression_type == "producer":
        return None
    return NONE if compression_type == "uncompressed" else CODEC_NAMES.index(compression_type)


def _assemble(header: bytes, body: Buffer, codec: int, level: int | None) -> bytes:
    packed = compress(codec, body, level)
    fields = list(HEADER.unpack(header))
    fields[1] = HEADER_SIZE - LOG_OVERHEAD + len(packed)
    fields[5] = fields[5] & ~CODEC_MASK | codec
    return bytes(_sealed(HEADER.pack(*fields), packed))


def _sealed(header: bytes, packed: Buffer) -> bytearray:
    batch = bytearray(header)
    batch += packed
    stamp_crc(memoryview(batch))
    return batch


def _append_record(body: bytearray, record: Record, timestamp_delta: int, delta: int) -> None:
    if not (record.headers or timestamp_delta):  # as coordinators write: several at a time
        key, value = record.key, record.value
        parts = (
            b"\x00\x00",
            _length(delta),
            b"\x01" if key is None else _length(len(key)) + key,
            b"\x01" if value is None else _length(len(value)) + value,
            b"\x00",
        )
        whole = b"".join(parts)
        body += _length(len(whole)) + whole
        return
    inner = bytearray(b"\x00")  # a record's attributes: none are in use
    _append_varint(inner, timestamp_delta)
    _append_varint(inner, delta)
    _append_bytes(inner, record.key)
    _append_bytes(inner, record.value)
    _append_varint(inner, len(record.headers))
    for header in record.headers:
        _append_header(inner, header)
    _append_varint(body, len(inner))
    body += inner


def _append_header(inner: bytearray, header: Header) -> None:
    name, value = header
    _append_bytes(inner, name.encode(errors="surrogateescape"))
    _append_bytes(inner, value)


def _append_bytes(inner: bytearray, part: bytes | None) -> None:
    if part is None:
        inner.append(1)  # zigzag for -1
    else:
        _append_varint(inner, len(part))
        inner += part


_ONE: Final = b"\x00\x00\x00"
"""How the first record of a batch begins: attributes, and its deltas of timestamp and offset."""


@lru_cache(maxsize=4096)
def _length(value: int) -> bytes:
    """A length as a zigzag varint."""
    out = bytearray()
    _append_varint(out, value)
    return bytes(out)


def _append_varint(inner: bytearray, value: int) -> None:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    while value >= 0x80:
        inner.append(value & 0x7F | 0x80)
        value >>= 7
    inner.append(value)
