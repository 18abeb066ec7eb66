"""Where the reading of a segment may begin after a crash, so that not all of it is read again.

Owns the proof that a segment's indexes, which no sync has covered, can be believed up to a place,
and the state of a segment that was read up to there. Blocks: at start only. Must not go past the
recovery point, nor judge batches: `recovery` reads on from where this ends.

An index is written behind its log, each entry once. So what a crash leaves of it is its entries up
to some point, where pages of it may be missing (zeros, which don't rise): entries that all rise are
those that were written. The time index may end sooner than the other. What shows that it doesn't,
up to some batch, is an entry of it for a later one.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right

from ottla.core.model import Offset
from ottla.records.batch import HEADER_SIZE, BatchView
from ottla.storage.index import OFFSET_ENTRY, TIME_ENTRY, SparseIndex
from ottla.storage.scanning import sane
from ottla.storage.segment import Segment


def resume(segment: Segment, certain: Offset) -> BatchView | None:
    """Take a segment as it was behind the last batch that an index leads to; that batch.

    It lies below `certain`, which was on disk. None, and nothing is changed, where there is no such
    batch or no proof: the segment must be read from its beginning.
    """
    offsets = _columns(segment.offsets, OFFSET_ENTRY)
    times = _columns(segment.times, TIME_ENTRY)
    if offsets is None or times is None or not (offsets[1] and times[1]):
        return None
    if offsets[1][0] == 0 or times[0][0] == 0:
        return None  # zeros rise from nothing; the first batch has no entry of its own
    below = min(times[1][-1], certain - segment.base_offset)
    count = bisect_left(offsets[0], below)
    size = segment.log.size()
    while count and offsets[1][count - 1] + HEADER_SIZE > size:
        count -= 1
    if not count:
        return None
    relative, position = offsets[0][count - 1], offsets[1][count - 1]
    first = segment.log.read(0, HEADER_SIZE)
    raw = segment.log.read(position, HEADER_SIZE)
    batch = BatchView(memoryview(raw))
    if not sane(batch) or batch.last_offset != segment.base_offset + relative:
        return None
    if position + batch.length > size:
        return None
    kept = bisect_right(times[1], relative)
    segment.offsets.keep(count, (relative, position))
    segment.times.keep(kept, (times[0][kept - 1], times[1][kept - 1]) if kept else None)
    segment.resumed(batch, position, BatchView(memoryview(first)).max_timestamp)
    return batch


def _columns(index: SparseIndex, entry: struct.Struct) -> tuple[list[int], list[int]] | None:
    """All entries of an index as two columns; None unless both rise from entry to entry."""
    raw = index.file.read(0, index.count * entry.size)
    if len(raw) != index.count * entry.size:
        return None
    if not raw:
        return [], []
    left, right = map(list, zip(*entry.iter_unpack(raw), strict=True))
    for column in (left, right):
        if any(map(int.__ge__, column, column[1:])):
            return None
    return left, right
