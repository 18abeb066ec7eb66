"""A parked request in its place among a connection's answers, until it is to be resumed.

Owns that it becomes ready once, on completion or at its deadline, whichever comes first. Must not
know who resumes it: a driver of sockets, or a simulated one.
"""

from __future__ import annotations

from ottla.core.ports import Timer, Timers
from ottla.handlers.reply import Parked
from ottla.protocol.connection import Slot


class Waiting(Slot):
    """What waits in a slot; `ready` is for who parked it to say."""

    __slots__ = ("_timer", "is_ready", "parked")

    def __init__(self, parked: Parked) -> None:
        super().__init__()
        self.parked = parked
        self.is_ready = False
        self._timer: Timer | None = None

    def ready(self) -> None:
        """Have it resumed soon: never at once, since this may run inside another handler."""
        raise NotImplementedError

    def wait(self, timers: Timers) -> None:
        """Be called on completion or deadline, whichever comes first."""
        self.is_ready = False
        parked = self.parked
        if parked.deadline_s is not None:
            self._timer = timers.after(parked.deadline_s, self._expired)
        parked.pending.then(self._now)

    def abandon(self) -> None:
        """The connection is gone: nobody waits any more."""
        self._stop_timer()
        self.parked.pending.abandon()
        if self.parked.abandon is not None:
            self.parked.abandon()

    def _expired(self) -> None:
        self._timer = None
        self.parked.pending.abandon()
        self._now()

    def _now(self) -> None:
        assert not self.is_ready, "a parked request becomes ready once"
        self.is_ready = True
        self._stop_timer()
        self.ready()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
