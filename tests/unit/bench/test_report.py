"""Measured lines as text, as a page's table and as JSON; and whether budgets are met."""

import pytest

from ottla.bench import budgets, guard, page, plot, report, rounds, run
from ottla.bench.contenders import BARE, VARIANTS, Contender
from ottla.bench.grow_log import steps
from ottla.bench.growth_table import Column, Growth, sizes
from ottla.bench.pump import Measured
from ottla.bench.shapes import PRODUCE
from ottla.bench.usage import Cpu

SHAPE = PRODUCE[0]


def seen(answers=1000, client_cpu_s=0.1):
    return Measured(answers, answers * 100, answers * 200, 0.5, [0.001] * answers, client_cpu_s)


def line(name, *cpu_us, kind="ottla", client_cpu_s=0.1):
    """A line whose rounds took so many microseconds a request, a quarter of them the kernel's."""
    costs = [
        rounds.cost_of(SHAPE, seen(client_cpu_s=client_cpu_s), Cpu(us * 750e-6, us * 250e-6), 30.0)
        for us in cpu_us
    ]
    return rounds.Line(SHAPE, Contender(name, ("h", 1), 1, kind), costs)


@pytest.fixture
def lines():
    return [line("ottla", 10, 12, 14), line(BARE, 2, 3, 4, kind="bare"), line("kafka", 24, 24, 24)]


def test_a_cost_is_what_was_used_over_what_was_answered():
    cost = rounds.cost_of(SHAPE, seen(), Cpu(0.006, 0.004), 30.0)
    assert (cost.cpu_us, cost.per_second, cost.bytes_each) == (pytest.approx(10), 2000, 200)
    assert cost.s_per_gb == pytest.approx(50)
    assert cost.s_per_million_records == pytest.approx(10)
    assert cost.per_cpu_second == pytest.approx(100_000)
    assert cost.client_share == pytest.approx(0.2)


def test_a_broker_whose_process_is_unknown_has_a_rate_and_no_cost():
    cost = rounds.cost_of(SHAPE, seen(), None, None)
    assert (cost.cpu_us, cost.s_per_gb, cost.per_cpu_second) == (None, None, None)
    assert cost.per_second == 2000
    unknown = rounds.Line(SHAPE, Contender("far", ("h", 1), None, "peer"), [cost])
    assert report.cells(unknown, None)[1:6] == ["-", "-", "-", "-", "-"]


def test_the_ratio_is_that_of_rounds_which_shared_the_noise(lines):
    assert report.against(lines[0], lines[1]).median == pytest.approx(4.0)
    assert report.against(lines[1], lines[1]) is None


def test_the_text_has_a_row_for_each_and_says_why_one_is_missing(lines):
    lines.append(rounds.Line(SHAPE, Contender("gone", ("h", 1), 1), failed="it went away"))
    text = report.text(lines).splitlines()
    assert "8 connections, 16 in flight each" in text[0]
    assert [row.split()[0] for row in text[2:5]] == ["ottla", "bare", "kafka"]
    assert text[2].split()[1:4] == ["12.0", "10.0–14.0", "9.00"]
    assert [row.split()[0] for row in text[7:10]] == ["ottla", "bare", "kafka"]
    assert text[7].split()[1:3] == ["83,333", "2,000"]
    assert text[10].strip() == "gone: not measured: it went away"


def test_the_text_fits_a_terminal_of_80_columns(lines):
    longest = max((f"ottla, {one.name}" for one in VARIANTS), key=len)
    lines.append(line(longest, 1234, 1300, 1400, client_cpu_s=0.48))
    text = report.text(lines).partition("\n")[2]  # the load's own line may be longer
    assert max(map(len, f"{text}\n{report.EXPLANATION}".splitlines())) <= 80


def test_a_busy_machine_and_a_busy_client_are_remarked(lines):
    assert any("the rounds differ by 33%" in said for said in report.remarks(lines))
    busy = line("ottla", 10, client_cpu_s=0.48)
    assert any("96% of a core" in said for said in report.remarks([busy]))


def test_every_column_is_explained():
    for name in filter(None, report.HEADING):
        assert name.split()[0].split(",")[0] in report.EXPLANATION


def test_json_has_every_round_and_the_ratio(lines):
    [ours, bare, _] = report.as_json(lines)
    assert ours["load"] == "produce 100 B, depth 16"
    assert ours["cpu_us"] == {"median": 12.0, "least": 10.0, "most": pytest.approx(14.0)}
    assert ours["cpu_us_rounds"] == pytest.approx([10, 12, 14])
    assert ours["ratio_to_bare"]["median"] == pytest.approx(4.0)
    assert bare["ratio_to_bare"] is None


def test_a_page_s_table_has_as_many_cells_in_each_row(lines):
    rows = report.page(lines)
    assert len({row.count("|") for row in rows}) == 1
    assert rows[0].startswith("| produce 100 B, depth 16 |")


def test_a_budget_is_met_by_the_median_or_else_by_the_best_round_or_not_at_all():
    assert budgets.verdict({"median": 10, "least": 9}, 10) == "yes"
    assert budgets.verdict({"median": 11, "least": 9}, 10) == "in the best round"
    assert budgets.verdict({"median": 12, "least": 11}, 10) == "no"
    assert budgets.verdict(None, 10) == "not measured"


def test_budgets_stand_beside_the_bare_loop_and_each_peer(lines):
    results = {
        "produce": report.as_json(lines),
        "start": [{"what": "first answer", "budget_ms": 150.0, "ms": {"median": 90, "least": 80}}],
        "idle": [{"what": "recovery", "value": 2.0, "unit": "GB/s", "budget": 1.0, "at_least": True,
                  "met": True}],
    }  # fmt: skip
    rows = budgets.table(results)
    assert rows[0] == ["", "budget", "ottla", "least", "bare loop", "kafka", "met"]
    assert rows[1][1:] == ["≤ 16.0 µs", "12.0", "10.0", "3.00", "24.0", "yes"]
    assert rows[2][-1] == "not measured"
    assert rows[-2][0] == "first answer"
    assert rows[-1][:3] == ["recovery", "≥ 1.00 GB/s", "2.00"]
    assert len({len(row) for row in rows}) == 1


def test_every_budget_names_a_load_and_a_field_that_exist():
    loads = {f"{shape.kind} {shape.name}" for kind in run.KINDS.values() for shape in kind}
    for budget in budgets.BUDGETS:
        assert budget.load in loads
        assert budget.field in (*rounds.FIELDS, "ratio_to_bare")


def test_only_what_lies_between_the_markers_is_replaced():
    text = "a\n<!-- bench: x -->\nold\n<!-- end: x -->\nb\n"
    assert page.replace_between(text, "x", r"new \1") == (
        "a\n<!-- bench: x -->\nnew \\1\n<!-- end: x -->\nb\n"
    )
    assert page.sections_in(text) == ["x"]


@pytest.mark.parametrize("text", ["", "<!-- bench: x -->\n", "<!-- end: x -->\n"])
def test_a_page_without_the_markers_is_refused(text):
    with pytest.raises(ValueError, match="needs one pair of lines"):
        page.replace_between(text, "x", "new")


def test_an_unknown_section_is_refused_with_those_of_the_page(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("<!-- bench: codec -->\n<!-- end: codec -->\n")
    with pytest.raises(ValueError, match="it has: codec"):
        next(page.write(str(file), ["nonsense"], page.Plan(), run.quiet))


def test_a_load_that_became_dearer_is_named():
    said = guard.summary({"a": 2.0, "b": 3.0}, {"a": 2.1, "b": 3.6, "c": 1.0})
    assert "a: 2.10 × the bare loop, recorded 2.00 (+5%)" in said
    assert "more than 10% dearer: b." in said
    assert "c: 1.00, not recorded" in said


def test_a_load_that_stayed_as_it_was_is_no_news():
    assert "nothing is more than 10% dearer" in guard.summary({"a": 2.0}, {"a": 1.5})


def test_what_is_recorded_is_compared_with(tmp_path):
    file = str(tmp_path / "ratios.json")
    assert "isn't there yet" in guard.compare(file, {"a": 2.0})
    guard.record(file, {"a": 2.0})
    assert "+50%" in guard.compare(file, {"a": 3.0})


@pytest.fixture
def grown():
    columns = (Column("one", "KiB", at_most=64), Column("other", "µs", flat=True))
    table = Growth("things", "Things", "things", columns)
    table.add(1, {"other": 10.0})
    table.add(10, {"one": 2.0, "other": 10.5})
    table.add(100, {"one": 3.0, "other": 11.0})
    return table


def test_what_should_not_grow_and_does_not_is_said(grown):
    assert grown.verdicts() == ["does not grow, as it must not: other"]
    assert grown.rows()[1] == ["1", "-", "10.0"]


def test_what_grows_though_it_should_not_is_said_with_both_ends(grown):
    grown.add(1000, {"one": 65.0, "other": 99.0})
    assert grown.verdicts() == [
        "one is 65.0 KiB at 1,000; at most 64.0 are allowed",
        "other grows: 10.0 µs at 1, 99.0 at 1,000",
    ]


def test_sizes_are_tenfold_and_end_where_they_shall():
    assert sizes(1, 5000) == [1, 10, 100, 1000, 5000]
    assert sizes(1, 1) == [1]
    assert steps(10_240) == [10, 100, 1000, 5120, 10_240]
    assert steps(10) == [10]


def test_a_plot_has_a_curve_for_each_column_and_is_well_formed(grown):
    from xml.etree import ElementTree

    picture = ElementTree.fromstring(plot.svg(grown.chart()))
    curves = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(curve.get("points").split()) for curve in curves] == [2, 3]


def test_a_plot_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.svg(plot.Chart("t", "x", "y", [plot.Series("s", [(1, 0.0)])]))


def test_an_axis_is_named_as_its_numbers_are_read():
    assert [plot.power_label(e) for e in (-2, 0, 3, 6, 7)] == ["0.01", "1", "1,000", "1M", "10M"]
    assert plot.decades([3, 250]) == (0, 3)
    assert plot.decades([10, 10]) == (1, 2)
