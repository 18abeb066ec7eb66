"""Figures about groups: whether a budget is kept, and what the table and JSON say."""

import pytest

from ottla.bench.budgets import table
from ottla.bench.group_figures import OURS, Figure, rows, spreads


def figure(*values, **fields):
    return Figure("name", "ms", spreads({OURS: values}), **fields)


@pytest.mark.parametrize(
    ("values", "budget", "at_least", "met"),
    [
        ([90.0, 100.0, 300.0], 100.0, False, True),
        ([90.0, 101.0, 102.0], 100.0, False, False),
        ([99.0, 100.0, 101.0], 100.0, True, True),
        ([99.0], 100.0, True, False),
        ([99.0], None, False, None),
        ([], 100.0, False, None),
    ],
)
def test_the_median_keeps_a_budget_or_does_not(values, budget, at_least, met):
    assert figure(*values, budget=budget, at_least=at_least).met is met


def test_a_row_has_the_budget_beside_the_figure_and_each_peer_in_a_column():
    found = spreads({OURS: [1.0, 2.0, 4.0], "kafka": [3.0]})
    heading, row = rows([Figure("settles", "s", found, 2.0)], ["kafka", "other"])
    assert heading == ["", "unit", "budget", "ottla", "least-most", "met", "kafka", "other"]
    assert row == ["settles", "s", "≤ 2.00", "2.00", "1.00-4.00", "yes", "3.00", "-"]


def test_what_was_measured_once_has_no_range():
    assert rows([figure(5.0)], [])[1] == ["name", "ms", "", "5.00", "", ""]


def test_a_failure_says_why_there_is_no_figure():
    [_, row] = rows([figure(budget=1.0, failed="no answer")], [])
    assert row[0] == "name: not measured: no answer"
    assert row[3] == "-"


def test_json_has_every_broker_and_the_verdict():
    fields = figure(1.0, 3.0, budget=2.0).as_json()
    assert fields["who"] == {OURS: {"median": 2.0, "least": 1.0, "most": 3.0}}
    assert (fields["budget"], fields["met"]) == (2.0, True)
    assert "failed" not in fields


def test_the_page_lists_the_budgets_of_groups_with_the_best_round():
    lines = [figure(9.0, 12.0, 11.0, budget=10.0, at_least=True).as_json(), figure(1.0).as_json()]
    [row] = [row for row in table({"groups": lines}) if row[0] == "name"]
    assert row == ["name", "≥ 10.0 ms", "11.0", "12.0", "-", "yes"]
