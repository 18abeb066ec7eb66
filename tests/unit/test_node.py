"""What a node makes of its options and of its own faults, before it opens anything."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from ottla import node as node_module
from ottla.core import options
from ottla.core.no_effect_yet import NO_EFFECT_YET
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


def _told_of(given: dict[str, str], caplog: pytest.LogCaptureFixture) -> list[str]:
    node_module._tell_idle_options(options.broker_config(given))
    return [record.getMessage() for record in caplog.records]


def test_options_without_effect_yet_are_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    names = {option.name: option for option in options.ALL if option.scope != "group"}
    idle = next(name for name in sorted(NO_EFFECT_YET) if name in names)
    broker_name = (names[idle].broker_names or (names[idle],))[0].name
    text = str(names[idle].text(names[idle].default))
    (line,) = _told_of({broker_name: text, "node.id": "3"}, caplog)
    assert line.startswith(f"options that have no effect yet are set: {broker_name};")


def test_options_that_do_something_are_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    assert _told_of({"node.id": "3", "num.partitions": "2"}, caplog) == []


def test_only_options_that_there_are_have_no_effect_yet() -> None:
    assert not NO_EFFECT_YET - {option.name for option in options.ALL}
