"""Which log to compact next, how much of it, and which segments become one.

Owns Kafka's arithmetic (LogCleanerManager, Cleaner.groupSegmentsBySize). Pure: logs and times in,
decisions out. Must not change a log.

A log is its clean part, up to where the last round came, then its dirty part, then what may not be
compacted: the last segment, what readers may not see yet or not as committed, what is too young.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ottla.core.model import Offset, TopicPartition
from ottla.storage.cleaner.filtering import LastBatch
from ottla.storage.cleaner.round import Piece, Plan
from ottla.storage.index import OFFSET_ENTRY, TIME_ENTRY
from ottla.storage.log import Log
from ottla.storage.producers import ProducerStates
from ottla.storage.reading import LogPosition
from ottla.storage.segment import POSITION_MAX, Segment


class Dirt(NamedTuple):
    """What there is to compact in one log. Sizes in bytes; the offsets are segments' or cleaner's.

    `overdue`: something in it has waited for longer than max.compaction.lag.ms.
    """

    first_dirty: Offset
    upper: Offset
    clean_bytes: int
    dirty_bytes: int
    overdue: bool

    @property
    def ratio(self) -> float:
        return self.dirty_bytes / (self.clean_bytes + self.dirty_bytes)


class Candidate(NamedTuple):
    """A log that is due."""

    partition: TopicPartition
    log: Log
    dirt: Dirt


def dirt_of(
    log: Log, cleaned_to: Offset | None, bounds: Sequence[LogPosition], now_ms: int
) -> Dirt | None:
    """What could be compacted of a log; None if it has no segments but its last.

    `cleaned_to` is where the last round came, if there was one. Nothing at or behind one of the
    `bounds` is touched, nor the segment in which one lies: readers find their end by it.
    """
    segments = log.segments[:-1]
    if not segments or not log.usable:
        return None
    first_dirty = log.start if cleaned_to is None else cleaned_to
    if not log.start <= first_dirty <= log.end:
        first_dirty = log.start
    dirty = [one for one in segments if one.end > first_dirty]
    upper = _upper(log, dirty, bounds, now_ms)
    clean_bytes = sum(one.size for one in segments if one.base_offset < first_dirty)
    dirty_bytes = sum(one.size for one in dirty if one.base_offset < upper)
    if clean_bytes + dirty_bytes == 0:
        return None
    return Dirt(
        first_dirty,
        max(first_dirty, upper),
        clean_bytes,
        dirty_bytes,
        _is_overdue(dirty, log.settings.max_compaction_lag_ms, now_ms),
    )


def _upper(
    log: Log, dirty: Sequence[Segment], bounds: Sequence[LogPosition], now_ms: int
) -> Offset:
    """The first segment's offset that may not be compacted."""
    ends = [log.recovery_point, *(bound.offset for bound in bounds)]
    ends += [bound.segment.base_offset for bound in bounds if bound.segment is not None]
    lag_ms = log.settings.min_compaction_lag_ms
    if lag_ms > 0:
        young = (one for one in dirty if _newest_ms(one) > now_ms - lag_ms)
        ends += [one.base_offset for one in young][:1]
    end = min(ends)
    bases = [one.base_offset for one in log.segments if one.base_offset <= end]
    return bases[-1] if bases else log.segments[0].base_offset


def _newest_ms(segment: Segment) -> int:
    return segment.max_timestamp if segment.max_timestamp >= 0 else segment.created_ms


def _is_overdue(dirty: Sequence[Segment], lag_ms: int, now_ms: int) -> bool:
    times = [one.first_timestamp for one in dirty if one.first_timestamp is not None]
    oldest = min((time for time in times if time > 0), default=None)
    return oldest is not None and oldest < now_ms - lag_ms


def is_due(log: Log, dirt: Dirt) -> bool:
    """Whether it is worth a round."""
    if dirt.overdue and dirt.dirty_bytes > 0:
        return True
    return dirt.ratio > log.settings.min_cleanable_ratio


def filthiest(candidates: Iterable[Candidate]) -> Candidate | None:
    """The one with the largest share to compact."""
    return max(candidates, key=lambda one: one.dirt.ratio, default=None)


def plan_for(candidate: Candidate, now_ms: int, buffer_bytes: int, decompressed_max: int) -> Plan:
    """What a worker must know for a round."""
    log, dirt = candidate.log, candidate.dirt
    return Plan(
        directory=log.directory,
        pieces=[piece_of(one) for one in log.segments if one.base_offset < dirt.upper],
        first_dirty=dirt.first_dirty,
        upper=dirt.upper,
        aborted_in=[one.base_offset for one in log.segments if one.aborted is not None],
        producers=_last_batches(log.producers, dirt.upper),
        now_ms=now_ms,
        delete_retention_ms=log.settings.delete_retention_ms,
        index_interval_bytes=log.settings.index_interval_bytes,
        buffer_bytes=buffer_bytes,
        decompressed_max=decompressed_max,
    )


def piece_of(segment: Segment) -> Piece:
    """A segment as a worker sees it."""
    return Piece(segment.base_offset, segment.size, segment.end)


def _last_batches(producers: ProducerStates, upper: int) -> dict[int, LastBatch]:
    """The producers' last batches, where those may lie in what is compacted."""
    return {
        entry[0]: LastBatch(entry[3], entry[1]) for entry in producers.entries() if entry[3] < upper
    }


def grouped(log: Log, known_to: Offset, upper: Offset) -> list[list[Segment]]:
    """The segments that a round writes anew, in groups that each fit into one.

    As many small ones as segment.bytes, the indexes' size and their 32 bits allow.
    """
    settings = log.settings
    groups: list[list[Segment]] = []
    size = entries = times = 0
    for one in log.segments[:-1]:
        if one.base_offset >= min(known_to, upper):
            break
        size += one.size
        entries += one.offsets.count * OFFSET_ENTRY.size
        times += one.times.count * TIME_ENTRY.size
        fits = (
            groups
            and size <= min(settings.segment_bytes, POSITION_MAX)
            and max(entries, times) <= settings.segment_index_bytes
            and one.end - 1 - groups[-1][0].base_offset <= POSITION_MAX
        )
        if fits:
            groups[-1].append(one)
        else:
            groups.append([one])
            size, entries = one.size, one.offsets.count * OFFSET_ENTRY.size
            times = one.times.count * TIME_ENTRY.size
    return [group for group in groups if any(one.size for one in group)]
