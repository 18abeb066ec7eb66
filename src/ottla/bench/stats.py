"""Medians, spreads and how a number is printed. Pure: numbers in, numbers and text out."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one thing: the middle one, the least and the greatest."""

    median: float
    least: float
    most: float

    @property
    def noise(self) -> float:
        """How far apart the extremes are, as a share of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "least": self.least, "most": self.most}


def spread(values: Iterable[float]) -> Spread | None:
    """Of any number of values; None of none."""
    found = list(values)
    if not found:
        return None
    return Spread(statistics.median(found), min(found), max(found))


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed. Raises ValueError of none."""
    if not ascending:
        raise ValueError("no values")
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Pairwise, since what was measured one after the other shares the machine's mood."""
    return [one / other for one, other in zip(ours, theirs, strict=False) if other]


def number(value: float | None, *, digits: int = 3) -> str:
    """About `digits` significant digits: 0.0123, 1.23, 12.3, 1,234; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    decimals = 0
    while size < 10 ** (digits - 1) and decimals < digits + 1:
        size *= 10
        decimals += 1
    return f"{value:,.{decimals}f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: the first is text to the left, the others stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The same as a table of a page; the first row is its heading."""
    ruler = ["--", *["--:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], ruler, *rows[1:])]
