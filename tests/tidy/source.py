"""What the tidy tests look at: the tracked source files, read and parsed once.

Owns the lists of files. Must not judge them.
"""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ottla"
GENERATED = PACKAGE / "protocol" / "messages"

# Rooms that may wait and touch the outside; everything else must not.
WAITING_ROOMS = {"bench", "cli", "console", "embedded", "host", "node", "server", "testing"}


@cache
def package_files() -> tuple[Path, ...]:
    """Every source file of the package, generated ones left out."""
    return tuple(p for p in sorted(PACKAGE.rglob("*.py")) if GENERATED not in p.parents)


@cache
def files_of_tests() -> tuple[Path, ...]:
    return tuple(sorted((ROOT / "tests").rglob("*.py")))


@cache
def tool_files() -> tuple[Path, ...]:
    return tuple(sorted((ROOT / "tools").rglob("*.py")))


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path), filename=str(path))


def name(path: Path) -> str:
    """The path as it is written in docs: from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    """The first part of the path below the package: `storage`, or `node` for node.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    wanted = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, wanted)]
