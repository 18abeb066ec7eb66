"""Complaints: what peers do wrong and which limits they reach, counted, and logged now and then.

Owns the counts by kind and the rate of the log. Must not decide what is done about it.
"""

from __future__ import annotations

import logging

from ottla.core.ports import Clock

_log = logging.getLogger("ottla.server")

_SAME_COMPLAINT_S = 10.0  # peers can repeat a fault as often as they like; the log must not


class Complaints:
    """Logs each kind of complaint at most once in ten seconds, and counts all of them.

    A kind is one of few fixed words: for a limit, the name of the option that sets it.
    """

    __slots__ = ("_clock", "_said", "counts")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def quietly(self, kind: str, peer: str, text: str) -> None:
        """Count what well-kept clients do, too: nothing an operator can act on, told only by -v."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        _log.debug("%s: %s (%s: %d so far)", peer, text, kind, self.counts[kind])

    def about(self, kind: str, peer: str, text: str) -> None:
        """Complain of `peer`. `text` may say anything, but nothing costly: it is made each time."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        now = self._clock.monotonic()
        if now - self._said.get(kind, -_SAME_COMPLAINT_S) >= _SAME_COMPLAINT_S:
            self._said[kind] = now
            count = self.counts[kind]
            fields = {"event": kind, "peer": peer, "count": count}
            _log.warning(
                "%s: %s (%s: %d so far)", peer, text, kind, count, extra={"fields": fields}
            )
