"""What a node makes of its options and of its own faults, before it opens anything."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from ottla.core import options
from ottla.node import Node


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_the_data_directory_is_absolute_however_it_was_typed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    node = Node(options.broker_config({"log.dir": "./some/../data/"}), loop)
    assert node.path == node.directory.path == f"{os.getcwd()}/data"


def _faulty() -> None:
    raise ValueError("the bug itself")


@pytest.mark.parametrize(
    "call",
    [
        lambda node: node.loop.call_soon(_faulty),
        lambda node: node.timers.after(0, _faulty),
    ],
)
def test_a_bug_in_what_the_loop_calls_is_logged_once_and_named_as_a_fault_of_ottlas(
    loop: asyncio.AbstractEventLoop,
    call: Callable[[Node], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node(options.broker_config({}), loop)
    call(node)
    node.timers.after(0.02, loop.stop)
    loop.run_forever()
    (record,) = caplog.records
    assert record.name == "ottla.server"
    assert record.levelno == logging.ERROR
    assert "a fault of ottla's" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the bug itself"
