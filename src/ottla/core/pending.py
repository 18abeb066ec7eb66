"""Pending: a result that is not there yet.

Everything below `server/` that would have to wait returns one instead. Completed once, on the
loop's thread; has at most one continuation. Must not know any loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """A one-shot result. `done` tells whether `result()` may be called."""

    __slots__ = ("_continuation", "_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._continuation: Callable[[], None] | None = None

    def complete(self, value: T) -> None:
        """Give the result and run the continuation, if one is waiting."""
        assert not self.done, "a Pending is completed once"
        self.done = True
        self._value = value
        self._run()

    def fail(self, error: Exception) -> None:
        """Give the failure instead; `result()` will raise it."""
        assert not self.done, "a Pending is completed once"
        self.done = True
        self._error = error
        self._run()

    def then(self, continuation: Callable[[], None]) -> None:
        """Call `continuation` once the result is there: at once if it already is."""
        assert self._continuation is None, "a Pending has one continuation"
        if self.done:
            continuation()
        else:
            self._continuation = continuation

    def abandon(self) -> None:
        """Forget the continuation: whoever waited is gone. The result may still come."""
        self._continuation = None

    def result(self) -> T:
        """The value, or raises what `fail` was given."""
        assert self.done, "the result is not there yet"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # complete() stored a T

    def _run(self) -> None:
        continuation, self._continuation = self._continuation, None
        if continuation is not None:
            continuation()


Soon: TypeAlias = T | Pending[T]
"""A result that needs no Pending around it where it is there at once: on the paths where it nearly
always is, what costs would be the Pending."""


def when_told(asked: Soon[T], call: Callable[[T], None]) -> None:
    """Call with what is told: now, where it is there at once. Of a Pending that never fails."""
    if isinstance(asked, Pending):
        asked.then(lambda: call(asked.result()))
    else:
        call(asked)


def completed(value: T) -> Pending[T]:
    """A Pending that already has its value."""
    pending: Pending[T] = Pending()
    pending.complete(value)
    return pending


def when_all(pendings: Sequence[Pending[Any]]) -> Pending[None]:
    """Completes when every one of them is done, failed ones included: look at each afterwards."""
    together: Pending[None] = Pending()
    left = len(pendings)
    if not left:
        together.complete(None)

    def one_more() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            together.complete(None)

    for pending in pendings:
        pending.then(one_more)
    return together
