"""A table of how cost grows with a size: its columns, its points, what is said about it.

Owns the shape of such a table and its verdicts. Must not measure or print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.bench.plot import Chart, Series
from ottla.bench.stats import number

Say = Callable[[str], None]

GROWN = 1.3
"""A cost that should not grow has grown when it is this many times what it was at the least."""


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that is measured at each size. `flat`: what its request doesn't touch grows."""

    name: str
    unit: str
    flat: bool = False
    at_most: float | None = None

    @property
    def heading(self) -> str:
        return f"{self.name}, {self.unit}"


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest sizes, and how long one measurement takes."""

    partitions: int = 10_000
    connections: int = 5_000
    log_mib: int = 1024
    seconds: float = 1.0


@dataclass(slots=True)
class Growth:
    """A table: a size in each row, and what was measured there (None: nothing to measure)."""

    name: str
    title: str
    size_name: str
    columns: Sequence[Column]
    points: list[tuple[int, list[float | None]]] = field(default_factory=list)

    def add(self, size: int, values: dict[str, float | None]) -> None:
        """By the columns' names; what is missing is None."""
        unknown = values.keys() - {column.name for column in self.columns}
        assert not unknown, unknown
        self.points.append((size, [values.get(column.name) for column in self.columns]))

    def values(self, column: Column) -> list[tuple[int, float]]:
        at = list(self.columns).index(column)
        return [(size, v) for size, values in self.points if (v := values[at]) is not None]

    def rows(self) -> list[list[str]]:
        heading = [self.size_name, *(column.heading for column in self.columns)]
        return [
            heading,
            *([f"{size:,}", *(number(value) for value in values)] for size, values in self.points),
        ]

    def verdicts(self) -> list[str]:
        """What grows though it shouldn't, and what is above its limit; else that nothing is."""
        said = []
        for column in self.columns:
            found = self.values(column)
            if not found:
                continue
            (first, low), (last, high) = found[0], found[-1]
            if column.flat and low > 0 and high > low * GROWN:
                said.append(
                    f"{column.name} grows: {number(low)} {column.unit} at {first:,}, "
                    f"{number(high)} at {last:,}"
                )
            if column.at_most is not None and high > column.at_most:
                said.append(
                    f"{column.name} is {number(high)} {column.unit} at {last:,}; "
                    f"at most {number(column.at_most)} are allowed"
                )
        flat = [column.name for column in self.columns if column.flat]
        return said or ([f"does not grow, as it must not: {', '.join(flat)}"] if flat else [])

    def chart(self) -> Chart:
        """Each column as a multiple of its value at the least size: what is flat doesn't grow."""
        series = []
        for column in self.columns:
            found = [(size, value) for size, value in self.values(column) if value > 0]
            if len(found) > 1:
                base = found[0][1]
                series.append(Series(column.heading, [(s, value / base) for s, value in found]))
        return Chart(self.title, self.size_name, "times its first value", series)

    def as_json(self) -> dict[str, Any]:
        names = [column.heading for column in self.columns]
        return {
            "growth": self.name,
            "title": self.title,
            "points": [
                {self.size_name: size, **dict(zip(names, values, strict=True))}
                for size, values in self.points
            ],
            "verdicts": self.verdicts(),
        }


def sizes(first: int, last: int, factor: int = 10) -> list[int]:
    """first, first × factor, … and last."""
    found = []
    while first < last:
        found.append(first)
        first *= factor
    return [*found, last]
