"""What counting costs: a broker beside one out of whose code every counting line was taken.

Owns the taking out: a broker that is started by this module loads ottla's modules through a hook
that drops each statement that has a `tally` in it. The source knows nothing of it. Run as
`python -m ottla.bench.counters serve …`, it is such a broker.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.abc
import importlib.machinery
import runpy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import CodeType

from ottla.bench import contenders, rounds, shapes, stats
from ottla.bench.contenders import Variant
from ottla.bench.rounds import Line, Say, Settings

AT_MOST = 1.02
EXPLANATION = """\
CPU of the broker for one request, medians; the ratio is that of rounds side by side. A range that
holds 1.00 shows nothing but noise."""
ROOMS = ("ottla.handlers.", "ottla.server.", "ottla.replication.")
SHAPES = (shapes.PRODUCE[0], shapes.PRODUCE[3], shapes.FETCH[1], shapes.FETCH[2])
"""The loads whose requests cost least, of which counting is the largest part."""


class Stripper(ast.NodeTransformer):
    """Drops what counts from functions, but keeps what makes the counters."""

    def __init__(self) -> None:
        self.dropped = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if node.name != "__init__":
            self._clear(node)
        return node

    def _clear(self, node: ast.AST) -> None:
        """Drop what counts from each block of a statement."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                kept = [one for one in block if not _counts(one)]
                self.dropped += len(block) - len(kept)
                for one in kept:
                    self._clear(one)
                setattr(node, name, kept or [ast.Pass()])
        for handler in getattr(node, "handlers", ()):
            self._clear(handler)


def _counts(node: ast.AST) -> bool:
    """Whether a statement adds to a counter, looks one up, or is there because of one."""
    if isinstance(node, ast.If):
        return _names_one(node.test)
    if isinstance(node, ast.AugAssign):
        return _names_one(node.target)
    if isinstance(node, ast.Assign):
        return any(_names_one(target) for target in node.targets)
    return isinstance(node, ast.Expr) and _names_one(node)


def _names_one(node: ast.AST) -> bool:
    return any(
        (isinstance(one, ast.Name) and one.id == "tally")
        or (isinstance(one, ast.Attribute) and one.attr in {"tally", "_tally"})
        for one in ast.walk(node)
    )


def stripped(source: str, path: str) -> tuple[CodeType, int]:
    """The module's code without what counts, and how many statements that were."""
    stripper = Stripper()
    tree = ast.fix_missing_locations(stripper.visit(ast.parse(source, path)))
    return compile(tree, path, "exec"), stripper.dropped


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        return stripped(self.get_source(fullname) or "", self.path)[0]


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(ROOMS):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return spec
        spec.loader = _Loader(fullname, spec.origin)
        return spec


@contextlib.contextmanager
def _both(folder: str) -> Iterator[tuple[contenders.Running, contenders.Running]]:
    with (
        contenders.own_broker(f"{folder}/counting") as counting,
        contenders.own_broker(f"{folder}/not-counting", module="ottla.bench.counters") as without,
    ):
        yield counting, without


def measure(settings: Settings, say: Say) -> list[list[Line]]:
    """Each load on both, in turn. Raises pump.LoadFailed."""
    with tempfile.TemporaryDirectory(prefix="ottla-counters-") as folder, _both(folder) as both:
        names = ("counting", "not counting")
        pair = [
            replace(contenders.variant_contender(Variant(""), one), name=name)
            for one, name in zip(both, names, strict=True)
        ]
        return [
            rounds.run_shape(shape, pair, folder, settings, say, with_bare=False)
            for shape in SHAPES
        ]


def rows(found: Sequence[Sequence[Line]]) -> list[list[str]]:
    """A row for each load: CPU of a request with and without, and the ratio."""
    table = [["load", "counting, µs", "not counting, µs", "ratio", "least–most", "≤ 1.02"]]
    for counting, without in found:
        ratio = stats.spread(stats.ratios(counting.values("cpu_us"), without.values("cpu_us")))
        if ratio is None:
            table.append([counting.shape.name, *["-"] * 5])
            continue
        table.append(
            [
                f"{counting.shape.kind} {counting.shape.name}",
                stats.number(counting.median("cpu_us")),
                stats.number(without.median("cpu_us")),
                f"{ratio.median:.3f}",
                f"{ratio.least:.3f}–{ratio.most:.3f}",
                "yes" if ratio.median <= AT_MOST else "no",
            ]
        )
    return table


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder())
    runpy.run_module("ottla", run_name="__main__", alter_sys=True)
