"""The report as one HTML file: tables and bar charts, nothing loaded from anywhere.

Owns the page's looks. Pure: experiments in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ottla.bench.stats import Spread, number
from ottla.bench.techniques import table
from ottla.bench.techniques.model import Experiment, Measure, Way

_STYLE = """\
:root { color-scheme: light dark; --ink: #1d2733; --soft: #566370; --line: #d5dbe1;
  --page: #ffffff; --with: #0a7d5a; --without: #9aa7b4; --worse: #b3371f; --track: #f1f4f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa7b4; --line: #34404c;
  --page: #151b21; --with: #37b98d; --without: #66758a; --worse: #f08066; --track: #1d252d; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.8rem; margin-bottom: 0; line-height: 1.2; }
h2 { margin-top: 3rem; font-size: 1.3rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .2rem; } p { margin: .4rem 0; }
a { color: inherit; text-decoration-color: var(--without); }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { border-left: 4px solid var(--with); padding-left: .8rem; }
.verdict.worse { border-color: var(--worse); } .verdict.same { border-color: var(--without); }
strong { color: var(--worse); }
.quoted { font-style: italic; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem 1.1rem .25rem 0; text-align: right;
  vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words { min-width: 36rem; }
figure { margin: .8rem 0; } figcaption { margin-top: .3rem; }
.bar { display: grid; grid-template-columns: 13rem 1fr 5rem; gap: .2rem .8rem;
  align-items: center; margin: .3rem 0; font-size: .9rem; line-height: 1.3; }
.track { position: relative; height: 1.3rem; background: var(--track); border-radius: 3px; }
.track i { position: absolute; top: 0; bottom: 0; left: 0; min-width: 2px; border-radius: 3px;
  background: var(--without); }
.track.with i { background: var(--with); }
.track b { position: absolute; top: 50%; margin-top: -1px; height: 2px; min-width: 1px;
  background: var(--ink); }
.value { font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { .bar { grid-template-columns: 1fr 4rem; }
  .name { grid-column: 1 / -1; } }
"""


def page(experiments: Sequence[Experiment], machine: str, when: str) -> str:
    """The whole file."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>ottla: the seven techniques, with and without</title>",
        f"<style>\n{_STYLE}</style></head><body>",
        "<h1>The seven techniques, with and without</h1>",
        f'<p class="soft">{escape(machine)}; {escape(when)}. Measured in one run by '
        "<code>ottla bench techniques</code>, the ways of each experiment in turn, round after "
        "round, on the same bytes.</p>",
        "<p>Seven techniques make such a log fast: sequential I/O, zero-copy, the page cache, "
        "batches that stay compressed, partitions, offsets; and, since all of them make the cost "
        "one of batches, the seventh: millions of messages a second. Here each is switched off to "
        "see what it is worth on this machine. Where it is worth nothing, that is said.</p>",
        f'<div class="wide">{_summary(experiments)}</div>',
    ]
    technique = ""
    for number_, one in enumerate(experiments):
        if one.technique != technique:
            technique = one.technique
            parts.append(f"<h2>{escape(technique)}</h2>")
        parts += _section(one, number_)
    parts += [
        "<h2>How to read this</h2>",
        f"<p>{escape(' '.join(table.EXPLANATION.split()))}</p>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(experiments: Sequence[Experiment]) -> str:
    """The first table: its titles lead to the sections."""
    head, *rows = table.summary(experiments)
    cells = [
        f"<td>{escape(technique)}</td>"
        f'<td><a href="#e{number_}">{escape(title)}</a></td>'
        f"<td>{_said(verdict)}</td><td>{escape(usual)}</td>"
        for number_, (technique, title, verdict, usual) in enumerate(rows)
    ]
    return _framed([f"<th>{escape(cell)}</th>" for cell in head], cells, "words")


def _said(verdict: str) -> str:
    return escape(verdict).replace("WORSE", "<strong>worse</strong>")


def _section(one: Experiment, number_: int) -> list[str]:
    verdict = one.verdict()
    absent = [
        f'<p class="soft">{escape(way.name)}: not measured: {escape(way.absent)}.</p>'
        for way in one.ways
        if way.absent
    ]
    return [
        f'<h3 id="e{number_}">{escape(one.title)}</h3>',
        f'<p class="soft">{escape(one.how)}</p>',
        _chart(one, one.measures[0]),
        f'<div class="wide">{_table(table.rows(one))}</div>',
        *absent,
        f'<p class="verdict {_colour(verdict)}">{_said(verdict)}.</p>',
        f'<p class="quoted">Quoted: {escape(one.quoted)}</p>',
    ]


def _colour(verdict: str) -> str:
    if "WORSE" in verdict:
        return "worse"
    return "" if "times better" in verdict else "same"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = [f"<th>{escape(cell)}</th>" for cell in rows[0]]
    return _framed(head, ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows[1:]])


def _framed(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    top = "".join(head)
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _chart(one: Experiment, measure: Measure) -> str:
    """Bars from zero, the range of the rounds as a line over each."""
    shown = [(way, found) for way in one.ways if (found := way.of(measure)) is not None]
    if not shown:
        return '<p class="soft">Nothing was measured.</p>'
    most = max(found.most for _, found in shown) or 1.0
    better = "more is better" if measure.more_is_better else "less is better"
    label = escape(f"{one.title}: {measure.heading}", quote=True)
    bars = "".join(_bar(way, found, most, with_it=way is one.base) for way, found in shown)
    caption = f"{escape(measure.heading)}; {better}; the line is the range of the rounds."
    return (
        f'<figure><div role="img" aria-label="{label}">{bars}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _bar(way: Way, found: Spread, most: float, *, with_it: bool) -> str:
    width, left, right = (value / most * 100 for value in (found.median, found.least, found.most))
    return (
        f'<div class="bar"><span class="name">{escape(way.name)}</span>'
        f'<span class="track{" with" if with_it else ""}"><i style="width:{width:.2f}%"></i>'
        f'<b style="left:{left:.2f}%;width:{right - left:.2f}%"></b></span>'
        f'<span class="value">{escape(number(found.median))}</span></div>'
    )
