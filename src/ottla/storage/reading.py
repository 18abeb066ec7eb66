"""The reading half of a log: a row of segments, and where in them an answer lies.

Owns the segments and where they begin, not how they grow: `log.Log` appends, rolls and lets go
of them. Must not block, know high watermarks, or see past the bound that it is given.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.protocol.errors import ErrorCode
from ottla.storage.index import NotResident
from ottla.storage.segment import Cold, Place, Segment


class LogPosition:
    """An offset and where it lies, so that a fetch up to it needs no scan.

    Never changed. One is made for each append, for which a NamedTuple takes twice as long.
    """

    __slots__ = ("offset", "position", "segment")

    def __init__(self, offset: Offset, segment: Segment | None, position: int) -> None:
        self.offset = offset
        self.segment = segment
        self.position = position


class TimeHit(NamedTuple):
    """The batch that answers a question about time. Whoever gets it releases `slice`."""

    slice: FileSlice
    base_offset: Offset
    last_offset: Offset
    max_timestamp: int
    leader_epoch: LeaderEpoch


class Readable:
    """What of a log is read: `segments` by rising offset, of which readers see `start` and on.

    All of it raises DiskError, also where the log is damaged.
    """

    __slots__ = ("_active", "_bases", "segments", "start")

    def __init__(self, segments: list[Segment], start: Offset) -> None:
        self.segments = segments
        self.start = start
        self._bases = [segment.base_offset for segment in segments]
        self._active = segments[-1] if segments else None

    def read(
        self, offset: Offset, max_bytes: int, bound: LogPosition
    ) -> FileSlice | Cold | ErrorCode | None:
        """Whole batches from the one that contains `offset` up to `bound`; one at least.

        None at the bound: nothing there yet. OFFSET_OUT_OF_RANGE outside [start, bound].
        Cold: warm it, release it, ask again. Raises DiskError, also where the log is damaged.
        A slice never crosses a segment.
        """
        if not self.start <= offset <= bound.offset:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        if offset == bound.offset:
            return None
        active = self._active
        if active is not None and offset >= active.base_offset:
            at = len(self.segments) - 1
        else:
            at = max(bisect_right(self._bases, offset) - 1, 0)
        try:
            for segment in self.segments[at:]:
                if segment is bound.segment:
                    limit, limit_offset = bound.position, bound.offset
                else:
                    limit, limit_offset = segment.size, segment.end
                piece = segment.slice(offset, max_bytes, limit, limit_offset)
                if piece is not None or segment is bound.segment:
                    return piece
        except NotResident as missing:
            return Cold(missing.slice())
        return None

    def offset_for_time(self, timestamp: int, bound: LogPosition) -> TimeHit | Cold | None:
        """The first batch below `bound` that holds a record of `timestamp` or later.

        Its records say which one it is: open it off the loop. None if there is no such batch.
        Raises DiskError, as `read` does.
        """
        try:
            for segment in self.segments:
                if segment.max_timestamp >= timestamp and segment.end > self.start:
                    limit = bound.position if segment is bound.segment else segment.size
                    place = segment.first_since(timestamp, self.start, limit)
                    if place is not None:
                        return _hit(segment, place)
                if segment is bound.segment:
                    break
        except NotResident as missing:
            return Cold(missing.slice())
        return None

    def max_timestamp(self) -> TimeHit | Cold | None:
        """The first batch with the largest timestamp in the log (KIP-734); None if it has none.

        Raises DiskError, as `read` does.
        """
        there = [one for one in self.segments if one.end > self.start and one.max_timestamp >= 0]
        if not there:
            return None
        segment = max(there, key=lambda one: one.max_timestamp)
        try:
            place = segment.locate(segment.max_timestamp_offset, segment.size)
        except NotResident as missing:
            return Cold(missing.slice())
        return None if place is None else _hit(segment, place)


def _hit(segment: Segment, place: Place) -> TimeHit:
    return TimeHit(
        FileSlice(segment.log, place.position, place.length),
        Offset(place.base_offset),
        Offset(place.last_offset),
        place.max_timestamp,
        LeaderEpoch(place.leader_epoch),
    )
