"""What a process of a node tells its operator, before it has one."""

from __future__ import annotations

import pytest

from ottla import process
from ottla.core import options
from ottla.core.no_effect_yet import NO_EFFECT_YET


def _told_of(given: dict[str, str], caplog: pytest.LogCaptureFixture) -> list[str]:
    process._tell_idle_options(options.broker_config(given))
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
