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
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType

from ottla.bench import asking, contenders, pump, shapes, stats, usage, wire
from ottla.bench.rounds import Say, Settings
from ottla.bench.shapes import Shape

AT_MOST = 1.02
_TOUCHED_MIB = 64
_WARM_S = 0.1
EXPLANATION = """\
CPU of the broker for one request, medians; the ratio is that of rounds side by side, its median and
between what the middle half of them lies. Where that holds 1.00, noise is more than what counting
costs: more rounds narrow it."""
ROOMS = (
    "ottla.handlers.",
    "ottla.server.",
    "ottla.replication.",
    "ottla.protocol.connection",
)
SHAPES = (shapes.PRODUCE[0], shapes.PRODUCE[3], shapes.FETCH[1], shapes.FETCH[2])
"""The loads whose requests cost least, of which counting is the largest part."""


class Stripper(ast.NodeTransformer):
    """Drops what counts from functions, but keeps what makes the counters."""

    def __init__(self) -> None:
        self.dropped = 0
        self._names = {"tally"}  # and those that are only there because of one

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if node.name != "__init__":
            self._names = _derived(node)
            self._clear(node)
        return node

    def _clear(self, node: ast.AST) -> None:
        """Drop what counts from each block of a statement."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                kept = [one for one in block if not _counts(one, self._names)]
                self.dropped += len(block) - len(kept)
                for one in kept:
                    self._clear(one)
                kept = [one for one in kept if not _is_empty(one)]
                setattr(node, name, kept or [ast.Pass()])
        for handler in getattr(node, "handlers", ()):
            self._clear(handler)


def _is_empty(node: ast.AST) -> bool:
    """Whether a test is left that decides nothing any more: it was there for what is counted."""
    return (
        isinstance(node, ast.If)
        and not node.orelse
        and all(isinstance(one, ast.Pass) for one in node.body)
    )


def _derived(function: ast.FunctionDef) -> set[str]:
    """Names that get their value where something is counted: a number to test, a beginning."""
    names, before = {"tally"}, 0
    while len(names) > before:
        before = len(names)
        for one in ast.walk(function):
            if _counts(one, names):
                names |= {
                    target.id
                    for inner in ast.walk(one)
                    if isinstance(inner, ast.Assign)
                    for target in inner.targets
                    if isinstance(target, ast.Name)
                }
    return names


def _counts(node: ast.AST, names: set[str]) -> bool:
    """Whether a statement adds to a counter, looks one up, or is there because of one."""
    if isinstance(node, ast.If):
        return _names_one(node.test, names)
    if isinstance(node, ast.AugAssign):
        return _names_one(node.target, names)
    if isinstance(node, ast.Assign):
        return any(_names_one(target, names) for target in node.targets)
    return isinstance(node, ast.Expr) and _names_one(node, names)


def _names_one(node: ast.AST, names: set[str]) -> bool:
    return any(
        (isinstance(one, ast.Name) and one.id in names)
        or (isinstance(one, ast.Attribute) and one.attr.endswith("tally"))
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


@dataclass(slots=True)
class Pair:
    """CPU of one request, in µs, of brokers that count and don't, measured side by side."""

    shape: Shape
    counting: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return stats.ratios(self.counting, self.without)


def measure(settings: Settings, say: Say) -> list[Pair]:
    """Each load on both, side by side, in as many pairs of processes as there are rounds.

    Raises pump.LoadFailed. Two processes of the same code differ by 2 %, as their memory happens to
    lie, so that one pair shows nothing, however long. Time on a CPU is read in nanoseconds: the
    ticks of 10 ms that are usual are 2 % of half a second.
    """
    found = [Pair(shape) for shape in SHAPES]
    for turn in range(settings.rounds):
        with tempfile.TemporaryDirectory(prefix="ottla-counters-") as folder, _both(folder) as both:
            for pair in found:
                say(f"{pair.shape.kind} {pair.shape.name}: round {turn + 1}")
                sides = [(both[0], pair.counting), (both[1], pair.without)]
                if turn % 2:
                    sides.reverse()
                for running, _ in sides:
                    _cpu_us(running, pair.shape, _WARM_S)
                for running, costs in sides:
                    costs.append(_cpu_us(running, pair.shape, settings.seconds))
    return found


def _cpu_us(running: contenders.Running, shape: Shape, seconds: float) -> float:
    address = running.address
    with asking.new_topic(address, shape.partitions) as topic:
        if shape.kind == "fetch":
            for request in shapes.produces(shape, topic, 1):
                asking.settle(address, topic, request, wire.produce_error_at(topic))
        else:
            asking.until_ready(address, topic, shape.partitions)
        usage.touch_memory(piece_bytes=shapes.batch_bytes(shape), mib=_TOUCHED_MIB)
        load = shapes.load(shape, topic, 1, seconds)
        before = usage.run_seconds(running.pid)
        seen = pump.run(address, load)
        return (usage.run_seconds(running.pid) - before) / seen.answers * 1e6


def rows(found: Sequence[Pair]) -> list[list[str]]:
    """A row for each load: CPU of a request with and without, and the ratio."""
    table = [["load", "counting, µs", "not counting, µs", "ratio", "middle half", "≤ 1.02"]]
    for pair in found:
        ratios = sorted(pair.ratios)
        median = statistics.median(ratios)
        low, high = (stats.quantile(ratios, share) for share in (0.25, 0.75))
        table.append(
            [
                f"{pair.shape.kind} {pair.shape.name}",
                stats.number(statistics.median(pair.counting)),
                stats.number(statistics.median(pair.without)),
                f"{median:.3f}",
                f"{low:.3f}–{high:.3f}",
                "yes" if median <= AT_MOST else "no",
            ]
        )
    return table


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder())
    runpy.run_module("ottla", run_name="__main__", alter_sys=True)
