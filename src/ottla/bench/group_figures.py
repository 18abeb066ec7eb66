"""Figures about groups: a budget, what ottla needs, what other brokers need, and the table of them.

Pure: numbers in, rows and JSON out. Must not measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.bench.stats import Spread, number, spread

OURS = "ottla"

EXPLANATION = """\
least-most: the best and the worst round; where there is one number, it was measured once. met:
whether the median keeps the budget. A dash: not measured, since a broker that was named can't be
started anew by us, its process is not ours to see, or its memory says nothing about one member.
first record: wall time from subscribe() to the record, confluent-kafka with its defaults, in a
  process of its own; 'fresh' means a broker that was started on an empty directory for this round
  (a peer: only if it has no __consumer_offsets yet); 'later' is the next new group on it.
handling: what a client of ours waits for that asks the next question as soon as it has the answer,
  and again after 1 ms where the broker isn't ready: FindCoordinator to the first Fetch with a
  record. So it is what the broker does and how long it keeps requests, and nothing of a client's.
first use: of that, FindCoordinator and JoinGroup, which has the internal topic made and a shard
  loaded, both with their way there and back; sent away: answers such as COORDINATOR_NOT_AVAILABLE,
  after which a client waits for its retry interval.
commits: OffsetCommit of one partition by a member, over 16 connections; commits that one second
  of the broker's CPU is enough for (user and system, all threads, by the kernel's count).
settling: CPU of the broker from the first JoinGroup (or heartbeat) until every member has its part
  in one and the same generation (epoch). At once: all ask in the same moment, which a classic
  group may take in one generation; within 2 s: one after the other, which takes at least two.
  Classic members have a connection each, since a parked join keeps what is behind it waiting, and
  a heartbeat each 3 s; those of KIP-848 share eight and keep the interval that the broker names.
  Most of the wall time is those intervals.
idle member: memory of the broker when all have settled, less that from before they joined with all
  connections open and used, by the number of members.
loading: from the start of the process until offsets of all groups are answered, starting included.
  Nothing is extrapolated: the name says how many were loaded, and only a million has a budget.
Groups that were made on a peer stay there until its retention ends them; topics are deleted."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, of every broker that it could be measured of."""

    name: str
    unit: str
    found: Mapping[str, Spread] = field(default_factory=dict)
    budget: float | None = None
    at_least: bool = False
    failed: str = ""

    @property
    def met(self) -> bool | None:
        """Of ottla; None without a budget or a figure."""
        ours = self.found.get(OURS)
        if ours is None or self.budget is None:
            return None
        return ours.median >= self.budget if self.at_least else ours.median <= self.budget

    def as_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "what": self.name,
            "unit": self.unit,
            "budget": self.budget,
            "at_least": self.at_least,
            "met": self.met,
            "who": {name: spread.as_json() for name, spread in self.found.items()},
        }
        return fields | ({"failed": self.failed} if self.failed else {})


def spreads(values: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """Of each that has any value."""
    return {name: found for name, one in values.items() if (found := spread(one)) is not None}


def _range(found: Spread | None) -> str:
    if found is None or found.least == found.most:
        return ""
    return f"{number(found.least)}-{number(found.most)}"


def rows(figures: Sequence[Figure], peers: Sequence[str]) -> list[list[str]]:
    """A heading and one row for each figure; a peer has a column of its own."""
    table = [["", "unit", "budget", OURS, "least-most", "met", *peers]]
    for figure in figures:
        ours = figure.found.get(OURS)
        sign = "≥" if figure.at_least else "≤"
        medians = [figure.found.get(peer) for peer in peers]
        table.append(
            [
                f"{figure.name}: not measured: {figure.failed}" if figure.failed else figure.name,
                figure.unit,
                "" if figure.budget is None else f"{sign} {number(figure.budget)}",
                number(ours.median if ours else None),
                _range(ours),
                {True: "yes", False: "no", None: ""}[figure.met],
                *(number(one.median if one else None) for one in medians),
            ]
        )
    return table
