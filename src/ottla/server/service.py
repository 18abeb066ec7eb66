"""What all connections of a node share, and the requests of theirs that wait.

Owns when a completion is taken up: it only takes note, and what is ready is resumed together soon
after. Must not touch a socket, nor know any message.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ottla.core.complaints import Complaints
from ottla.core.metrics import SentTally
from ottla.core.ports import Clock, Timer, Timers
from ottla.handlers.reply import Dispatcher, Parked
from ottla.protocol.connection import ConnectionLimits, ReceiveMemory, Slot
from ottla.server.poller import Readiness
from ottla.server.transfer import COPYING

if TYPE_CHECKING:
    from ottla.server.driver import Driver


class Service:
    """What all drivers of a node share, and the one place where completions become answers.

    A completion only takes note; a single `call_soon` then resumes all that are ready and writes
    once per connection. So `resume` never runs inside another handler.
    """

    def __init__(  # noqa: PLR0913  # the composition root passes each by name
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        dispatcher: Dispatcher,
        clock: Clock,
        timers: Timers,
        limits: ConnectionLimits,
        memory: ReceiveMemory,
        portable: bool = COPYING,
        complaints: Complaints | None = None,
        readiness: Readiness | None = None,
        sent: SentTally | None = None,
    ) -> None:
        """`readiness` is the loop's own if None is given. `sent` counts bytes of logs."""
        self.loop = loop
        self.readiness: Readiness = readiness or loop
        self.dispatch = dispatcher.dispatch
        self.resume = dispatcher.resume
        self.monotonic = clock.monotonic
        self.timers = timers
        self.limits = limits
        self.memory = memory
        self.portable = portable
        self.sent = sent or SentTally()
        self.complaints = complaints or Complaints(clock)
        self._ready: list[Waiting] = []
        self._again: list[Driver] = []
        self._scheduled = False

    def ready(self, waiting: Waiting) -> None:
        """Have a parked request resumed soon."""
        self._ready.append(waiting)
        self._schedule()

    def again(self, driver: Driver) -> None:
        """Have a driver look soon at what it left lying."""
        self._again.append(driver)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        ready, self._ready = self._ready, []
        again, self._again = self._again, []
        drivers = dict.fromkeys(again)
        for waiting in ready:
            driver = waiting.driver
            driver.resume(waiting)
            drivers[driver] = None
        for driver in drivers:
            driver.proceed()


class Waiting(Slot):
    """A parked request, in its place among the answers."""

    __slots__ = ("driver", "is_ready", "parked", "timer")

    def __init__(self, driver: Driver, parked: Parked) -> None:
        super().__init__()
        self.driver = driver
        self.parked = parked
        self.timer: Timer | None = None
        self.is_ready = False

    def wait(self, service: Service) -> None:
        """Be called on completion or deadline, whichever comes first."""
        self.is_ready = False
        parked = self.parked
        if parked.deadline_s is not None:
            self.timer = service.timers.after(parked.deadline_s, self._expired)
        parked.pending.then(self._completed)

    def abandon(self) -> None:
        """The connection is gone: nobody waits any more."""
        self._stop_timer()
        self.parked.pending.abandon()
        if self.parked.abandon is not None:
            self.parked.abandon()

    def _completed(self) -> None:
        self._now()

    def _expired(self) -> None:
        self.timer = None
        self.parked.pending.abandon()
        self._now()

    def _now(self) -> None:
        assert not self.is_ready, "a parked request becomes ready once"
        self.is_ready = True
        self._stop_timer()
        self.driver.service.ready(self)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
