"""Every row of the hostile table that is ours by now has a test of its number, on a real socket."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, files_of_tests, name, tree

ROWS = [*range(1, 82), *range(98, 121)]
"""Frames, batches, fetches, topics, groups and transactions. Those between are of TLS and SASL."""

NOT_YET = {
    8: "there is no TLS listener",
    9: "there is no TLS listener",
    70: "there is no authorization",
    77: "there are no quotas",
    118: "there is no authorization",
}

HOSTILE = ROOT / "tests" / "hostile"
_OF_A_NAME = re.compile(r"test_h(\d+)_")
_OF_AN_ID = re.compile(r"H(\d+) ")


def _numbers(path: Path) -> set[int]:
    """Rows that a file has a test of: by a function's name, or by the text that begins an id."""
    found = set()
    for node in ast.walk(tree(path)):
        match = None
        if isinstance(node, ast.FunctionDef):
            match = _OF_A_NAME.match(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = _OF_AN_ID.match(node.value)
        if match:
            found.add(int(match[1]))
    return found


def _tested() -> dict[str, set[int]]:
    return {
        name(path): _numbers(path)
        for path in files_of_tests()
        if HOSTILE in path.parents and path.name.startswith("test_")
    }


def test_every_row_that_can_be_sent_has_a_test_of_its_number():
    tested = set().union(*_tested().values())
    assert [f"H{row}" for row in ROWS if row not in tested and row not in NOT_YET] == []


def test_a_row_that_has_a_test_is_no_exception_any_more():
    tested = set().union(*_tested().values())
    assert [f"H{row}: {why}" for row, why in NOT_YET.items() if row in tested] == []


@pytest.mark.parametrize("row", sorted(NOT_YET))
def test_an_exception_is_of_the_table_and_gives_its_reason(row: int):
    assert row in ROWS
    assert len(NOT_YET[row].split()) > 2
