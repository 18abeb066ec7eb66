"""Sizes of files and functions, with a ratchet: what is over a limit is listed, and may only shrink."""

import ast
from pathlib import Path

from tests.tidy.source import files_of_tests, functions, name, package_files, text, tool_files, tree

FILE_LINES_MAX, FILE_LINES_STOP = 600, 800
FUNCTION_LINES_MAX, FUNCTION_LINES_STOP = 70, 75
NESTING_MAX = 4

# The ratchet: "path" or "path:function" -> the lines it has now. An entry goes down with its
# file, and goes away below the limit; a new one needs a reason in the commit that adds it.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

FILES = [*package_files(), *tool_files()]
_BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)


def held_by(ratchet: dict[str, int], sizes: dict[str, int], limit: int, stop: int) -> list[str]:
    """What breaks the limit or its ratchet, each as a sentence."""
    wrong = []
    for what, size in sizes.items():
        allowed = min(ratchet.get(what, limit), stop)
        if size > allowed:
            wrong.append(
                f"{what} has {size} lines; at most {allowed}: split it where a reader looks"
            )
    for what, size in ratchet.items():
        now = sizes.get(what, 0)
        if now <= limit:
            wrong.append(f"{what} is down to {now} lines: take it off the ratchet")
        elif now < size:
            wrong.append(f"{what} is down to {now} lines: lower its entry from {size}")
    return wrong


def test_a_file_stays_below_its_limit():
    sizes = {name(path): text(path).count("\n") for path in FILES}
    assert held_by(LONG_FILES, sizes, FILE_LINES_MAX, FILE_LINES_STOP) == []


def test_a_file_of_tests_stays_below_its_limit():
    sizes = {name(path): text(path).count("\n") for path in files_of_tests()}
    assert held_by({}, sizes, FILE_LINES_STOP, FILE_LINES_STOP) == []


def test_a_function_stays_below_its_limit():
    sizes = {
        f"{name(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in functions(path)
    }
    assert held_by(LONG_FUNCTIONS, sizes, FUNCTION_LINES_MAX, FUNCTION_LINES_STOP) == []


def _deepest(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks lie in each other below `node`; `elif` and inner functions start no deeper."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        inner = depth + (isinstance(child, _BLOCKS) and not is_elif)
        deepest = max(deepest, _deepest(child, inner))
    return deepest


def test_blocks_do_not_nest_deeply():
    wrong = [
        f"{name(path)}:{node.lineno} {node.name} nests {depth} deep"
        for path in FILES
        for node in functions(path)
        if (depth := _deepest(node)) > NESTING_MAX
    ]
    assert wrong == []


def test_a_source_file_opens_with_what_it_owns():
    files: list[Path] = [p for p in FILES if tree(p).body]  # an empty __init__.py owns nothing
    assert [name(path) for path in files if not ast.get_docstring(tree(path))] == []
