"""Mailbox: how threads of `host/` hand results to the loop.

Owns what was posted and not yet run. Whatever has piled up by the time the loop comes goes
along with one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

WakeLoop: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a call on the loop's thread, from any thread: `loop.call_soon_threadsafe`."""


class Mailbox:
    """Calls to be made on the loop's thread, in the order they were posted."""

    __slots__ = ("_calls", "_wake_loop", "_waking")

    def __init__(self, wake_loop: WakeLoop) -> None:
        self._wake_loop = wake_loop
        self._calls: deque[Callable[[], None]] = deque()
        self._waking = False

    def post(self, call: Callable[[], None]) -> None:
        """From any thread. A loop that is closed is not an error: whoever closes it drains."""
        self._calls.append(call)
        if self._waking:
            return  # the drain on its way finds this one: it looks after it has cleared the flag
        self._waking = True
        try:
            self._wake_loop(self.drain)
        except RuntimeError:
            self._waking = False

    def drain(self) -> None:
        """Make every call that was posted. On the loop's thread."""
        self._waking = False
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls and not self._waking:
                # A continuation raised: its own trouble, which must not strand the others.
                self._waking = True
                self._wake_loop(self.drain)
