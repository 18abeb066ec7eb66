"""The outcome of the experiments for a terminal, and as JSON. Owns the words; must not measure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ottla.bench import stats
from ottla.bench.stats import Spread, number
from ottla.bench.techniques.model import Experiment, Measure, Way

_WIDTH = 98

EXPLANATION = """\
Each figure is the median of the rounds, and in brackets the least and the most of them. 'times
better' compares round by round with the way that uses the technique: 2 means half the cost or twice
the rate; below 1 the technique does not help here. Better or worse is said only where every round
agrees; else no difference is shown, which does not mean that there is none.
What is quoted is what is usually said of a technique, and where it was measured; it is not ours."""


def text(experiment: Experiment) -> str:
    """One experiment: what was done, the table, what it shows, what is usually said."""
    out = [f"{experiment.technique}: {experiment.title}"]
    out += _wrapped(experiment.how)
    out += [f"  {row}" for row in stats.table(rows(experiment))]
    out += [f"  {way.name}: not measured: {way.absent}" for way in experiment.ways if way.absent]
    out += _wrapped(f"→ {experiment.verdict()}.")
    out += _wrapped(f"Quoted: {experiment.quoted}")
    return "\n".join(out) + "\n"


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def spread_of(found: Spread | None) -> str:
    """Median, least and most: `12.3 (11–14)`."""
    if found is None:
        return "-"
    low, high = number(found.least, digits=2), number(found.most, digits=2)
    return number(found.median) if low == high else f"{number(found.median)} ({low}–{high})"


def rows(experiment: Experiment) -> list[list[str]]:
    """A heading and a row for each way that was measured."""
    heading = [""]
    for measure in experiment.measures:
        heading += [measure.heading, "times better"] if measure.compared else [measure.heading]
    return [heading, *(_row(experiment, way) for way in experiment.ways if not way.absent)]


def _row(experiment: Experiment, way: Way) -> list[str]:
    cells = [way.name]
    for measure in experiment.measures:
        cells.append(spread_of(way.of(measure)))
        if measure.compared:
            cells.append(_ratio(experiment, way, measure))
    return cells


def _ratio(experiment: Experiment, way: Way, measure: Measure) -> str:
    if way is experiment.base:
        return "with it"
    found = experiment.times_better(way, measure)
    return "-" if found is None else number(found.median)


def summary(experiments: Sequence[Experiment]) -> list[list[str]]:
    """One row for each experiment: for the beginning of a report."""
    heading = ["technique", "with and without", "here", "usually quoted"]
    return [
        heading,
        *([one.technique, one.title, one.verdict(), one.usual or "-"] for one in experiments),
    ]
