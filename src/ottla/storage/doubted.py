"""What a time index says of the largest timestamp in a segment, held against its batches.

Owns the look and what counts as proof. Must not read on the loop: `look` runs on a thread of the
disk. Nothing is looked at when a log is opened, but the first time that it matters.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, File
from ottla.storage.checked import Cold
from ottla.storage.scanning import batches

if TYPE_CHECKING:
    from ottla.storage.segment import Segment


class Newest(NamedTuple):
    """The first batch with the largest timestamp: -1 and no offsets if none has one."""

    timestamp: int
    base_offset: int
    last_offset: int
    end: int
    """Up to here there were batches that could be read."""


def look(start: int, limit: int, file: File) -> Newest:
    """The newest of the batches from `start` to `limit`, by their headers. Blocks."""
    newest, base, last, end = -1, -1, -1, start
    try:
        for batch, at in batches(file, start, limit, whole=False):
            if batch.max_timestamp > newest:
                newest, base, last = batch.max_timestamp, batch.base_offset, batch.last_offset
            end = at + batch.length
    except DiskError:
        pass  # what lies before it may be proof enough
    return Newest(newest, base, last, end)


class Doubted(Cold):
    """Batches that show whether an index is right about the largest timestamp."""

    __slots__ = ("_limit", "_segment", "_start")

    def __init__(self, segment: Segment, start: int, limit: int) -> None:
        super().__init__(FileSlice(segment.log, start, max(limit - start, 0)))
        self._segment = segment
        self._start = start
        self._limit = limit

    def bring(self, disk: Disk) -> Pending[None]:
        """Look at them, at all from the segment's start on if they say something else."""
        result: Pending[None] = Pending()
        self._look(disk, self._start, result)
        return result

    def _look(self, disk: Disk, start: int, result: Pending[None]) -> None:
        looking = disk.examine(self.slice.file, partial(look, start, self._limit))

        def note() -> None:
            try:
                newest = looking.result()
            except DiskError as error:
                result.fail(error)
                return
            segment, doubted = self._segment, self._segment.doubted
            if doubted is not None:  # neither closed meanwhile, nor looked at by somebody else
                offset = segment.base_offset + doubted[1]
                is_there = newest.base_offset <= offset <= newest.last_offset
                if newest.timestamp == doubted[0] and (is_there or doubted[0] < 0):
                    segment.doubted = None
                elif start:
                    self._look(disk, 0, result)
                    return
                else:
                    _disbelieve(segment, newest, self._limit)
            result.complete(None)

        looking.then(note)


def _disbelieve(segment: Segment, newest: Newest, limit: int) -> None:
    """Go by the batches that were here at the start: they don't bear the index out."""
    segment.doubted = None
    segment.times.clear()
    whole = newest.end >= limit
    if whole:
        with suppress(DiskError):  # the next start makes it anew
            segment.times.file.truncate(0)
    else:
        segment.newest_unknown_from = newest.end
    # Where not all could be read the index may be right: retention then keeps what is younger.
    if newest.timestamp >= segment.max_timestamp or (whole and segment.size == limit):
        segment.max_timestamp = newest.timestamp
        segment.max_timestamp_offset = max(newest.last_offset, segment.base_offset)
