"""Experiments with and without a technique: in which order, how compared, how told."""

import re

import pytest

from ottla.bench.techniques import html, run, table
from ottla.bench.techniques.model import Experiment, Measure, NotHere, Way

RATE = Measure("rate", "MB/s", more_is_better=True)
CPU = Measure("CPU", "s/GB")


def way(name, *figures):
    """A way whose rounds give these, one after the other; the first is the warm-up's."""
    left = iter(figures)
    return Way(name, lambda: next(left))


def experiment(*ways, measures=(RATE,), ladder=False):
    return Experiment("2 Copies", "a < b", "How.", "Said.", measures, ways, ladder=ladder)


def quiet(_sentence):
    pass


def test_ways_take_turns_and_the_first_turn_does_not_count():
    turns = []

    def counting(name):
        return Way(name, lambda: turns.append(name) or {"rate": float(len(turns))})

    tried = experiment(counting("with"), counting("without"))
    tried.measure_all(2, quiet)
    assert turns == ["with", "without"] * 3
    assert tried.ways[0].values(RATE) == [3.0, 5.0]


def test_better_is_more_of_a_rate_and_less_of_a_cost():
    ways = (
        way("with", {}, {"rate": 40.0, "CPU": 1.0}),
        way("without", {}, {"rate": 10.0, "CPU": 3.0}),
    )
    tried = experiment(*ways, measures=(RATE, CPU))
    tried.measure_all(1, quiet)
    assert tried.times_better(ways[0], RATE) is None
    assert tried.times_better(ways[1], RATE).median == 4.0
    assert tried.times_better(ways[1], CPU).median == 3.0


def test_the_ratio_is_that_of_rounds_which_shared_the_noise():
    ways = (
        way("with", {}, {"rate": 10.0}, {"rate": 100.0}, {"rate": 20.0}),
        way("without", {}, {"rate": 5.0}, {"rate": 50.0}, {"rate": 10.0}),
    )
    tried = experiment(*ways)
    tried.measure_all(3, quiet)
    found = tried.times_better(ways[1], RATE)
    assert (found.least, found.median, found.most) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("without", "said"),
    [(5.0, "2.00 times better than"), (10.5, "no better and no worse"), (30.0, "3.00 times WORSE")],
)
def test_the_verdict_says_it_when_a_technique_does_not_help(without, said):
    tried = experiment(way("with", {}, {"rate": 10.0}), way("other", {}, {"rate": without}))
    tried.measure_all(1, quiet)
    assert said in tried.verdict()


def test_steps_are_compared_with_the_last_of_them():
    tried = experiment(way("1", {}, {"rate": 1.0}), way("10", {}, {"rate": 8.0}), ladder=True)
    tried.measure_all(1, quiet)
    assert tried.verdict() == "rate of 10: 8.00 times better than 1"


def test_what_this_machine_lacks_is_said_and_stops_nothing():
    def missing():
        raise NotHere("no such server")

    tried = experiment(way("with", {}, {"rate": 1.0}), Way("other", missing))
    tried.measure_all(1, quiet)
    assert "other: not measured: no such server" in table.text(tried)
    assert tried.verdict() == "nothing to compare with was measured here"
    assert {"way": "other", "absent": "no such server"} in tried.as_json()["ways"]


def test_the_report_needs_nothing_from_elsewhere_and_escapes_what_it_shows():
    tried = experiment(way("with", {}, {"rate": 4.0}), way("<b>", {}, {"rate": 2.0}))
    tried.measure_all(1, quiet)
    page = html.page([tried], "machine & co", "today")
    assert not re.search(r"(src|href|@import|url\()", page)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "a &lt; b" in page
    widths = [float(width) for width in re.findall(r'rect x="190" y="\d+" width="([\d.]+)"', page)]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_a_name_that_is_no_technique_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="page-cache"):
        next(run.measure(["telepathy"], 1, quiet))
