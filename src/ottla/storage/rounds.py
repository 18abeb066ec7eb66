"""Sync rounds: how what was appended gets onto the disk, many logs at a time.

Owns the one round that is in flight for a log directory, what waits for the next, and what happens
when a sync fails. Must not know partitions or requests: a log is told how far it is durable.

A round covers every file appended to since the last one, and every directory with new names. It
gathers what arrives while the last one runs, and no less: the sync itself is what costs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, File, Timers

FlushPolicy: TypeAlias = Literal["commit", "os"]


class Covered(NamedTuple):
    """What a round does for one log: sync these, then call `synced`."""

    files: list[File]
    directories: list[str]
    synced: Callable[[], None]


class Syncable(Protocol):
    """A log, as rounds see it."""

    def begin_sync(self) -> Covered:
        """What is not yet durable; the log counts later changes as the next round's."""


class Rounds:
    """The rounds of one log directory. After a failed one there is none any more (I30)."""

    __slots__ = (
        "_disk",
        "_idle",
        "_next",
        "_remembered",
        "_running",
        "_scheduled",
        "_timers",
        "_waiting",
        "failure",
        "offline",
        "policy",
        "rounds_count",
        "syncs_count",
    )

    def __init__(self, disk: Disk, timers: Timers, policy: FlushPolicy) -> None:
        self.policy: FlushPolicy = policy
        self.failure: DiskError | None = None
        self.offline: Callable[[DiskError], None] | None = None
        """Called once, when a sync fails: nothing that was not durable will be."""
        self.rounds_count = 0
        self.syncs_count = 0
        self._disk = disk
        self._timers = timers
        self._next: dict[Syncable, None] = {}
        self._remembered: dict[Syncable, None] = {}
        self._scheduled = False
        self._running = False
        self._idle: list[Callable[[], None]] = []
        self._waiting: list[Pending[None]] = []  # for the next round

    def dirty(self, log: Syncable) -> None:
        """A log was appended to. Under `os` it is only remembered, for `sync_all`."""
        if self.policy == "commit":
            self.request(log)
        else:
            self._remembered[log] = None

    def request(self, log: Syncable) -> None:
        """Let the next round cover this log, whatever the policy."""
        self._remembered.pop(log, None)
        self._next[log] = None
        self._schedule()

    def request_after(self, log: Syncable, delay_s: float) -> None:
        """Let a round cover what is appended now at most `delay_s` later (flush.ms)."""

        def due() -> None:
            if log in self._remembered:
                self.request(log)

        self._timers.after(delay_s, due)

    def sync_all(self) -> Pending[None]:
        """Have all that was appended so far made durable; done when it is. Fails with DiskError."""
        pending: Pending[None] = Pending()
        self._next |= self._remembered
        self._remembered.clear()
        if self.failure is not None:
            self._settle([pending])
        elif self._next:
            self._waiting.append(pending)
            self._schedule()
        else:
            self.when_idle(lambda: self._settle([pending]))
        return pending

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call as soon as no round is in flight: at once, or when the present one ends."""
        if self._running:
            self._idle.append(call)
        else:
            call()

    def forget(self, log: Syncable) -> None:
        """A log that is closed or gone needs no round."""
        self._next.pop(log, None)
        self._remembered.pop(log, None)

    def _settle(self, waiting: list[Pending[None]]) -> None:
        for pending in waiting:
            if self.failure is not None:
                pending.fail(self.failure)
            else:
                pending.complete(None)

    def _schedule(self) -> None:
        if not (self._scheduled or self._running or self.failure):
            self._scheduled = True
            self._timers.soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self._running or self.failure is not None:
            return
        if not self._next:  # whoever was to be synced is gone
            waiting, self._waiting = self._waiting, []
            self._settle(waiting)
            return
        covered = [log.begin_sync() for log in self._next]
        self._next.clear()
        waiting, self._waiting = self._waiting, []
        self._running = True
        self.rounds_count += 1
        files = [file for one in covered for file in one.files]
        self.syncs_count += len(files)
        directories = dict.fromkeys(path for one in covered for path in one.directories)
        for file in files:
            file.retain()  # against close and deletion: a descriptor must not be reused meanwhile
        pending = self._disk.sync(files, list(directories))

        def finish() -> None:
            self._running = False
            for file in files:
                file.release()
            # A log that raises when it is told is a bug of ours, and nobody else must wait for
            # ever because of it: all of this is called, last first, and then the bug is raised.
            with ExitStack() as rest:
                rest.callback(self._settle_all, waiting)
                rest.callback(self._go_on)
                self._conclude(pending, covered, rest)

        pending.then(finish)

    def _conclude(self, pending: Pending[None], covered: list[Covered], rest: ExitStack) -> None:
        try:
            pending.result()
        except DiskError as error:
            # The kernel reports a lost write once. Asking again would succeed and mean nothing,
            # so there is no second try: see I30 and what PostgreSQL learned in 2018.
            self.failure = error
            if self.offline is not None:
                self.offline(error)
        else:
            for one in reversed(covered):
                rest.callback(one.synced)

    def _go_on(self) -> None:
        if self._next:
            self._schedule()
        idle, self._idle = self._idle, []
        for call in idle:
            call()

    def _settle_all(self, waiting: list[Pending[None]]) -> None:
        self._settle(waiting)
        if self.failure is not None:
            waiting, self._waiting = self._waiting, []
            self._settle(waiting)
