"""A handler's way of its own for the usual request, and the general way, held against each other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def both_ways(
    monkeypatch: pytest.MonkeyPatch, tell: Callable[[], T], *handlers: ModuleType
) -> tuple[T, T]:
    """What `tell` tells where these handlers have their own way, and then where they have none."""
    own = tell()
    for handler in handlers:
        monkeypatch.delattr(handler, "quick")
        monkeypatch.delattr(handler, "reader", raising=False)  # reads what only `quick` knows
    return own, tell()


def answered_quickly(monkeypatch: pytest.MonkeyPatch, *handlers: ModuleType) -> list[bool]:
    """Whether its own way answered at once: one for each request that is asked from here on."""
    ways: list[bool] = []
    for handler in handlers:
        monkeypatch.setattr(handler, "quick", _spied(handler.quick, ways))
    return ways


def _spied(quick: Any, ways: list[bool]) -> Any:
    def spied(*asked: Any) -> Any:
        done = quick(*asked)
        ways.append(isinstance(done, bytes))
        return done

    return spied
