"""Compute the shapes of SVG charts. The templates draw them. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sandbox.domain.clock import parse

WIDTH: Final = 420
HEIGHT: Final = 170
_LEFT: Final = 64
_BOTTOM: Final = 22
_TOP: Final = 8
_RIGHT: Final = 8
_SMALLEST: Final = 1e-9
"""Smaller values are drawn as 0, because far smaller ones cannot be divided into grid lines."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line: its y coordinate, and its label."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over time. `lines` are the points of SVG polylines, one for each series."""

    lines: Sequence[str]
    ticks: Sequence[Tick]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    base: int = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars over time. `stacks` has for each series one bar per value, on top of the series before."""

    stacks: Sequence[Sequence[Bar]]
    ticks: Sequence[Tick]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    base: int = HEIGHT - _BOTTOM


def line_chart(times: Sequence[str], *series: Sequence[str | float]) -> LineChart:
    """Return a chart of values over time: each holds from its time, in RFC 3339, until the next. The times are in order."""
    values = [[float(Decimal(str(value))) for value in one] for one in series]
    ticks, top = _scale(max((value for one in values for value in one), default=0.0))
    moments = [parse(text).timestamp() for text in times]
    length = moments[-1] - moments[0] if moments else 0.0
    width = WIDTH - _LEFT - _RIGHT
    lines = []
    for one in values:
        points: list[tuple[float, float]] = []
        for moment, value in zip(moments, one, strict=True):
            x = _LEFT + width * (moment - moments[0]) / length if length else float(_LEFT)
            if points:
                points.append((x, points[-1][1]))
            points.append((x, _y(value, top)))
        if points:
            points.append((WIDTH - _RIGHT, points[-1][1]))
        lines.append(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    return LineChart(lines, ticks)


def bar_chart(*series: Sequence[float]) -> BarChart:
    """Return a chart of stacked bars. The series have equal lengths."""
    totals = [sum(values) for values in zip(*series, strict=True)]
    ticks, top = _scale(max(totals, default=0.0))
    step = (WIDTH - _LEFT - _RIGHT) / max(len(totals), 1)
    heights = [0.0] * len(totals)
    stacks = []
    for one in series:
        bars = []
        for number, value in enumerate(one):
            upper, lower = _y(heights[number] + value, top), _y(heights[number], top)
            heights[number] += value
            bars.append(
                Bar(round(_LEFT + number * step + 1, 1), round(upper, 1), round(max(step - 2, 1), 1), round(lower - upper, 1))
            )
        stacks.append(bars)
    return BarChart(stacks, ticks)


def share(value: float, total: float, width: float = 100.0) -> float:
    """Return the length of a horizontal bar; at least 1 unless the value is 0, so that it is visible."""
    if value <= 0 or total <= 0:
        return 0.0
    return round(max(1.0, width * value / total), 1)


def _y(value: float, top: float) -> float:
    height = HEIGHT - _BOTTOM - _TOP
    return _TOP + height * (1 - max(value, 0.0) / top)


def _scale(highest: float) -> tuple[list[Tick], float]:
    """Return grid lines at round numbers from 0 to above the highest value, and the top one's value."""
    if highest < _SMALLEST:
        highest = 1.0
    rough = highest / 3
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    count = math.ceil(highest / step)
    top = step * count
    return [Tick(round(_y(step * number, top), 1), _label(step * number)) for number in range(count + 1)], top


def short_number(value: float) -> str:
    """Return a number with at most three digits and a unit: 1.5 M, 250 k, 99."""
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _label(value: float) -> str:
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
