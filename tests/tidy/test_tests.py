"""Rules for the tests themselves: no sleep, no luck, no row that does not exist."""

import ast
import re

import pytest

from tests.reference import REFERENCE
from tests.tidy.source import ROOT, files_of_tests, name, text, tree

HOSTILE_ROWS_COUNT = 120

# Tests that wait for another process poll it in one place; what else would need to sleep is wrong.
MAY_SLEEP = {"tests/processes.py"}
TESTS = [path for path in files_of_tests() if path.name.startswith("test_")]


def _rows(path) -> set[int]:
    """Numbers of hostile rows that a test file names: H12 in its text, _h12_ in its names."""
    return {int(number) for number in re.findall(r"(?:\bH|_h)(\d+)(?=\b|_)", text(path))}


def test_no_test_sleeps():
    """`asyncio.sleep(0)` is none: it lets the loop turn once."""
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in files_of_tests()
        if name(path) not in MAY_SLEEP
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]
    assert wrong == []


def test_every_hostile_row_that_a_test_names_exists():
    strange = {
        f"{name(path)}: H{row}"
        for path in TESTS
        if "hostile" in path.parts
        for row in _rows(path)
        if not 1 <= row <= HOSTILE_ROWS_COUNT
    }
    assert strange == set()


def test_the_count_of_hostile_rows_is_that_of_the_table():
    table = REFERENCE.parent / "reference" / "hostile.md"
    if not table.exists():
        pytest.skip("the table of hostile input is not beside this checkout")
    rows = {int(row) for row in re.findall(r"^\| H(\d+) \|", table.read_text(), re.MULTILINE)}
    assert rows == set(range(1, HOSTILE_ROWS_COUNT + 1))


def test_the_invariants_of_the_log_are_tried_by_tests_of_their_number():
    tried = {
        int(number)
        for path in TESTS
        for found in re.findall(r"^def (test_i\d+_\w+)", text(path), re.MULTILINE)
        for number in re.findall(r"(?:(?<=test_)|(?<=_))i(\d+)(?=_)", found)
    }
    assert {*range(1, 9), *range(25, 35)} - tried == set()


def test_every_skip_gives_its_reason():
    bare = re.compile(r"pytest\.skip\(\s*\)|mark\.skip(?!if)(?!\()|mark\.skip\(\s*\)")
    wrong = [name(path) for path in TESTS if bare.search(text(path)) and path.parent.name != "tidy"]
    assert wrong == []


def test_a_test_file_lies_in_a_folder_that_make_test_runs():
    suites = re.search(r"addprefix tests/,([a-z ]+)\)", (ROOT / "Makefile").read_text())
    assert suites is not None
    run = set(suites.group(1).split())
    assert [name(p) for p in TESTS if p.relative_to(ROOT / "tests").parts[0] not in run] == []


def test_a_java_program_of_the_tests_tells_its_own_failure():
    """The launcher of single files dies of an exception without a stack trace, as Kafka's are."""
    programs = sorted((ROOT / "tests").rglob("*.java"))
    told = re.compile(
        r"\bmain\(String\[\] \w+\) \{.*?\bcatch \(Throwable .*?\bexit\(1\)", re.DOTALL
    )
    assert programs
    assert [name(path) for path in programs if not told.search(text(path))] == []
