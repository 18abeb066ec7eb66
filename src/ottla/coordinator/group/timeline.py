"""Timeline: what happened to a group lately, and how long it took.

Owns the last events of one group; soft state, lost with the process. Must not decide anything:
the machines tell it what they did. Bounded: old events make room for new ones, and a text that a
client sent is cut.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

EVENTS_MAX = 64
TEXT_MAX = 200
"""Characters that are kept of a text: a client's reason may be 32 KiB long."""


def counted(members: int) -> str:
    """How many members, in words."""
    return f"{members} member" if members == 1 else f"{members} members"


class Event(NamedTuple):
    """One thing that happened.

    `kind` is joined, left, expired, replaced, passed over (topics), preparing or rebalancing,
    completing, stable or empty. `member` is "" where it is about the group. `took_ms` is how long
    the phase before it lasted, None where there was none.
    """

    at_ms: int
    kind: str
    generation: int
    member: str
    text: str
    took_ms: int | None

    def fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return self._asdict()


class Timeline:
    """The last events of a group, oldest first, and how many there were before them."""

    __slots__ = ("_events", "_phase_since", "dropped_count")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._phase_since: float | None = None
        self.dropped_count = 0

    def note(
        self, at_ms: int, kind: str, generation: int, member: str = "", text: str = ""
    ) -> None:
        """Something happened that ends no phase."""
        self._add(Event(at_ms, kind, generation, member, text[:TEXT_MAX], None))

    def phase(self, at_ms: int, now_s: float, kind: str, generation: int, text: str) -> None:
        """A phase begins, and with it ends the one before. `now_s` is monotonic."""
        since, self._phase_since = self._phase_since, now_s
        took_ms = None if since is None else round((now_s - since) * 1000)
        self._add(Event(at_ms, kind, generation, "", text[:TEXT_MAX], took_ms))

    def events(self) -> list[Event]:
        return list(self._events)

    def _add(self, event: Event) -> None:
        if len(self._events) == EVENTS_MAX:
            self._events.popleft()
            self.dropped_count += 1
        self._events.append(event)
