"""A report that is gathered in pieces, while the node goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

import pytest

from ottla.server.admin import Admin
from ottla.testing.simnode import SimNode
from tests.asking import batch, put

T = TypeVar("T")


class Asking(Admin):
    """Asks a simulated node, in which something happens behind one of the questions."""

    def __init__(self, node: SimNode, behind: int, happens: Callable[[], None]) -> None:
        loop = cast("asyncio.AbstractEventLoop", None)  # is asked nothing
        super().__init__(loop, node.context, lambda _path: None)
        self._behind = behind
        self._happens = happens

    def _on_loop(self, work: Callable[[], T]) -> T:
        found = work()
        self._behind -= 1
        if not self._behind:
            self._happens()
        return found


@pytest.mark.parametrize("behind", range(1, 5))
def test_no_sum_falls_while_a_topic_is_deleted(behind: int) -> None:
    node = SimNode()
    for name in ("a", "b"):
        node.create_topic(name)
        put(node, batch(b"x"), topic=name)
    report = Asking(node, behind, lambda: node.delete_topic("a")).report()
    assert report["batching"]["records"] == 2
    assert Asking(node, 0, lambda: None).report()["batching"]["records"] == 2
