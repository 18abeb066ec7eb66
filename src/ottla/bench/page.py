"""The whole measurement, written into a page between its markers, and beside it as JSON.

Owns the sections and how long each takes: under 25 minutes in all. Text outside the markers is
the reader's and is never touched.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ottla.bench import (
    budgets,
    codec,
    cold,
    compare,
    contenders,
    group_figures,
    group_offsets,
    groups,
    growth,
    idle,
    plot,
    pump,
    recover,
    recover_figures,
    report,
    run,
    start,
    stats,
    transactions,
    usage,
)
from ottla.bench.contenders import Peer
from ottla.bench.growth_table import Limits
from ottla.bench.rounds import Line, Say, Settings
from ottla.core.version import __version__

Body = tuple[list[str], list[dict[str, Any]]]
"""Lines of the page, and the same figures as JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    peers: Sequence[Peer] = ()
    rounds: int = 3
    seconds: float = 1.5
    log_mib: int = 10_240
    partitions: int = 10_000
    connections: int = 5_000
    plots: Path = field(default_factory=lambda: Path("plots"))
    recover_whole: bool = False

    @property
    def main(self) -> Settings:
        return Settings(rounds=self.rounds, seconds=self.seconds, warm_up_s=3.0)

    @property
    def brief(self) -> Settings:
        """For what is shown beside: shorter."""
        rounds = max(2, self.rounds // 2)
        return Settings(rounds=rounds, seconds=self.seconds / 3, warm_up_s=1.5)


def replace_between(text: str, name: str, body: str) -> str:
    """The page with `body` between the markers of `name`. Raises ValueError if it has none."""
    begin, end = f"<!-- bench: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the page needs one pair of lines {begin!r} and {end!r}")
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def sections_in(text: str) -> list[str]:
    """The names that the page has markers for, in its order."""
    return re.findall(r"<!-- bench: (\S+) -->", text)


def stamp(seconds: float, stolen: float | None) -> str:
    """When and where; how busy the machine was."""
    load = os.getloadavg()[0]
    busy = f", {stolen:.0%} of CPU time taken by the host" if stolen is not None else ""
    return (
        f"*{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, ottla {__version__}, {usage.machine()}; "
        f"load average {load:.1f}{busy}; measured in {seconds:.0f} s.*"
    )


def _loads(kind: str, plan: Plan, settings: Settings, variants: Sequence[str], say: Say) -> Body:
    wanted = run.Wanted(
        kind=kind,
        variants=contenders.find_variants(variants),
        peers=() if variants else plan.peers,
        settings=settings,
    )
    body: list[str] = []
    found: list[dict[str, Any]] = []

    def done(lines: list[Line]) -> None:
        body.extend([*report.page(lines), ""])
        for remark in report.remarks(lines):
            body.extend([f"{remark[:1].upper()}{remark[1:]}.", ""])
        found.extend(report.as_json(lines))

    run.measure(wanted, done, say)
    return body, found


def _produce(plan: Plan, say: Say) -> Body:
    return _loads("produce", plan, plan.main, (), say)


def _fetch(plan: Plan, say: Say) -> Body:
    return _loads("fetch", plan, plan.main, (), say)


def _requests(plan: Plan, say: Say) -> Body:
    return _loads("requests", plan, plan.brief, (), say)


def _variants(plan: Plan, say: Say) -> Body:
    names = [variant.name for variant in contenders.VARIANTS]
    body, found = _loads("produce", plan, plan.brief, names, say)
    means = [f"- {variant.name}: {variant.means}" for variant in contenders.VARIANTS]
    return [*means, "", *body], found


def _codec(_plan: Plan, say: Say) -> Body:
    say("codec")
    found = codec.timings(7)
    return stats.markdown(codec.rows(found)), [one.as_json() for one in found]


def _start(_plan: Plan, say: Say) -> Body:
    found = start.measure(7, say)
    return stats.markdown(start.rows(found)), [one.as_json() for one in found]


def _idle(plan: Plan, say: Say) -> Body:
    found = idle.measure(5.0, 1000, 1024, plan.peers, say)
    return stats.markdown(idle.rows(found)), [one.as_json() for one in found]


def _groups(plan: Plan, say: Say) -> Body:
    wanted = groups.Plan(
        rounds=plan.rounds,
        seconds=plan.seconds / 2,
        commits=group_offsets.WHOLE,
        peers=plan.peers,
    )
    found = [figure for figures in groups.measure(wanted, say) for figure in figures]
    table = group_figures.rows(found, [peer.name for peer in plan.peers])
    return stats.markdown(table), [figure.as_json() for figure in found]


def _transactions(plan: Plan, say: Say) -> Body:
    measured = transactions.measure(plan.rounds, plan.seconds, plan.peers, say)
    found = [figure for figures in measured for figure in figures]
    others = [transactions.SYNCED, *(peer.name for peer in plan.peers)]
    table = group_figures.rows(found, others)
    return stats.markdown(table), [figure.as_json() for figure in found]


def _cold(plan: Plan, say: Say) -> Body:
    found = cold.measure(cold.Wanted(rounds=plan.rounds, peers=plan.peers), say)
    return stats.markdown(cold.rows(found)), cold.as_json(found)


def _recover(plan: Plan, say: Say) -> Body:
    wanted = recover.Wanted(rounds=plan.rounds)
    if not plan.recover_whole:
        wanted = recover.Wanted(wanted.partitions // 10, wanted.gib / 10, plan.rounds)
    found = recover.measure(wanted, say)
    table = stats.markdown(recover_figures.rows(found))
    said = [f"- {line}" for line in recover_figures.conditions(found)]
    return [*table, "", *said], recover_figures.as_json(found)


def _compare(plan: Plan, say: Say) -> Body:
    body: list[str] = []
    found: list[dict[str, Any]] = []

    def done(lines: list[Line]) -> None:
        conditions = f"{lines[0].shape.conditions}, acks={lines[0].contender.acks}"
        body.extend([f"{conditions}:", "", *stats.markdown(compare.rows(lines)), ""])
        found.extend(compare.as_json(lines))

    compare.measure(compare.Wanted(plan.peers, settings=plan.brief), done, say)
    return body, found


def _grown(name: str) -> Callable[[Plan, Say], Body]:
    def measured(plan: Plan, say: Say) -> Body:
        limits = Limits(plan.partitions, plan.connections, plan.log_mib, seconds=plan.seconds / 2)
        [found] = growth.measure([name], limits, say)
        plan.plots.mkdir(exist_ok=True)
        file = plan.plots / f"growth-{name}.svg"
        file.write_text(plot.svg(found.chart()), encoding="utf-8")
        link = f"![{found.title}]({plan.plots.name}/{file.name})"
        said = [f"- {verdict}" for verdict in found.verdicts()]
        return [*stats.markdown(found.rows()), "", *said, "", link], [found.as_json()]

    return measured


SECTIONS: dict[str, Callable[[Plan, Say], Body]] = {
    "produce": _produce,
    "fetch": _fetch,
    "variants": _variants,
    "requests": _requests,
    "codec": _codec,
    "start": _start,
    "idle": _idle,
    "groups": _groups,
    "transactions": _transactions,
    "cold": _cold,
    "recover": _recover,
    "compare": _compare,
    "growth-batches": _grown("batches"),
    "growth-connections": _grown("connections"),
    "growth-partitions": _grown("partitions"),
    "growth-log": _grown("log"),
}
BUDGETS = "budgets"
"""Made of what the other sections measured, now or before."""


@dataclass(frozen=True, slots=True)
class Done:
    """A section that was measured, or why it was not: then the page keeps what it had."""

    name: str
    number: int
    of: int
    seconds: float
    failed: str = ""

    def __str__(self) -> str:
        text = f"{self.number} of {self.of}: {self.name}, {self.seconds:.0f} s"
        return f"{text}; FAILED: {self.failed}" if self.failed else text


def write(file: str, names: Sequence[str], plan: Plan, say: Say) -> Iterator[Done]:
    """Measure the sections (all that the page has markers for) and write each as it is done.

    One that fails keeps no other from being measured. Raises ValueError for a page or name
    that doesn't fit.
    """
    path = Path(file)
    there = sections_in(path.read_text(encoding="utf-8"))
    wanted = list(names) or [name for name in SECTIONS if name in there]
    for name in wanted:
        if name not in SECTIONS or name not in there:
            fitting = ", ".join(known for known in SECTIONS if known in there)
            raise ValueError(f"{file} has no section {name!r}; it has: {fitting or 'none'}")
    figures = path.with_suffix(".json")
    results = json.loads(figures.read_text()) if figures.exists() else {}
    plan = replace(plan, plots=path.parent / "plots")
    for number, name in enumerate(wanted, 1):
        begun, ticks = time.perf_counter(), _ticks()
        try:
            body, results[name] = SECTIONS[name](plan, say)
        except (pump.LoadFailed, OSError, ValueError, usage.Unmeasurable) as failure:
            seconds = time.perf_counter() - begun
            yield Done(name, number, len(wanted), seconds, str(failure))
            continue
        seconds = time.perf_counter() - begun
        stolen = usage.stolen_share(ticks, _ticks()) if ticks else None
        _put(path, name, [stamp(seconds, stolen), "", *body])
        figures.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n")
        if BUDGETS in there:
            _put(path, BUDGETS, stats.markdown(budgets.table(results)))
        yield Done(name, number, len(wanted), seconds)


def _put(path: Path, name: str, body: Sequence[str]) -> None:
    """Read again right before, since somebody may have written meanwhile."""
    text = path.read_text(encoding="utf-8")
    path.write_text(replace_between(text, name, "\n".join(body).rstrip()), encoding="utf-8")


def _ticks() -> str:
    path = Path("/proc/stat")
    return path.read_text() if path.exists() else ""
