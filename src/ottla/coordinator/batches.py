"""Batches: how what a shard decided is divided and built for its log.

Owns the reckoning of sizes and the building. Must not know a shard, nor write anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ottla.protocol.errors import ErrorCode
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import NO_PRODUCER, build_batch, build_single
from ottla.records.reader import Record

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision

_BATCH_OVERHEAD = 61 + 64
_RECORD_OVERHEAD = 32
"""The most that a record has beside its key and value."""
Pair: TypeAlias = tuple[bytes, bytes | None]
"""An entry as bytes: its record's key and value."""


def parts(pairs: Sequence[Pair], batch_bytes_max: int) -> Iterator[slice]:
    """Which of them go into a batch together, where they may be parted: as many as fit."""
    begin, room = 0, batch_bytes_max - _BATCH_OVERHEAD
    left = room
    for at, (key, value) in enumerate(pairs):
        size = len(key) + len(value or b"") + _RECORD_OVERHEAD
        if size > left and at > begin:
            yield slice(begin, at)
            begin, left = at, room
        left -= size
    if pairs:
        yield slice(begin, len(pairs))


def batch_of(
    decision: Decision[Any],
    pairs: Sequence[Pair],
    codec: int,
    batch_bytes_max: int,
    now_ms: int,
) -> BatchView | ErrorCode:
    """The batch that they make, or what Kafka's coordinator makes of one that is too large."""
    producer = decision.producer
    attributes = 0 if producer is None else TRANSACTIONAL_BIT
    if len(pairs) == 1 and not codec:
        [(key, value)] = pairs
        built = build_single(key, value, now_ms, producer or NO_PRODUCER, attributes)
    else:
        built = bytearray(
            build_batch(
                [Record(key, value, now_ms) for key, value in pairs],
                codec=codec,
                producer=producer or NO_PRODUCER,
                attributes=attributes,
            )
        )
    if not decision.any_size and len(built) > batch_bytes_max:
        return ErrorCode.UNKNOWN_SERVER_ERROR
    return BatchView(memoryview(built))
