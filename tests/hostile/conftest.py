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

CALM = (
    # Records here are years old: retention first looks half a minute after a start, and would roll
    # segments and close files of a broker whose open files are counted.
    "log.retention.ms=-1",
    # Bombs and long lists take a busy machine longer to build than a newcomer may say nothing.
    "connection.first.request.timeout.ms=120000",
)
"""What a broker is told unless a test wants it otherwise: time goes by that no row is about."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start brokers, by `-o` options; all are stopped when the module is done."""
    with ExitStack() as stack:

        def one(*options: str, memory_more_max: int = 64 << 20, **how: Any) -> Victim:
            folder = tmp_path_factory.mktemp("victim")
            broker = stack.enter_context(Broker(folder / "data", *CALM, *options, **how))
            victim = Victim(broker, memory_more_max)
            victim.create(WELL)
            victim.remember()
            return victim

        yield one
