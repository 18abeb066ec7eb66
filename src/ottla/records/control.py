"""Control batches: the markers that end a transaction in a partition (KIP-98).

Owns the form of their one record: key int16 version, int16 type; value int16 version, int32
epoch of the coordinator. Must not know transactions: who decides and writes is `coordinator`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from ottla.records.batch import (
    CONTROL_BIT,
    HEADER,
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
_SIZE = HEADER.size + _RECORD.size
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

    Packed at once: each transaction takes one for each of its partitions.
    """
    batch = bytearray(_SIZE)
    HEADER.pack_into(
        batch,
        0,
        base_offset,
        _SIZE - LOG_OVERHEAD,
        -1,
        MAGIC,
        0,
        CONTROL_BIT | TRANSACTIONAL_BIT,
        0,
        timestamp,
        timestamp,
        producer_id,
        producer_epoch,
        -1,
        1,
    )
    _RECORD.pack_into(
        batch,
        HEADER.size,
        _BEFORE_KEY,
        _VERSION,
        marker.type,
        _BEFORE_VALUE,
        _VERSION,
        marker.coordinator_epoch,
        _NO_HEADERS,
    )
    stamp_crc(memoryview(batch))
    return batch


def end_marker_of(batch: BatchView) -> EndMarker | None:
    """The marker in a control batch; None for a type that ends no transaction.

    A type or version from later is no error: readers skip what they don't know, as Kafka's do.
    Raises RecordError where the bytes are no control record.
    """
    if batch.length == len(batch.view) == _SIZE:
        fields = _RECORD.unpack_from(batch.view, HEADER.size)
        before_key, key_version, type_, before_value, _, coordinator_epoch, rest = fields
        usual = before_key == _BEFORE_KEY and before_value == _BEFORE_VALUE and rest == _NO_HEADERS
        if usual and key_version == _VERSION and 0 <= type_ < len(_TYPES):
            return EndMarker(_TYPES[type_], coordinator_epoch)
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
