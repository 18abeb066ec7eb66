"""The budgets: what each figure may be at most, and whether it is.

Owns the list. Pure: measured lines as JSON in (see report.as_json), a table out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ottla.bench.contenders import BARE
from ottla.bench.stats import number

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""By section of the page: `produce`, `variants`, `fetch`, `start`, `idle`, …"""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one figure may be. `field` is one of rounds.FIELDS, or `ratio_to_bare`."""

    what: str
    section: str
    load: str
    field: str
    at_most: float
    unit: str
    who: str = "ottla"


_P, _V, _F = "produce", "variants", "fetch"
_ALONE, _SYNCED = "produce 100 B, alone", "ottla, synced"
BUDGETS = (
    Budget("produce, 100 B, depth 16", _P, "produce 100 B, depth 16", "cpu_us", 16, "µs"),
    Budget("the same, depth 1", _P, "produce 100 B, depth 1", "cpu_us", 25, "µs"),
    Budget("produce, 16 KiB", _P, "produce 16 KiB", "cpu_us", 32, "µs"),
    Budget("produce, 1 MiB", _P, "produce 1 MiB", "s_per_gb", 0.55, "s/GB"),
    Budget("the same, to the bare loop", _P, "produce 1 MiB", "ratio_to_bare", 1.35, "×"),
    Budget("produce, 1 KiB, librdkafka", _P, "librdkafka 1 KiB messages", "s_per_gb", 0.65, "s/GB"),
    Budget("fetch, 1 MiB, to the bare loop", _F, "fetch 1 MiB", "ratio_to_bare", 1.5, "×"),
    Budget("fetch, 100 B, depth 8", _F, "fetch 100 B, depth 8", "cpu_us", 20, "µs"),
    Budget("latency of one record, p50", _P, f"{_ALONE}, one processor", "p50_ms", 0.06, "ms"),
    Budget("the same, across two processors", _P, _ALONE, "p50_ms", 0.06, "ms"),
    Budget("latency of one record, p99.9", _P, _ALONE, "p999_ms", 1, "ms"),
    Budget("the same, synced, p50", _V, _ALONE, "p50_ms", 0.5, "ms", _SYNCED),
    Budget("the same, synced, p99.9", _V, _ALONE, "p999_ms", 3, "ms", _SYNCED),
)


def spread_of(results: Results, section: str, load: str, who: str, field: str) -> Any:
    """The measured median, least and most; None if there are none."""
    for line in results.get(section, ()):
        if line.get("load") == load and line.get("who") == who:
            return line.get(field)
    return None


def verdict(found: Mapping[str, float] | None, at_most: float) -> str:
    if found is None:
        return "not measured"
    if found["median"] <= at_most:
        return "yes"
    return "in the best round" if found["least"] <= at_most else "no"


def peers_of(results: Results) -> list[str]:
    """The names of brokers other than ottla, in the order in which they were measured."""
    names = (line.get("who", "") for line in results.get("produce", ()))
    return list(dict.fromkeys(n for n in names if n != BARE and not n.startswith("ottla")))


def table(results: Results) -> list[list[str]]:
    """Every budget: what is allowed, what was measured beside it, and whether it is met."""
    peers = peers_of(results)
    rows = [["", "budget", "ottla", "least", "bare loop", *peers, "met"]]
    for budget in BUDGETS:
        place = (budget.section, budget.load)
        found = spread_of(results, *place, budget.who, budget.field)
        others = [spread_of(results, *place, name, budget.field) for name in (BARE, *peers)]
        if budget.field == "ratio_to_bare":
            others[0] = {"median": 1.0}
        rows.append(
            [
                budget.what,
                f"≤ {number(budget.at_most)} {budget.unit}",
                number(found["median"] if found else None),
                number(found["least"] if found else None),
                *(number(other["median"] if other else None) for other in others),
                verdict(found, budget.at_most),
            ]
        )
    rows += _starts(results, len(peers))
    rows += _rest(results, len(peers))
    rows += _groups(results, peers)
    return rows


def _starts(results: Results, peers_count: int) -> list[list[str]]:
    rows = []
    for line in results.get("start", ()):
        if (budget := line.get("budget_ms")) is not None:
            found = line.get("ms")
            rows.append(
                [
                    str(line["what"]),
                    f"≤ {number(budget)} ms",
                    number(found["median"] if found else None),
                    number(found["least"] if found else None),
                    *["-"] * (1 + peers_count),
                    verdict(found, budget),
                ]
            )
    return rows


def _rest(results: Results, peers_count: int) -> list[list[str]]:
    rows = []
    for line in results.get("idle", ()):
        if (budget := line.get("budget")) is not None:
            sign = "≥" if line.get("at_least") else "≤"
            value = number(line.get("value"))
            rows.append(
                [
                    str(line["what"]),
                    f"{sign} {number(budget)} {line['unit']}",
                    value,
                    value,
                    *["-"] * (1 + peers_count),
                    "yes" if line.get("met") else "no",
                ]
            )
    return rows


def _groups(results: Results, peers: Sequence[str]) -> list[list[str]]:
    rows = []
    for line in results.get("groups", ()):
        if (budget := line.get("budget")) is not None:
            at_least, found = line.get("at_least"), line.get("who", {})
            ours = found.get("ottla")
            best = "most" if at_least else "least"
            others = [found.get(name) for name in peers]
            rows.append(
                [
                    str(line["what"]),
                    f"{'≥' if at_least else '≤'} {number(budget)} {line['unit']}",
                    number(ours["median"] if ours else None),
                    number(ours[best] if ours else None),
                    "-",
                    *(number(other["median"] if other else None) for other in others),
                    {True: "yes", False: "no", None: "not measured"}[line.get("met")],
                ]
            )
    return rows
