"""One coarse timer wheel over the loop, behind the port `Timers`.

Owns every deadline of a node. Must not hold what was cancelled: a fetch that waits up to 30 s
and is answered after 1 ms would else keep 30,000 finished requests alive.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

TICK_S = 0.01
"""Calls are gathered into ticks of this length, so one is at most that late."""


class Loop(Protocol):
    """What the wheel needs of an asyncio loop."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], Any]) -> Any: ...

    def call_soon(self, callback: Callable[[], Any]) -> Any: ...


class Entry:
    """A call that has not happened yet (the port `Timer`)."""

    __slots__ = ("_tick", "call")

    def __init__(self, call: Callable[[], None], tick: dict[Entry, None]) -> None:
        self.call = call
        self._tick = tick

    def cancel(self) -> None:
        """Take the call back; the wheel forgets it at once. Harmless after it happened."""
        self._tick.pop(self, None)


class TimerWheel:
    """The port `Timers`. Holds at most one timer of the loop, and none while there is no entry.

    (After the last entry was cancelled the loop's timer may still fire, once.)
    """

    __slots__ = ("_armed", "_handle", "_loop", "_numbers", "_ticks", "_time")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._time = loop.time
        self._ticks: dict[int, dict[Entry, None]] = {}  # by number; dicts keep the order of adding
        self._numbers: list[int] = []  # heap of the keys of _ticks
        self._armed: int | None = None  # the tick that the loop's timer is set for
        self._handle: Any = None

    def after(self, delay_s: float, call: Callable[[], None]) -> Entry:
        """Call once, `delay_s` from now or at most a tick later."""
        number = int((self._time() + delay_s) / TICK_S) + 1
        tick = self._ticks.get(number)
        if tick is None:
            tick = self._ticks[number] = {}
            heappush(self._numbers, number)
            if self._armed is None or number < self._armed:
                self._arm(number)
        entry = Entry(call, tick)
        tick[entry] = None
        return entry

    def soon(self, call: Callable[[], None]) -> None:
        """Call once, when what runs now has returned."""
        self._loop.call_soon(call)

    def __len__(self) -> int:
        """Entries that have neither happened nor been cancelled."""
        return sum(map(len, self._ticks.values()))

    def close(self) -> None:
        """Forget everything."""
        for tick in self._ticks.values():
            tick.clear()  # one of them may be running
        self._ticks.clear()
        self._numbers.clear()
        self._disarm()

    def _arm(self, number: int) -> None:
        self._disarm()
        self._armed = number
        self._handle = self._loop.call_at(number * TICK_S, self._fire)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._armed = None

    def _fire(self) -> None:
        self._handle = self._armed = None
        # The loop may call a clock's resolution early, and must find the tick due all the same.
        now = int((self._time() + 1e-6) / TICK_S)
        numbers, ticks = self._numbers, self._ticks
        try:
            while numbers and (numbers[0] <= now or not ticks[numbers[0]]):
                number = numbers[0]
                tick = ticks[number]
                while tick:  # a call may cancel others of its tick, or add to it
                    entry = next(iter(tick))
                    del tick[entry]
                    entry.call()
                if ticks.pop(number, None) is not None:  # a call may have closed the wheel
                    heappop(numbers)
        finally:  # when a call raises, the rest of its tick comes with the next turn of the loop
            if numbers:
                self._arm(numbers[0])
