"""The reading half of a log: a row of segments, and where in them an answer lies.

Owns the segments and where they begin, not how they grow: `log.Log` appends, rolls and lets go
of them. Must not block, know high watermarks, or see past the bound that it is given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import HEADER_SIZE, BatchView
from ottla.storage.aborted import Aborted
from ottla.storage.checked import ANYWHERE, Cold
from ottla.storage.index import NotResident
from ottla.storage.segment import Damaged, Place, Segment

_HOLLOW_BYTES_MAX = 16 * HEADER_SIZE
"""A piece up to this size may be batches without records, which are nothing but headers."""
INTACT = Offset(1 << 63)
"""An offset that no log reaches."""


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

    __slots__ = ("_active", "_bases", "damaged_at", "failed", "on_damage", "segments", "start")

    def __init__(self, segments: list[Segment], start: Offset) -> None:
        self.segments = segments
        self.start = start
        self._bases = [segment.base_offset for segment in segments]
        self._active = segments[-1] if segments else None
        self.failed = False
        """A write could not be taken back, or there is damage: no appends any more."""
        self.damaged_at = INTACT
        """From this offset on readers are told of damage, whatever may lie there."""
        self.on_damage: Callable[[Damaged], None] | None = None
        for segment in segments:
            segment.on_damage = self._quarantine

    def replace(self, old: Sequence[Segment], new: Segment) -> None:
        """Read from `new` what was read from `old`, some neighbours below the last segment.

        They are closed; a slice of theirs that is on its way keeps its file.
        """
        at = self.segments.index(old[0])
        end = at + len(old)
        assert self.segments[at:end] == list(old), "they are no neighbours any more"
        assert old[-1] is not self._active, "the last segment is still written"
        self.segments[at:end] = [new]
        self._bases[at:end] = [new.base_offset]
        new.on_damage = self._quarantine
        new.holes_until = ANYWHERE
        for segment in old:
            segment.close()

    def _quarantine(self, segment: Segment, offset: Offset) -> None:
        """A look has found damage: serve what lies below, answer errors for the rest (I28)."""
        if segment not in self.segments:
            return  # let go of meanwhile
        assert segment.damage is not None, "called for damage"
        self.failed = True
        self.damaged_at = min(self.damaged_at, offset)
        if self.on_damage is not None:
            self.on_damage(Damaged(segment.log.path, segment.damage))

    def read(
        self, offset: Offset, max_bytes: int, bound: LogPosition, *, hollow: bool = False
    ) -> FileSlice | Cold | ErrorCode | None:
        """Whole batches from the one that contains `offset` up to `bound`; one at least.

        None at the bound: nothing there yet. OFFSET_OUT_OF_RANGE outside [start, bound]. Where
        compaction left nothing but batches without records up to the end of a segment, what
        follows is given instead, unless `hollow` ones will do.
        KAFKA_STORAGE_ERROR from where damage was found. Cold: let it be brought, release it, ask
        again. Raises DiskError. A slice never crosses a segment.
        """
        if offset >= self.damaged_at:
            return ErrorCode.KAFKA_STORAGE_ERROR
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
                try:
                    piece = segment.slice(offset, max_bytes, limit, limit_offset)
                except Damaged as error:
                    # Seen in passing, by a header. A look tells from where on, once for all.
                    piece = segment.check(error.position, error.position + 1)
                    if piece is None:
                        raise
                if piece is None and offset < segment.end and segment is not bound.segment:
                    piece = segment.check_end()  # it ends early: compacted, or cut?
                if segment is bound.segment:
                    return piece
                if type(piece) is FileSlice and piece.length <= _HOLLOW_BYTES_MAX and not hollow:
                    return self._past(piece, max_bytes, bound)
                if piece is not None:
                    return piece
        except NotResident as missing:
            return segment.lacking(missing, max_bytes)
        return None

    def _past(
        self, first: FileSlice, max_bytes: int, bound: LogPosition
    ) -> FileSlice | Cold | ErrorCode | None:
        """`first`, or the next piece that has a record in it, if there is one and it has none.

        To librdkafka an answer without any record is one whose first record is larger than what
        was asked for, and it tells its application so.
        """
        piece, at, empty = first, 0, _without_records(first)
        try:
            while empty:
                while self.segments[at].log is not piece.file:
                    at += 1
                segment = self.segments[at]
                if piece.position + piece.length < segment.size:
                    break  # what follows in it is merely too large to come along
                if piece is not first:
                    piece.release()
                behind = None
                if segment.end < bound.offset:
                    behind = self.read(segment.end, max_bytes, bound, hollow=True)
                if isinstance(behind, Cold):
                    first.release()
                    return behind
                if not isinstance(behind, FileSlice):
                    return first
                piece, empty = behind, _without_records(behind)
        except DiskError:
            first.release()
            raise
        if piece is not first:
            first.release()
        return Cold(piece) if empty is None else piece

    def aborted_in(self, offset: Offset, piece: FileSlice) -> list[Aborted] | Cold:
        """The transactions taken back that a reader of `piece`, from `offset` on, must skip.

        In the order of their markers. As in Kafka there may be some that begin a little behind
        the slice: its end is only known as well as the offset index says.
        """
        active = self._active
        if active is not None and active.aborted is None and offset >= active.base_offset:
            return []  # at the end, where most readers are
        at = max(bisect_right(self._bases, offset) - 1, 0)
        segments = self.segments[at:]
        if all(segment.aborted is None for segment in segments):
            return []
        try:
            upper = None
            for segment, after in zip_longest(segments, segments[1:]):
                if segment.log is piece.file:
                    upper = segment.offset_bound(piece.position + piece.length)
                    upper = upper or (segment.end if after is None else after.base_offset)
                    break
            return [] if upper is None else aborted_between(segments, offset, upper)
        except NotResident as missing:
            return Cold(missing.slice())

    def aborted_seals(self) -> dict[Offset, tuple[int, int]]:
        """Which segments have an index of aborted transactions: its entries, their checksum."""
        return {
            segment.base_offset: (segment.aborted.count, segment.aborted.crc)
            for segment in self.segments
            if segment.aborted is not None
        }

    def offset_for_time(self, timestamp: int, bound: LogPosition) -> TimeHit | Cold | None:
        """The first batch below `bound` that holds a record of `timestamp` or later.

        Its records say which one it is: open it off the loop. None if there is no such batch.
        Raises DiskError, as `read` does.
        """
        try:
            for segment in self.segments:
                doubt = segment.doubt(timestamp) if segment.end > self.start else None
                if doubt is not None:
                    return doubt
                if segment.end > self.start and segment.may_hold(timestamp):
                    limit = bound.position if segment is bound.segment else segment.size
                    place = segment.first_since(timestamp, self.start, limit)
                    if place is not None:
                        return _hit(segment, place)
                if segment is bound.segment:
                    break
        except NotResident as missing:
            return segment.lacking_header(missing)
        return None

    def max_timestamp(self) -> TimeHit | Cold | None:
        """The first batch with the largest timestamp in the log (KIP-734); None if it has none.

        Raises DiskError, as `read` does.
        """
        there = [one for one in self.segments if one.end > self.start]
        for segment in there:
            doubt = segment.doubt()
            if doubt is not None:
                return doubt
            if segment.newest_unknown_from is not None:
                raise Damaged(segment.log.path, segment.newest_unknown_from)
        there = [one for one in there if one.max_timestamp >= 0]
        if not there:
            return None
        segment = max(there, key=lambda one: one.max_timestamp)
        try:
            place = segment.locate(segment.max_timestamp_offset, segment.size)
            return None if place is None else _hit(segment, place)
        except NotResident as missing:
            return segment.lacking_header(missing)


def aborted_between(segments: Sequence[Segment], offset: Offset, upper: Offset) -> list[Aborted]:
    """The transactions that were taken back and have a record or a marker in [offset, upper).

    In the order of their markers, which may lie behind `upper`. Raises NotResident, DiskError.
    """
    found: list[Aborted] = []
    for segment in segments:
        if segment.aborted is not None:
            more, complete = segment.aborted.search(offset, upper)
            found += more
            if complete:
                break
    return found


def _hit(segment: Segment, place: Place) -> TimeHit | Cold:
    unchecked = segment.check(place.position, place.position + place.length)
    return unchecked or TimeHit(
        FileSlice(segment.log, place.position, place.length),
        Offset(place.base_offset),
        Offset(place.last_offset),
        place.max_timestamp,
        LeaderEpoch(place.leader_epoch),
    )


def _without_records(piece: FileSlice) -> bool | None:
    """Whether there is no record in it; None if its bytes are not in memory."""
    if piece.length % HEADER_SIZE or piece.length > _HOLLOW_BYTES_MAX:
        return False
    try:
        data = piece.file.read_nowait(piece.position, piece.length)
    except DiskError:
        return None  # whoever brings it in learns of it; raised here, nobody would release `piece`
    if data is None or len(data) < piece.length:
        return None
    view = memoryview(data)
    return all(BatchView(view, at).records_count == 0 for at in range(0, piece.length, HEADER_SIZE))
