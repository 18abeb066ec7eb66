"""What `ottla bench recover` has found: seconds, rates, the budgets, and a table of them.

Pure: numbers in, numbers and text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ottla.bench.stats import Spread, number, spread

GIB = 1 << 30
PARTITIONS, LOG_GIB = 2000, 20.0
"""What the budgets of starts are for; a larger broker has none."""


class Line(Enum):
    """What is started."""

    CLEAN_WARM = "clean stop, in memory"
    CLEAN_COLD = "clean stop, from the disk"
    KILLED_WARM = "kill -9, in memory"
    KILLED_COLD = "kill -9, from the disk"
    UNSYNCED_WARM = "all unsynced, in memory"
    UNSYNCED_COLD = "all unsynced, from the disk"


_STARTS = (Line.CLEAN_WARM, Line.CLEAN_COLD, Line.KILLED_WARM, Line.KILLED_COLD)
_AT_MOST_S = {
    Line.CLEAN_WARM: 1.0,
    Line.CLEAN_COLD: 1.0,
    Line.KILLED_WARM: 10.0,
    Line.KILLED_COLD: 10.0,
}
_WARM_GB_PER_S, _COLD_S_PER_GIB = 1.0, 1.5


@dataclass(frozen=True, slots=True)
class Timed:
    """A start: seconds from the process's own to its first answer and to the last partition's,
    and the CPU that it took until then."""

    first_s: float
    all_s: float
    cpu_s: float

    def as_json(self) -> dict[str, float]:
        return {"first_s": self.first_s, "all_s": self.all_s, "cpu_s": self.cpu_s}


@dataclass(frozen=True, slots=True)
class Figure:
    """Something with a budget, and whether it is met: by the median, or in the best round only."""

    what: str
    unit: str
    found: Spread | None
    budget: float | None
    at_least: bool = False

    @property
    def met(self) -> str:
        if self.found is None or self.budget is None:
            return ""
        sign = -1 if self.at_least else 1
        best = self.found.most if self.at_least else self.found.least
        if sign * self.found.median <= sign * self.budget:
            return "yes"
        return "in the best round" if sign * best <= sign * self.budget else "no"


@dataclass(slots=True)
class Found:
    """All that was measured, round by round."""

    partitions: int
    gib: float
    unsynced_gib: float
    unsynced_bytes: int = 0
    since_points_bytes: list[int] = field(default_factory=list)
    """What was written between the last recovery points and a kill."""
    filled_s: float = 0.0
    dropped: str = ""
    starts: dict[Line, list[Timed]] = field(default_factory=lambda: {line: [] for line in Line})
    empty: list[Timed] = field(default_factory=list)
    plain_s_per_gib: list[float] = field(default_factory=list)
    stops_s: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    """What of the logs was in memory when they were said to be cold."""

    @property
    def empty_s(self) -> float:
        """A start without logs: what is taken off where only the reading counts."""
        return min((one.all_s for one in self.empty), default=0.0)

    def reading_s(self, line: Line) -> list[float]:
        return [max(one.all_s - self.empty_s, 1e-9) for one in self.starts[line]]

    def figures(self) -> dict[Line, Figure]:
        """In the order of the table."""
        fits = self.partitions <= PARTITIONS and self.gib <= LOG_GIB
        found: dict[Line, Figure] = {}
        for line in _STARTS:
            took = spread(one.all_s for one in self.starts[line])
            found[line] = Figure(line.value, "s", took, _AT_MOST_S[line] if fits else None)
        warm = spread(self.unsynced_bytes / 1e9 / s for s in self.reading_s(Line.UNSYNCED_WARM))
        cold = spread(s / self.unsynced_bytes * GIB for s in self.reading_s(Line.UNSYNCED_COLD))
        line = Line.UNSYNCED_WARM
        found[line] = Figure(line.value, "GB/s", warm, _WARM_GB_PER_S, at_least=True)
        line = Line.UNSYNCED_COLD
        found[line] = Figure(line.value, "s/GiB", cold, _COLD_S_PER_GIB)
        return found


def rows(found: Found) -> list[list[str]]:
    table = [
        [
            "start after",
            "first answer, s",
            "all partitions, s",
            "CPU, s",
            "figure",
            "least",
            "most",
            "wanted",
            "met",
        ],
    ]
    for line, figure in found.figures().items():
        timed = found.starts[line]
        times = [spread(one.first_s for one in timed), spread(one.all_s for one in timed)]
        times.append(spread(one.cpu_s for one in timed))
        sign, wanted = "≥" if figure.at_least else "≤", figure.budget
        table.append(
            [
                figure.what,
                *(number(one.median if one else None) for one in times),
                *_three(figure.found, figure.unit),
                "" if wanted is None else f"{sign} {number(wanted)} {figure.unit}",
                figure.met,
            ]
        )
    plain = spread(found.plain_s_per_gib)
    table.append(["(a plain read from the disk)", "", "", "", *_three(plain, "s/GiB"), "", ""])
    for name, several in (
        ("(a start without logs)", [(one.first_s, one.all_s, one.cpu_s) for one in found.empty]),
    ):
        medians = [spread(column) for column in zip(*several, strict=True)]
        cells = [number(one.median if one else None) for one in medians] or ["", "", ""]
        table.append([name, *cells, "", "", "", "", ""])
    stops = spread(found.stops_s)
    table.append(["(a stop, nothing written)", "", "", "", *_three(stops, "s"), "", ""])
    return table


def _three(found: Spread | None, unit: str) -> list[str]:
    if found is None:
        return ["-", "", ""]
    return [f"{number(found.median)} {unit}", number(found.least), number(found.most)]


def conditions(found: Found) -> list[str]:
    """What the table doesn't say."""
    said = [
        f"{found.partitions:,} partitions, {found.gib:g} GiB in batches of 16 KiB "
        f"(filled in {found.filled_s:.0f} s); killed with {_gib(found.since_points_bytes)} GiB "
        f"written since the last recovery points; all unsynced: {found.unsynced_gib:g} GiB in "
        "4 partitions.",
        f"From the disk: dropped before were {found.dropped or 'no pages'}.",
    ]
    if found.cached:
        said.append(f"Of the logs {max(found.cached):.1%} at most were in memory then.")
    return said


def _gib(sizes: Sequence[int]) -> str:
    least, most = min(sizes, default=0) / GIB, max(sizes, default=0) / GIB
    return f"{least:.2f} to {most:.2f}" if least < most else f"{most:.2f}"


EXPLANATION = """\
Medians of the rounds, from the process being started to its first answer (ApiVersions) and until
ListOffsets gives the right end for every partition; CPU until then. By the clock, so what else the
machine does counts. GB/s and s/GiB are of the time beyond a start without logs; in memory, what is
read has been written to the disk before, of which no recovery point tells. After kill -9 it was
not, and the start waits until it is. The plain read is of the same files in the same round, 1 MiB
at a time: what the disk itself allows. The program is in memory in any case."""


def as_json(found: Found) -> list[dict[str, Any]]:
    """A line for each figure, with every round."""
    lines: list[dict[str, Any]] = []
    for line, figure in found.figures().items():
        lines.append(
            {
                "what": figure.what,
                "unit": figure.unit,
                "found": figure.found.as_json() if figure.found else None,
                "budget": figure.budget,
                "at_least": figure.at_least,
                "met": figure.met or None,
                "rounds": [one.as_json() for one in found.starts[line]],
            }
        )
    lines.append({"what": "plain read", "unit": "s/GiB", "rounds": found.plain_s_per_gib})
    lines.append({"what": "empty start", "rounds": [one.as_json() for one in found.empty]})
    lines.append({"what": "stop, nothing written", "unit": "s", "rounds": found.stops_s})
    lines.append(
        {
            "what": "conditions",
            "partitions": found.partitions,
            "gib": found.gib,
            "unsynced_bytes": found.unsynced_bytes,
            "since_points_bytes": found.since_points_bytes,
            "dropped": found.dropped,
            "cached": found.cached,
        }
    )
    return lines
