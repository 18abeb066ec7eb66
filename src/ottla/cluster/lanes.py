"""Lanes: work that must not overlap, one queue for each key.

Owns the order. What is decided from the image and written on condition that it has not changed
since would fail whenever two such decisions about one thing are under way at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ottla.cluster.store import StoreError
from ottla.core.pending import Pending

T = TypeVar("T")


class Lanes:
    """Work of different keys runs at once; of one key, one after the other."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], Pending[None]]]] = {}

    def run(self, key: str, start: Callable[[], Pending[T]]) -> Pending[T]:
        """Call `start` once all earlier work of this key is done; its result, or StoreError."""
        queue = self._waiting.get(key)
        finished: Pending[T] = Pending()

        def begin() -> Pending[None]:
            passed: Pending[None] = Pending()
            running = start()

            def pass_on() -> None:
                try:
                    value = running.result()
                except StoreError as error:
                    finished.fail(error)
                else:
                    finished.complete(value)
                passed.complete(None)

            running.then(pass_on)
            return passed

        if queue is not None:
            queue.append(begin)
        else:
            self._waiting[key] = deque([begin])
            self._go_on(key)
        return finished

    def _go_on(self, key: str) -> None:
        queue = self._waiting[key]
        # A loop, since much of it is done at once: a refusal waits for nothing.
        while queue:
            try:
                passed = queue.popleft()()
            except BaseException:
                del self._waiting[key]  # our bug ends one connection, not the lane
                raise
            if not passed.done:
                passed.then(partial(self._go_on, key))
                return
        del self._waiting[key]
