"""Removals: files that are no longer part of a log, on their way out.

Owns what directories are called until then, when each file is removed, and how fast: one piece of
work at a time, with a rest after each that is as long as it took, so that a large deletion leaves
the disk to others half of the time. Must not know logs: what comes here is out of use under a name
that says so (`.deleted`, `-delete`), and the next start removes what is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from ottla.core.model import TopicId
from ottla.core.ports import Clock, Disk, DiskError, Step, Timers

Work = Sequence[Step]
_REST_MAX_S = 5.0
_NAME_BYTES_MAX = 255
"""Of a file, on about every file system. A topic's name may have 249."""


def aside_name(directory: str, topic_id: TopicId, suffix: str, taken: set[str]) -> str:
    """What a partition's directory is called once it is out of use, as by Kafka: where that would
    be longer than a file system takes, the topic's name is cut, and the id tells it from others.

    A number is added while the name is `taken`, as it is from then on: a directory of the same id
    may have been put there again.
    """
    above, slash, name = directory.rpartition("/")
    topic, dash, partition = name.rpartition("-")
    raw = topic.encode("utf-8", "surrogateescape")  # somebody may have put any name there
    for number in count(1):
        again = f"_{number}" if number > 1 else ""
        ending = f"{dash}{partition}.{topic_id.hex()}{again}{suffix}"
        cut = raw[: _NAME_BYTES_MAX - len(ending)].decode("utf-8", "surrogateescape")
        aside = cut + ending
        if aside not in taken:
            break
    taken.add(aside)
    return f"{above}{slash}{aside}"


class Removals:
    """What is to be removed from one disk, the earliest due first."""

    __slots__ = (
        "_clock",
        "_disk",
        "_due",
        "_numbers",
        "_timers",
        "_turn",
        "_working",
        "failed",
        "urgent",
    )

    def __init__(self, disk: Disk, clock: Clock, timers: Timers) -> None:
        self._disk = disk
        self._clock = clock
        self._timers = timers
        self.failed: Callable[[DiskError], None] = _nothing
        """Told of what could not be removed; it is not tried again."""
        self._due: list[tuple[float, int, Work]] = []
        self._numbers = count()
        self._working = False
        self.urgent = False
        """Whether the room is needed so much that nothing is kept for its delay."""
        self._turn = 0  # a timer of an earlier turn finds that it was overtaken

    def __len__(self) -> int:
        return len(self._due)

    def add(self, works: Sequence[Work], delay_s: float) -> None:
        """Do these pieces of work, in order, `delay_s` from now or later."""
        at = self._clock.monotonic() + (0.0 if self.urgent else delay_s)
        for work in works:
            heappush(self._due, (at, next(self._numbers), work))
        self._next()

    def hurry(self) -> None:
        """Keep nothing that waits for its delay: the room is needed now."""
        self._due = [(0.0, number, work) for _, number, work in self._due]  # still in order
        self._next()

    def _next(self) -> None:
        if self._working or not self._due:
            return
        self._turn += 1
        turn = self._turn
        wait_s = self._due[0][0] - self._clock.monotonic()
        if wait_s > 0:
            self._timers.after(wait_s, lambda: self._next() if turn == self._turn else None)
            return
        _, _, work = heappop(self._due)
        self._working = True
        began = self._clock.monotonic()
        done = self._disk.perform_aside(work)

        def finish() -> None:
            try:
                done.result()
            except DiskError as error:
                self.failed(error)
            took_s = self._clock.monotonic() - began
            self._timers.after(min(took_s, _REST_MAX_S), go_on)

        def go_on() -> None:
            self._working = False
            self._next()

        done.then(finish)


def _nothing(_error: DiskError) -> None:
    pass
