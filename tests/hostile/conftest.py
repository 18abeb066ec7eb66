"""Brokers for hostile clients: started with the limits that a test wants to reach.

Owns the fixture; what is said to them is in `wire.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.hostile.wire import WELL, Victim
from tests.processes import Broker

Start = Callable[..., Victim]

KEPT = "log.retention.ms=-1"
"""Records here are years old: retention first looks half a minute after a start, and would roll
segments and close files of a broker whose open files are counted."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start brokers, by `-o` options; all are stopped when the module is done."""
    with ExitStack() as stack:

        def one(*options: str, memory_more_max: int = 64 << 20, **how: Any) -> Victim:
            folder = tmp_path_factory.mktemp("victim")
            broker = stack.enter_context(Broker(folder / "data", KEPT, *options, **how))
            victim = Victim(broker, memory_more_max)
            victim.create(WELL)
            victim.remember()
            return victim

        yield one
