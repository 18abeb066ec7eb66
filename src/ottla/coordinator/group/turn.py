"""Turn: what one operation of a group's machine decides, gathered while it runs.

Owns the lists of a Decision to be. Must not carry anything out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ottla.coordinator.decision import Cancel, Complete, Decision, Do, Schedule

if TYPE_CHECKING:
    from ottla.coordinator.decision import Effect, Entry
    from ottla.core.pending import Pending

R = TypeVar("R")


class Turn(Generic[R]):
    """Entries and effects, in the order in which they were asked for."""

    __slots__ = ("effects", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.effects: list[Effect] = []

    def complete(self, pending: Pending[Any], value: Any) -> None:
        self.effects.append(Complete(pending, value))

    def after(self, key: tuple[str, ...], delay_ms: float, decide: Callable[[], Any]) -> None:
        self.effects.append(Schedule(key, max(0.0, delay_ms / 1000), decide))

    def cancel(self, *key: str) -> None:
        self.effects.append(Cancel(key))

    def do(self, call: Callable[[], None]) -> None:
        self.effects.append(Do(call))

    def decision(self, reply: R | Pending[R]) -> Decision[R]:
        return Decision(reply, self.entries, self.effects)
