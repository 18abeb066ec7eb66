"""Batches bent out of shape, their checksum right again: what a hostile client can send."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.records.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD, stamp_crc
from ottla.records.builder import build_batch
from ottla.records.compress import compress
from ottla.records.reader import Record

FIELDS = (
    "base_offset",
    "length",
    "leader_epoch",
    "magic",
    "crc",
    "attributes",
    "last_offset_delta",
    "base_timestamp",
    "max_timestamp",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "records_count",
)

Alter = Callable[..., memoryview]
RawBatch = Callable[..., memoryview]


def alter_batch(batch: bytes | memoryview, **fields: int) -> memoryview:
    """The batch with header fields replaced and, unless `crc` is one, the checksum made to fit.

    `length` is the field as on the wire: without the first 12 bytes.
    """
    values = dict(zip(FIELDS, HEADER.unpack_from(batch), strict=True)) | fields
    view = memoryview(bytearray(HEADER.pack(*values.values()) + bytes(batch)[HEADER_SIZE:]))
    if "crc" not in fields:
        stamp_crc(view)
    return view


@pytest.fixture
def altered() -> Alter:
    return alter_batch


@pytest.fixture
def raw_batch() -> RawBatch:
    """A batch with a sound header over any bytes: `packed` as they are, else compressed."""

    def build(
        body: bytes, *, count: int = 1, codec: int = 0, packed: bool = False, timestamp: int = 0
    ) -> memoryview:
        header = build_batch([Record(timestamp=timestamp)] * count)[:HEADER_SIZE]
        payload = body if packed else compress(codec, body)
        length = HEADER_SIZE - LOG_OVERHEAD + len(payload)
        return alter_batch(header + payload, length=length, attributes=codec)

    return build


@pytest.fixture
def varint() -> Callable[[int], bytes]:
    return zigzag


def zigzag(value: int) -> bytes:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


@pytest.fixture
def raw_record() -> Callable[..., bytes]:
    """One record's bytes, each part replaceable by any other."""

    def build(
        *,
        offset: int = 0,
        attributes: int = 0,
        timestamp: int = 0,
        key: bytes = b"\x02k",
        value: bytes = b"\x02v",
        headers: bytes = b"\x00",
        length: int | None = None,
    ) -> bytes:
        parts = (bytes([attributes]), zigzag(timestamp), zigzag(offset), key, value, headers)
        body = b"".join(parts)
        return zigzag(len(body) if length is None else length) + body

    return build
