"""What is said of an open transaction: its id is a client's choice, whatever is in it."""

from __future__ import annotations

import shlex

import pytest

from ottla.cli.open_transactions import Open
from ottla.cli.transactions import holding_lines


def lines_of(name: str | None) -> list[str]:
    started_ms = None if name is None else 1_700_000_000_000
    told = holding_lines(Open("t", 0, 7, 0, 0, 5, 1_700_000_000_000, name, started_ms), 3)
    assert told.endswith("\n")
    return told.splitlines()


@pytest.mark.parametrize("name", ["plain", "two words", "it's", "a;b", "$(c)", "-dash", "ä/ö"])
def test_the_command_that_is_suggested_can_be_copied_into_a_shell(name: str) -> None:
    *said, command = lines_of(name)
    assert said[-1].endswith("; try:")
    words = shlex.split(command)
    assert words[:3] == ["ottla", "txn", "describe"]
    assert words[-1] == name
    assert ("--" in words) == name.startswith("-")


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\u202eturned"])
def test_an_id_that_a_terminal_would_obey_is_not_repeated(name: str) -> None:
    *said, command = lines_of(name)
    assert command == "  ottla txn list"
    assert all(line.isprintable() for line in said)


def test_of_one_that_hangs_the_way_is_to_abort_it() -> None:
    *said, command = lines_of(None)
    assert said[-1].endswith("; try:")
    assert command == "  ottla txn abort t:0 --start-offset 5"


@pytest.mark.parametrize("name", ["a-service.of-somebody.in-some-place-42", None])
@pytest.mark.parametrize("width", [80, 120, 40])
def test_what_is_said_of_it_is_no_wider_than_the_terminal(
    name: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    *said, _command = lines_of(name)
    assert max(map(len, said)) <= max(width, len(f"  '{name}'"))
    assert said[0].startswith("partition 0 holds back 3 records from")
    assert all(line.startswith("  ") for line in said[1:])
