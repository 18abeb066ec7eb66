"""A handler's way of its own for the usual request, and the general way, held against each other."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import pytest

from ottla.records import validate
from ottla.records.crc import crc32c
from ottla.testing.simnode import Call, SimConnection, SimNode

T = TypeVar("T")


class Asked:
    """A node of its own, and all that it was asked."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.calls: list[tuple[Call, SimConnection]] = []

    def ask(self, body: Any, version: int) -> Call:
        connection = self.node.connect()
        call = connection.ask(body, version)
        self.calls.append((call, connection))
        return call

    def whole(self) -> list[Any]:
        """Every answer, every complaint, and every byte of every log."""
        self.node.settle()
        told: list[Any] = [(call.answer, one.closed) for call, one in self.calls]
        told += sorted(self.node.context.complaints.counts.items())
        for partition in self.node.table:
            segments = partition.log.segments
            told += [(partition.key, one.log.read_nowait(0, one.size)) for one in segments]
        return told


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


def checksums(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were checksummed to judge a batch: one for each from here on."""
    sizes: list[int] = []

    def counted(data: memoryview) -> int:
        sizes.append(len(data))
        return crc32c(data)

    monkeypatch.setattr(validate, "crc32c", counted)
    return sizes


def _spied(quick: Any, ways: list[bool]) -> Any:
    def spied(*asked: Any) -> Any:
        done = quick(*asked)
        ways.append(isinstance(done, bytes))
        return done

    return spied
