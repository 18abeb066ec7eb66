"""A small plot as SVG, by hand: curves over two logarithmic axes.

Owns the picture. Pure: a chart in, text out. Reads well in light and dark pages alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 232, 40, 44
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a6761d")
_INK = "#808080"


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; points with a value of 0 or less don't fit a logarithm and are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten between which all values lie, at least one apart."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def power_label(exponent: int) -> str:
    """10^exponent as it is read: 0.1, 1, 1,000, 1M."""
    if exponent >= 6:
        return f"{10 ** (exponent - 6):,}M"
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:.{-exponent}f}"


def svg(chart: Chart) -> str:
    """The whole picture. Raises ValueError if no point can be shown."""
    curves = [
        Series(one.name, [(x, y) for x, y in one.points if x > 0 and y > 0]) for one in chart.series
    ]
    points = [point for one in curves for point in one.points]
    if not points:
        raise ValueError(f"{chart.title}: nothing to draw")
    x_range, y_range = decades([x for x, _ in points]), decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
        up = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return _LEFT + across * inner_width, HEIGHT - _BOTTOM - up * inner_height

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}">',
        f"<title>{escape(chart.title)}</title>",
        _text(_LEFT, 20, chart.title, size=14),
        _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, chart.x_label, anchor="middle"),
        _text(8, _TOP - 8, chart.y_label),
    ]
    for exponent in range(x_range[0], x_range[1] + 1):
        x, bottom = place(10.0**exponent, 10.0 ** y_range[0])
        parts.append(_line((x, _TOP), (x, bottom)))
        parts.append(_text(x, bottom + 16, power_label(exponent), anchor="middle"))
    for exponent in range(y_range[0], y_range[1] + 1):
        left, y = place(10.0 ** x_range[0], 10.0**exponent)
        parts.append(_line((left, y), (WIDTH - _RIGHT, y)))
        parts.append(_text(left - 6, y + 4, power_label(exponent), anchor="end"))
    for index, one in enumerate(curves):
        parts += _curve([place(x, y) for x, y in one.points], one.name, index)
    return "\n".join([*parts, "</svg>", ""])


def _curve(places: Sequence[tuple[float, float]], name: str, index: int) -> list[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    legend = _TOP + 8 + 18 * index
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<rect x="{WIDTH - _RIGHT + 14}" y="{legend - 9}" width="10" height="10" '
        f'fill="{colour}"/>',
        _text(WIDTH - _RIGHT + 30, legend, name),
    ]


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{_INK}" stroke-opacity="0.3"/>'
    )


def _text(x: float, y: float, content: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(content)}</text>"
    )
