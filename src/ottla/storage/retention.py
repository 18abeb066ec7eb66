"""What retention no longer covers, by Kafka's rules, and what time it is for that.

Owns the decision which segments of a log go, and the clock that it goes by. Must not delete
anything: `Starts.move` does. Pure but for the clock's memory. Why the wall clock is not
taken at its word: docs/design/0007-retention.md.
"""

from __future__ import annotations

from typing import NamedTuple

from ottla.core.model import Offset
from ottla.core.ports import Clock, Uptime
from ottla.storage.log import Log
from ottla.storage.segment import Segment

STEP_MAX_MS = 10_000
"""The wall clock may differ by this much from what time has passed before it has jumped."""

_STOPPED_MAX_MS = 86_400_000


class RetentionClock:
    """The time that retention goes by: the wall clock, unless that has jumped ahead.

    While it has, time goes on as if it had not, for `settle_ms`: if the wall clock is steady until
    then, it is believed. A wall clock that is behind is followed at once, since that keeps more.
    """

    __slots__ = (
        "_clock", "_jumped", "_offset_ms", "_since_s", "_started", "_uptime", "settle_ms",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, uptime: Uptime, settle_ms: int, last_known_ms: int | None
    ) -> None:
        """`last_known_ms` is what `now_ms` was when it was last written down; None: never."""
        self._clock = clock
        self._uptime = uptime
        self.settle_ms = settle_ms
        wall_ms = clock.wall_ms()
        begin_ms = wall_ms if last_known_ms is None else min(last_known_ms, wall_ms)
        self._offset_ms = begin_ms - self._boot_ms()
        """Wall time minus uptime, as it was believed last."""
        self._jumped: int | None = None
        """The offset that the wall clock has had since `_since_s`, if it is another one."""
        self._since_s = 0.0
        self._started = False

    def _boot_ms(self) -> int:
        return int(self._uptime.since_boot() * 1000)

    def look(self) -> str | None:
        """Look at the wall clock; what an operator should know of it, if it is news.

        To be called more often than it could drift by ten seconds: every few minutes.
        """
        starting, self._started = not self._started, True
        now_s = self._uptime.since_boot()
        offset_ms = self._clock.wall_ms() - self._boot_ms()
        ahead_ms = offset_ms - self._offset_ms
        if abs(ahead_ms) <= STEP_MAX_MS:
            self._offset_ms = offset_ms  # a clock that is set right bit by bit
            was, self._jumped = self._jumped, None
            return "the wall clock is back where it was" if was is not None else None
        if self._jumped is None or abs(offset_ms - self._jumped) > STEP_MAX_MS:
            self._jumped, self._since_s = offset_ms, now_s
            if ahead_ms < 0:
                return f"the wall clock has gone back by {_hours(-ahead_ms)}"
            if starting and ahead_ms < _STOPPED_MAX_MS:
                return None  # as long as a node may be stopped without anybody wondering
            return (
                f"the wall clock is ahead of the time that has passed by {_hours(ahead_ms)}: "
                f"retention goes by the time before that until it has been steady for "
                f"{_hours(self.settle_ms)}. If the clock is wrong, set it right before then"
            )
        self._jumped = offset_ms
        if (now_s - self._since_s) * 1000 < self.settle_ms:
            return None
        self._offset_ms, self._jumped = offset_ms, None
        return "the wall clock has been steady since it was set: retention goes by it again"

    def behind_ms(self) -> int:
        """By how much `now_ms` is behind the wall clock."""
        return self._clock.wall_ms() - self.now_ms()

    def now_ms(self) -> int:
        """Milliseconds since 1970: never ahead of the wall clock, nor of what it can be."""
        return min(self._clock.wall_ms(), self._boot_ms() + self._offset_ms)


def _hours(milliseconds: int) -> str:
    return f"{milliseconds / 3_600_000:.3g} h"


class Verdict(NamedTuple):
    """What retention asks for. `roll`: the last segment is to go too, so it must be closed first.

    `future_ms` is how far the latest timestamp that kept a segment lies ahead of now; 0: none does.
    """

    start: Offset
    roll: bool
    future_ms: int
    doubted: Segment | None = None
    """Of this one an index alone says that it is old enough to go: have it looked at, ask again."""


def judge(log: Log, now_ms: int, bound: Offset) -> Verdict:
    """Where a log should begin, at `bound` at the latest (its high watermark).

    As Kafka: first by size, while what goes leaves no less than `retention.bytes`; then by the
    largest timestamp of each segment, up to the first that is young enough. Without timestamps,
    since when there is the segment.
    """
    settings = log.settings
    segments = log.segments
    count = 0
    future_ms = 0
    doubted = None
    if settings.retention_bytes >= 0:
        excess = log.size - settings.retention_bytes
        while count < len(segments) and _end(log, count) <= bound:
            excess -= segments[count].size
            if excess < 0:
                break
            count += 1
    if settings.retention_ms >= 0:
        while count < len(segments) and _end(log, count) <= bound:
            age_ms = now_ms - _last_ms(segments[count])
            if age_ms <= settings.retention_ms:
                future_ms = max(-age_ms, 0)
                break
            if segments[count].doubted is not None:
                doubted = segments[count]
                break
            count += 1
    roll = count > 0 and count == len(segments)
    if roll:
        count -= 1
        roll = segments[count].size > 0
    start = segments[count].base_offset if count else log.start
    return Verdict(max(start, log.start), roll, future_ms, doubted)


def _end(log: Log, at: int) -> Offset:
    segments = log.segments
    return segments[at + 1].base_offset if at + 1 < len(segments) else log.end


def _last_ms(segment: Segment) -> int:
    return segment.max_timestamp if segment.max_timestamp >= 0 else segment.created_ms
