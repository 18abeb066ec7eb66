"""The report as one HTML file: tables and bar charts, nothing loaded from anywhere.

Owns the page's looks. Pure: experiments in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ottla.bench.stats import number
from ottla.bench.techniques import table
from ottla.bench.techniques.model import Experiment, Measure, Way

_LABEL, _WIDTH, _BAR, _GAP, _VALUE = 190, 720, 22, 10, 150

_STYLE = """\
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6876; --line: #d5dbe1;
  --page: #ffffff; --with: #0a7d5a; --without: #9aa7b4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa7b4; --line: #34404c;
  --page: #151b21; --with: #37b98d; --without: #5d6b79; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.8rem; margin-bottom: 0; } h2 { margin-top: 3rem; font-size: 1.3rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .2rem; } p { margin: .4rem 0; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { border-left: 4px solid var(--with); padding-left: .8rem; }
.quoted { font-style: italic; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0;
  font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right;
  vertical-align: top; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
svg { width: 100%; height: auto; max-width: 45rem; } svg text { fill: var(--ink); font-size: 13px; }
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
        f'<div class="wide">{_table(table.summary(experiments), "words")}</div>',
    ]
    technique = ""
    for one in experiments:
        if one.technique != technique:
            technique = one.technique
            parts.append(f"<h2>{escape(technique)}</h2>")
        parts += _section(one)
    parts += [
        "<h2>How to read this</h2>",
        f"<p>{escape(' '.join(table.EXPLANATION.split()))}</p>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(one: Experiment) -> list[str]:
    absent = [
        f'<p class="soft">{escape(way.name)}: not measured: {escape(way.absent)}.</p>'
        for way in one.ways
        if way.absent
    ]
    return [
        f"<h3>{escape(one.title)}</h3>",
        f'<p class="soft">{escape(one.how)}</p>',
        _chart(one, one.measures[0]),
        f'<div class="wide">{_table(table.rows(one))}</div>',
        *absent,
        f'<p class="verdict">{escape(one.verdict())}.</p>',
        f'<p class="quoted">{escape(one.quoted)}</p>',
    ]


def _table(rows: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _chart(one: Experiment, measure: Measure) -> str:
    """Bars from zero, the range of the rounds as a line over each."""
    shown = [(way, found) for way in one.ways if (found := way.of(measure)) is not None]
    if not shown:
        return '<p class="soft">Nothing was measured.</p>'
    most = max(found.most for _, found in shown) or 1.0
    room = _WIDTH - _LABEL - _VALUE
    height = len(shown) * (_BAR + _GAP) + _GAP
    better = "more is better" if measure.more_is_better else "less is better"
    parts = [
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>{escape(one.title)}: {escape(measure.heading)}</title>"
    ]
    for index, (way, found) in enumerate(shown):
        top = _GAP + index * (_BAR + _GAP)
        parts.append(_bar(one, way, top, max(1.0, found.median / most * room)))
        left, right = (_LABEL + value / most * room for value in (found.least, found.most))
        middle = top + _BAR / 2
        parts.append(
            f'<path d="M{left:.1f} {middle}H{right:.1f}" stroke="var(--ink)" stroke-width="1.5"/>'
            f'<text x="{max(right, _LABEL) + 8:.1f}" y="{middle + 4.5}">'
            f"{escape(number(found.median))}</text>"
        )
    caption = f"{escape(measure.heading)}; {better}; the line is the range of the rounds."
    return "".join([*parts, f"</svg><figcaption>{caption}</figcaption></figure>"])


def _bar(one: Experiment, way: Way, top: int, width: float) -> str:
    colour = "--with" if way is one.base else "--without"
    return (
        f'<text x="{_LABEL - 8}" y="{top + _BAR / 2 + 4.5}" text-anchor="end">'
        f"{escape(way.name)}</text>"
        f'<rect x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2" '
        f'fill="var({colour})"/>'
    )
