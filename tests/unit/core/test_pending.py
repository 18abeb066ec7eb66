"""Results that come at once or later reach the same call."""

from __future__ import annotations

from ottla.core.pending import Pending, when_told


def test_what_is_told_at_once_and_what_comes_later_reach_the_same_call() -> None:
    told: list[int] = []
    later: Pending[int] = Pending()
    when_told(later, told.append)
    when_told(1, told.append)
    assert told == [1]
    later.complete(2)
    assert told == [1, 2]
