"""What all connections of a node share, and the requests of theirs that wait.

Owns when a completion is taken up: it only takes note, and what is ready is resumed together soon
after. Must not touch a socket, nor know any message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.core.complaints import Complaints
from ottla.core.metrics import SentTally
from ottla.core.ports import Clock, Timers
from ottla.handlers import waiting
from ottla.handlers.reply import Answer, Dispatcher, Parked
from ottla.protocol.connection import ConnectionLimits, ReceiveMemory
from ottla.server.poller import Readiness
from ottla.server.transfer import COPYING

if TYPE_CHECKING:
    from ottla.handlers.context import ConnectionState
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
        self.go_by(dispatcher.dispatch)
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

    def go_by(self, dispatch: Callable[[ConnectionState, memoryview], Answer]) -> None:
        """Give this the frames from now on: drivers look it up for each run of them."""
        self.dispatch: Callable[[ConnectionState, memoryview], Answer] = dispatch

    def ready(self, one: Waiting) -> None:
        """Have a parked request resumed soon."""
        self._ready.append(one)
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
        for one in ready:
            driver = one.driver
            driver.resume(one)
            drivers[driver] = None
        for driver in drivers:
            driver.proceed()


class Waiting(waiting.Waiting):
    """A parked request of a driver's."""

    __slots__ = ("driver",)

    def __init__(self, driver: Driver, parked: Parked) -> None:
        super().__init__(parked)
        self.driver = driver

    def ready(self) -> None:
        self.driver.service.ready(self)
