"""What of a segment is known to be sound, and the look at the rest before it is first served.

Owns the ranges that were looked at and the rule of what is sound. Must not read on the loop: `look`
runs on a thread of the disk, and what it returns is noted on the loop (I29).

What this process wrote itself needs no look. What it found in the files is read through once, the
first time that somebody wants it; from then on it is sent by sendfile as ever.

The checksum covers neither base offset nor leader epoch. In a log without holes the offsets
around a batch leave it no other place. Where compaction has been, one that skips ahead is believed
only when the next one leaves room for it, and may be wrong within the hole before it; a leader
epoch may be wrong between its neighbours': Kafka's format has nothing that would tell.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, File
from ottla.records.batch import CRC_START, HEADER_SIZE, LOG_OVERHEAD, MAGIC
from ottla.records.crc import crc32c
from ottla.storage.read_ahead import ReadAhead, bring_in, is_news

if TYPE_CHECKING:
    from ottla.storage.segment import Segment

AHEAD_BYTES = 2 << 20
"""How far a look goes at least, so that small reads don't each pay for one."""
ANYWHERE = 1 << 63
"""Past every offset: there may be holes anywhere."""
_CHUNK = 1 << 20
_SPANS_MAX = 256

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta.
_HEAD = struct.Struct(">qiibIhi")


class Region(NamedTuple):
    """What to look at: from a batch's start up to `wanted`, or a little further."""

    start: int
    wanted: int
    limit: int
    """Where batches must end at the latest: a batch's end too."""
    expected: int
    """The first batch's base offset is this one or a later one."""
    first_last: int
    """What an index says is the first batch's last offset; -1 if `expected` is certain."""
    offset_limit: int
    """The offset at `limit`."""
    holes_until: int
    """Below this offset there may be holes, which compaction left; above it they are damage."""


class Seen(NamedTuple):
    """What a look found: all is sound up to `end`, where `next_offset` would come next."""

    end: int
    next_offset: int
    sound: bool
    """Whether it could have gone on: False if the bytes at `end` are not a batch's."""
    first_fits: bool = True
    """False if the first batch is not the one that the index promised."""


def look(region: Region, file: File) -> Seen:
    """Read a region's batches and compute their checksums. Blocks. Raises DiskError.

    Nothing behind what is wanted is read, but for the rest of its last batch and one header more.
    A batch behind a hole is sound once the next one, or the limit, leaves room for it.
    """
    position, expected = region.start, region.expected
    sure, sure_offset = position, expected
    epoch, sure_epoch = -1, -1
    chunk, chunk_at = memoryview(b""), position
    first_last = region.first_last
    while position < region.limit and sure < region.wanted:
        at = position - chunk_at
        if at + HEADER_SIZE > len(chunk):
            count = min(_CHUNK, max(region.wanted - position, HEADER_SIZE))
            chunk, chunk_at, at = memoryview(file.read(position, count)), position, 0
            if len(chunk) < HEADER_SIZE:
                return Seen(sure, sure_offset, False, first_last < 0)
        base, size, of_epoch, magic, crc, _, delta = _HEAD.unpack_from(chunk, at)
        length = size + LOG_OVERHEAD
        if length < HEADER_SIZE or position + length > region.limit or magic != MAGIC or delta < 0:
            return Seen(sure, sure_offset, False, first_last < 0)
        if first_last >= 0:
            if base + delta != first_last:
                return Seen(sure, sure_offset, sound=False, first_fits=False)
            expected, first_last = base, -1
            sure_offset = base
        if base < expected or of_epoch < epoch or (base > expected and base > region.holes_until):
            return Seen(sure, sure_offset, sound=False)
        if position > sure:
            sure, sure_offset, sure_epoch = position, expected, epoch  # there was room
            if sure >= region.wanted:
                break
        if at + length > len(chunk):
            count = max(min(_CHUNK, region.wanted - position), length)
            chunk, chunk_at, at = memoryview(file.read(position, count)), position, 0
            if len(chunk) < length:
                return Seen(sure, sure_offset, sound=False)
        if crc32c(chunk[at + CRC_START : at + length]) != crc:
            return Seen(sure, sure_offset, sound=False)
        goes_on = base == expected and of_epoch == sure_epoch
        position += length
        expected, epoch = base + delta + 1, of_epoch
        if goes_on:
            sure, sure_offset = position, expected
    if sure < region.wanted:
        if expected > region.offset_limit:
            return Seen(sure, sure_offset, sound=False)
        sure, sure_offset = position, expected
    whole = position < region.limit or not expected < region.offset_limit > region.holes_until
    return Seen(sure, sure_offset, sound=whole)


class Spans:
    """Ranges of a segment that were looked at: (start, end, the offset at its end), rising."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int]] = []

    def before(self, position: int) -> tuple[int, int, int] | None:
        """The last range that begins at or before `position`."""
        at = bisect_right(self._spans, (position, 1 << 62))
        return self._spans[at - 1] if at else None

    def add(self, start: int, end: int, next_offset: int) -> None:
        """Remember a range; those that touch become one. The first is forgotten past a limit."""
        if end <= start:
            return
        kept = []
        for one in self._spans:
            if one[1] < start or one[0] > end:
                kept.append(one)
            else:
                start = min(start, one[0])
                if one[1] > end:
                    _, end, next_offset = one
        kept.append((start, end, next_offset))
        kept.sort()
        self._spans = kept[-_SPANS_MAX:]


class Cold:
    """An answer that must be read from the disk first. Whoever gets it releases `slice`."""

    __slots__ = ("needed", "slice")

    def __init__(self, piece: FileSlice, needed: int | None = None) -> None:
        """Without the first `needed` bytes there is no answer; the rest is what follows them."""
        self.slice = piece
        self.needed = piece.length if needed is None else needed

    def bring(self, disk: Disk) -> Pending[None]:
        """Do what the answer waits for; ask again when it is done. Fails with DiskError."""
        return bring_in(disk, self.slice, self.needed)


class Absent(Cold):
    """An answer of which the memory lacks pages, or may lack them in a moment."""

    __slots__ = ("_segment",)

    def __init__(self, segment: Segment, piece: FileSlice, needed: int | None = None) -> None:
        super().__init__(piece, needed)
        self._segment = segment

    def bring(self, disk: Disk) -> Pending[None]:
        """Bring it in and what lies behind it: who reads old records will want that next."""
        segment = self._segment
        if segment.ahead is None:
            segment.ahead = ReadAhead(disk)
        return segment.ahead.bring(self.slice, self.needed, segment.size)


class Unchecked(Cold):
    """An answer whose bytes nobody has looked at since they were found in the file."""

    __slots__ = ("_region", "_segment")

    def __init__(self, segment: Segment, piece: FileSlice, region: Region, needed: int) -> None:
        super().__init__(piece, needed)
        self._segment = segment
        self._region = region

    def bring(self, disk: Disk) -> Pending[None]:
        """Look at them, which warms them too. Damage is the log's to answer, when asked again.

        An unreadable sector keeps nobody from what lies before it: then no more than is needed.
        """
        result: Pending[None] = Pending()
        self._look(disk, self._region, self.slice.file.unreadable, result)
        return result

    def _look(
        self, disk: Disk, region: Region, known: tuple[int, ...], result: Pending[None]
    ) -> None:
        file = self.slice.file
        looking = disk.examine(file, partial(look, region))

        def note() -> None:
            try:
                seen = looking.result()
            except DiskError as error:
                needed = region.start + self.needed
                if is_news(file, known, region.start, needed):
                    result.complete(None)  # who asks again is given what lies before it
                elif needed < region.wanted:
                    self._look(disk, region._replace(wanted=needed), known, result)
                else:
                    result.fail(error)
            else:
                self._segment.looked_at(region, seen)
                result.complete(None)

        looking.then(note)


def region_for(segment: Segment, position: int, end: int) -> Region | None:
    """What must be looked at before `position` to `end` may be served; None if nothing.

    Raises NotResident. It begins where something vouches for the first offset: the end of a
    range that was looked at, an index entry, or the segment's start.
    """
    limit = segment.checked_from
    wanted = min(end, limit)
    start, expected, first_last = 0, int(segment.base_offset), -1
    span = segment.spans.before(position)
    if span is not None:
        if span[1] >= wanted:
            return None
        start, expected = span[1], span[2]
    if start < position:
        found = segment.offsets.floor(position, 1)
        if found is not None and start < found[1][1] <= position:
            start, first_last = found[1][1], segment.base_offset + found[1][0]
            expected = int(segment.base_offset)
    ahead = start + AHEAD_BYTES
    if any(wanted <= at < ahead for at in segment.log.unreadable):
        ahead = wanted
    return Region(
        start,
        min(max(wanted, ahead), limit),
        limit,
        expected,
        first_last,
        int(segment.checked_end),
        segment.holes_until,
    )
