"""The scrubber: rereads what lies in the logs, slowly, so that damage is found before it is needed.

Owns the order and the pace: one piece at a time, on a thread of the disk, and then a rest that
keeps to the bytes a second that are allowed. Must not judge: a look does (`checked`), and the
segment learns what it found, as when a consumer had asked for those bytes. The last segment of a
log is left out, but for what was in it before this process: the rest was just written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, Timers
from ottla.storage.checked import Region, Seen, look
from ottla.storage.log import Log
from ottla.storage.segment import Segment

PIECE_BYTES = 1 << 20
_IDLE_S = 60.0
_FIRST_S = 3600.0
"""After a start the first pass begins within an hour, or a broker that is restarted each week would
never come to one."""


class Scrubber:
    """Passes over all logs, one after the other, `pause_s` apart; none while that is 0."""

    __slots__ = (
        "_disk",
        "_due_s",
        "_failed",
        "_logs",
        "_pause_s",
        "_rate",
        "_region",
        "_timers",
        "_todo",
        "bytes_read",
        "passes",
        "stopped",
    )

    def __init__(
        self,
        disk: Disk,
        timers: Timers,
        logs: Callable[[], Iterable[Log]],
        pace: tuple[Callable[[], float], Callable[[], int]],
        failed: Callable[[DiskError], None],
    ) -> None:
        """`pace`: seconds from the start, or the end of a pass, to the next; bytes a second."""
        self._disk = disk
        self._timers = timers
        self._logs = logs
        self._pause_s, self._rate = pace
        self._failed = failed
        self._todo: list[tuple[Log, Segment]] = []
        self._region: Region | None = None
        self._due_s = 0.0
        self.bytes_read = 0
        self.passes = 0
        self.stopped = False

    def start(self) -> None:
        """Wait for the first pass."""
        self._rest(_IDLE_S)

    def stop(self) -> None:
        """Begin nothing more."""
        self.stopped = True
        self._todo.clear()

    def _rest(self, seconds: float) -> None:
        self._timers.after(seconds, self._go_on)

    def _go_on(self) -> None:
        if self.stopped:
            return
        if not self._todo:
            self._wait_for_the_next_pass()
            return
        log, segment = self._todo[-1]
        region = self._next_region(log, segment)
        if region is None:
            self._todo.pop()
            self._region = None
            if not self._todo:
                self.passes += 1
            self._timers.soon(self._go_on)
            return
        self._region = region
        piece = FileSlice(segment.log, region.start, region.wanted - region.start)
        looking = self._disk.examine(segment.log, partial(look, region))
        looking.then(partial(self._looked, segment, piece, looking))

    def _wait_for_the_next_pass(self) -> None:
        pause_s = self._pause_s()
        self._due_s += _IDLE_S
        if self.passes == 0:
            pause_s = min(pause_s, _FIRST_S)
        if pause_s and self._due_s >= pause_s:
            self._due_s = 0.0
            self._todo = [(log, segment) for log in self._logs() for segment in log.segments]
            self._todo.reverse()
        if self._todo:
            self._timers.soon(self._go_on)
        else:
            self._rest(_IDLE_S)

    def _next_region(self, log: Log, segment: Segment) -> Region | None:
        """The piece behind the last one; None if the segment is through, gone or damaged."""
        if log.closed or segment not in log.segments or segment.damage is not None:
            return None
        last = segment is log.segments[-1]
        limit, end = segment.size, int(segment.end)
        if last:
            limit, end = segment.checked_from, int(segment.checked_end)
        start, expected = 0, int(segment.base_offset)
        if self._region is not None:
            start, expected = self._region.start, self._region.expected
        if start >= limit:
            return None
        wanted = min(start + PIECE_BYTES, limit)
        return Region(start, wanted, limit, expected, -1, end, segment.holes_until)

    def _looked(self, segment: Segment, piece: FileSlice, looking: Pending[Seen]) -> None:
        piece.release()
        region = self._region
        assert region is not None, "a piece was looked at"
        try:
            seen = looking.result()
        except DiskError as error:
            self._failed(error)
            seen = Seen(region.limit, region.offset_limit, sound=True)  # nobody can say: go on
        else:
            segment.looked_at(region, seen)
        count = max(seen.end - region.start, 1)
        self.bytes_read += count
        self._region = region._replace(start=seen.end, expected=seen.next_offset)
        self._rest(count / max(self._rate(), 1))
