"""A loop without time: the ports Clock and Timers, moved by hand.

Owns simulated time and what is due. Must not wait; `turn` does one thing, a test says when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class SimTimer:
    """The port `Timer`."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class SimLoop:
    """Clock and Timers in one. Calls of `soon` run in order, one a turn."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self.now_s = 0.0
        self.wall_offset_ms = wall_ms
        self._soon: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, SimTimer]] = []
        self._numbers = count()

    def wall_ms(self) -> int:
        return self.wall_offset_ms + int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def since_boot(self) -> float:
        return self.now_s

    def soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def after(self, delay_s: float, call: Callable[[], None]) -> SimTimer:
        timer = SimTimer(call)
        heappush(self._later, (self.now_s + delay_s, next(self._numbers), timer))
        return timer

    @property
    def ready(self) -> bool:
        """Whether a call of `soon` waits."""
        return bool(self._soon)

    def turn(self) -> bool:
        """Run one call; False if none waits."""
        if not self._soon:
            return False
        self._soon.popleft()()
        return True

    def run(self) -> None:
        """Run calls until none waits."""
        while self.turn():
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass; what comes due is called in order, with what it leads to."""
        end = self.now_s + seconds
        while self._later and self._later[0][0] <= end:
            self.now_s, _, timer = heappop(self._later)
            if timer.call is not None:
                timer.call()
            self.run()
        self.now_s = end

    def forget(self) -> None:
        """The process is gone: nothing that waited happens."""
        self._soon.clear()
        self._later.clear()
