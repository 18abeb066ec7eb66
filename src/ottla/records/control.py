"""Control batches: the markers that end a transaction in a partition (KIP-98).

Owns the form of their one record: key int16 version, int16 type; value int16 version, int32
epoch of the coordinator. Must not know transactions: who decides and writes is `coordinator`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView, RecordError
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record, records_of

_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")
_VERSION = 0
_CONTROL_MAX = 64 << 10
"""Bytes that a control batch may decompress to; a marker takes 20."""


class ControlType(IntEnum):
    """The types of control record that a partition's log holds for consumers."""

    ABORT = 0
    COMMIT = 1


class EndMarker(NamedTuple):
    """How a transaction ended, and the epoch of the coordinator that said so."""

    type: ControlType
    coordinator_epoch: int


def build_end_marker(
    marker: EndMarker, producer_id: int, producer_epoch: int, timestamp: int, base_offset: int = 0
) -> bytes:
    """The batch that ends `producer_id`'s transaction. Takes one offset and no sequence number."""
    record = Record(
        _KEY.pack(_VERSION, marker.type), _VALUE.pack(_VERSION, marker.coordinator_epoch), timestamp
    )
    return build_batch(
        [record],
        base_offset=base_offset,
        producer=Producer(producer_id, producer_epoch),
        attributes=CONTROL_BIT | TRANSACTIONAL_BIT,
    )


def end_marker_of(batch: BatchView) -> EndMarker | None:
    """The marker in a control batch; None for a type that ends no transaction.

    A type or version from later is no error: readers skip what they don't know, as Kafka's do.
    Raises RecordError where the bytes are no control record.
    """
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
