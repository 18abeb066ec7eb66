"""Control batches: the markers that end a transaction in a partition (KIP-98).

Owns the form of their one record: key int16 version, int16 type; value int16 version, int32
epoch of the coordinator. Must not know transactions: who decides and writes is `coordinator`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from ottla.records.batch import (
    CONTROL_BIT,
    CRC_START,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    TRANSACTIONAL_BIT,
    BatchView,
    RecordError,
    stamp_crc,
)
from ottla.records.reader import records_of

_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")
_VERSION = 0
# The one record as it is always written: its length, attributes, two deltas, key and value with
# their lengths, no headers; the lengths as zigzag varints.
_RECORD = struct.Struct(">5shhshis")
_BEFORE_KEY, _BEFORE_VALUE, _NO_HEADERS = b"\x20\x00\x00\x00\x08", b"\x0c", b"\x00"
_SIZE = HEADER_SIZE + _RECORD.size
# What differs from one marker to the next: two timestamps, producer id and epoch, behind attributes
# and the last offset delta.
_OFFSET, _DIFFERENT = struct.Struct(">q"), struct.Struct(">qqqh")
_DIFFERENT_AT = CRC_START + 6
_BITS = CONTROL_BIT | TRANSACTIONAL_BIT
_CONTROL_MAX = 64 << 10
"""Bytes that a control batch may decompress to; a marker takes 20."""


class ControlType(IntEnum):
    """The types of control record that a partition's log holds for consumers."""

    ABORT = 0
    COMMIT = 1


_TYPES = (ControlType.ABORT, ControlType.COMMIT)
"""By number: to ask the enum takes as long as to read the marker."""


class EndMarker(NamedTuple):
    """How a transaction ended, and the epoch of the coordinator that said so."""

    type: ControlType
    coordinator_epoch: int


def build_end_marker(
    marker: EndMarker, producer_id: int, producer_epoch: int, timestamp: int, base_offset: int = 0
) -> bytearray:
    """The batch that ends `producer_id`'s transaction. Takes one offset and no sequence number.

    A copy of the one before, with what differs packed into it: each transaction takes one for each
    of its partitions.
    """
    batch = bytearray(_alike(marker))
    _DIFFERENT.pack_into(batch, _DIFFERENT_AT, timestamp, timestamp, producer_id, producer_epoch)
    if base_offset:
        _OFFSET.pack_into(batch, 0, base_offset)
    stamp_crc(memoryview(batch))
    return batch


@lru_cache(maxsize=64)  # one coordinator's markers are two
def _alike(marker: EndMarker) -> bytes:
    """What is the same in all of its batches, at its place."""
    kind, epoch = marker
    head = HEADER.pack(0, _SIZE - LOG_OVERHEAD, -1, MAGIC, 0, _BITS, 0, 0, 0, 0, 0, -1, 1)
    fields = _BEFORE_KEY, _VERSION, kind, _BEFORE_VALUE, _VERSION, epoch, _NO_HEADERS
    return head + _RECORD.pack(*fields)


@lru_cache(maxsize=64)
def _usual_marker(record: bytes) -> EndMarker | None:
    """The marker in the record as we write it; None of any other."""
    fields = _RECORD.unpack(record)
    before_key, key_version, type_, before_value, _, coordinator_epoch, rest = fields
    usual = before_key == _BEFORE_KEY and before_value == _BEFORE_VALUE and rest == _NO_HEADERS
    if usual and key_version == _VERSION and 0 <= type_ < len(_TYPES):
        return EndMarker(_TYPES[type_], coordinator_epoch)
    return None


def end_marker_of(batch: BatchView) -> EndMarker | None:
    """The marker in a control batch; None for a type that ends no transaction.

    A type or version from later is no error: readers skip what they don't know, as Kafka's do.
    Raises RecordError where the bytes are no control record.
    """
    if batch.length == len(batch.view) == _SIZE:
        marker = _usual_marker(bytes(batch.view[HEADER_SIZE:]))
        if marker is not None:
            return marker
    record = next(records_of(batch, _CONTROL_MAX), None)
    if record is None:
        return None
    try:
        version, kind = _KEY.unpack_from(record.key or b"")
        if version < 0:
            raise RecordError(f"a control record of version {version}")
        if kind not in (ControlType.ABORT, ControlType.COMMIT):
            return None
        _, coordinator_epoch = _VALUE.unpack_from(record.value or b"")
    except struct.error:
        raise RecordError("a control record is cut short") from None
    return EndMarker(ControlType(kind), coordinator_epoch)
