"""Rules of the code that no linter knows: who may wait, who may catch, what contracts cover."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.tidy.source import PACKAGE, ROOT, WAITING_ROOMS, name, package_files, room, text, tree

# The two places that may stop an unexpected exception from going further: the connection
# boundary, where a bug ends one connection, and the composition root.
CATCHES_EVERYTHING = {"src/ottla/server/driver.py", "src/ottla/node.py"}

# What asks the outside even without an import.
OUTSIDE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}

CORE_FILES = [
    path for path in package_files() if path.parent != PACKAGE and room(path) not in WAITING_ROOMS
]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def places(kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, ast.AST]]:
    for path in CORE_FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, kinds):
                yield f"{name(path)}:{getattr(node, 'lineno', 0)}", node


def test_nothing_below_the_server_waits():
    waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    assert [place for place, _ in places(waits)] == []


def test_nothing_below_the_server_opens_prints_or_evaluates():
    wrong = [
        f"{place} {node.func.id}"
        for place, node in places(ast.Call)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in OUTSIDE_CALLS
        # what schema.py declares is compiled there: no input reaches that text
        and not (node.func.id == "exec" and place.startswith("src/ottla/protocol/"))
    ]
    assert wrong == []


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False  # tidies up and lets it go on
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(k, ast.Name) and k.id in ("Exception", "BaseException") for k in kinds)


def test_only_two_files_catch_every_exception():
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in package_files()
        if name(path) not in CATCHES_EVERYTHING
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node)
    ]
    assert wrong == []


def test_an_excuse_from_a_lint_rule_gives_its_reason():
    bare = re.compile(r"# noqa(: [A-Z0-9, ]+)?\s*$")
    wrong = [
        f"{name(path)}:{number}"
        for path in package_files()
        for number, line in enumerate(text(path).splitlines(), 1)
        if bare.search(line)
    ]
    assert wrong == []


def test_no_contract_of_the_layers_has_exceptions():
    excused = {"ignore_imports", "exhaustive_ignores", "unmatched_ignore_imports_alerting"}
    assert [c["name"] for c in CONTRACTS["contracts"] if excused & c.keys()] == []


@pytest.mark.parametrize("needed", ["From handlers down", "Nothing on the way to serving"])
def test_a_contract_covers_every_room_it_is_about(needed):
    contract = next(c for c in CONTRACTS["contracts"] if c["name"].startswith(needed))
    rooms = {room(path) for path in package_files() if path.parent != PACKAGE} - WAITING_ROOMS
    if needed.startswith("Nothing"):
        rooms |= {r for r in ("server", "host", "node") if any(PACKAGE.glob(f"{r}*"))}
    assert {f"ottla.{r}" for r in rooms} <= set(contract["source_modules"])
