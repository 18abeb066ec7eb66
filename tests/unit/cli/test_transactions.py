"""What is said of an open transaction: its id is a client's choice, whatever is in it."""

from __future__ import annotations

import shlex

import pytest

from ottla.cli.open_transactions import Open
from ottla.cli.transactions import holding_line


def line_of(name: str | None) -> str:
    started_ms = None if name is None else 1_700_000_000_000
    return holding_line(Open("t", 0, 7, 0, 0, 5, 1_700_000_000_000, name, started_ms), 3)


@pytest.mark.parametrize("name", ["plain", "two words", "it's", "a;b", "$(c)", "-dash", "ä/ö"])
def test_the_command_that_is_suggested_can_be_copied_into_a_shell(name: str) -> None:
    _, command = line_of(name).split("; try: ")
    words = shlex.split(command)
    assert words[:3] == ["ottla", "txn", "describe"]
    assert words[-1] == name
    assert ("--" in words) == name.startswith("-")


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202eturned"])
def test_an_id_that_a_terminal_would_obey_is_not_repeated(name: str) -> None:
    line = line_of(name)
    assert line.endswith("; try: ottla txn list\n")
    assert line[:-1].isprintable()


def test_of_one_that_hangs_the_way_is_to_abort_it() -> None:
    assert line_of(None).endswith("; try: ottla txn abort t:0 --start-offset 5\n")
