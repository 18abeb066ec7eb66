"""Batches as a hostile client builds them: any field, any record, any payload.

Owns the bending; a checksum is right again unless it is what is bent.
"""

from __future__ import annotations

import gzip
import struct
from functools import cache

from ottla.records.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD, stamp_crc
from ottla.records.builder import build_batch
from ottla.records.compress import compress
from ottla.records.reader import Record
from tests.hostile.wire import NOW_MS

_FIELDS = (
    "base_offset", "length", "leader_epoch", "magic", "crc", "attributes", "last_offset_delta",
    "base_timestamp", "max_timestamp", "producer_id", "producer_epoch", "base_sequence",
    "records_count",
)  # fmt: skip


def altered(batch: bytes, **fields: int) -> bytes:
    """The batch with other header fields. `length` is the wire's, without the first 12 bytes."""
    values = dict(zip(_FIELDS, HEADER.unpack_from(batch), strict=True)) | fields
    view = memoryview(bytearray(HEADER.pack(*values.values()) + batch[HEADER_SIZE:]))
    if "crc" not in fields:
        stamp_crc(view)
    return bytes(view)


def batch_of(payload: bytes, *, count: int = 1, codec: int = 0) -> bytes:
    """A sound header over any payload, which is taken as compressed already."""
    header = build_batch([Record(timestamp=NOW_MS)] * count)[:HEADER_SIZE]
    length = HEADER_SIZE - LOG_OVERHEAD + len(payload)
    return altered(header + payload, length=length, attributes=codec)


def zigzag(value: int) -> bytes:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def record(
    *,
    offset: int = 0,
    attributes: int = 0,
    key: bytes = b"\x02k",
    value: bytes = b"\x02v",
    headers: bytes = b"\0",
    length: int | None = None,
) -> bytes:
    """One record's bytes, each part replaceable by any other."""
    body = bytes([attributes]) + zigzag(0) + zigzag(offset) + key + value + headers
    return zigzag(len(body) if length is None else length) + body


@cache
def bomb(codec: int, mib: int) -> bytes:
    """A batch whose payload becomes `mib` MiB: one record, its value all zeros."""
    size = mib << 20
    body = bytes([0]) + zigzag(0) + zigzag(0) + b"\x01" + zigzag(size) + bytes(size) + b"\0"
    return batch_of(compress(codec, zigzag(len(body)) + body), codec=codec)


XERIAL = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
LZ4_SKIPPABLE = struct.pack("<II", 0x184D2A53, 4) + b"abcd"
EMPTY_GZIP = gzip.compress(b"")
# Magic, then a frame header with a window descriptor, then one empty raw block that is the last.
EMPTY_ZSTD = bytes.fromhex("28b52ffd") + bytes([0x00, 0x00]) + b"\x01\0\0"


def zstd_window(exponent: int) -> bytes:
    """An empty zstd frame that asks for a window of 2^exponent bytes."""
    return bytes.fromhex("28b52ffd") + bytes([0x00, (exponent - 10) << 3]) + b"\x01\0\0"
