"""Plots as SVG, drawn here so that a report is one file that opens anywhere: lines over a load, and stacked bars.

Colours are the page's: every mark has a class, and `report.html` says what it looks like, by day and by night.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 62, 14, 42
_LETTER = 7.0
_LINE = 14.0

_BARS, _LABELS, _BAR, _GAP, _VALUES = 1120, 86, 20, 7, 84


@dataclass(frozen=True, slots=True)
class Line:
    """A value for each load; None where there is none to show."""

    name: str
    css: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class _Point:
    """A value where it is drawn."""

    across: float
    down: float
    load: float
    value: float


def lines(
    loads: Sequence[float],
    drawn: Sequence[Line],
    *,
    label: str,
    across: str,
    unit: str,
    logarithmic: bool = False,
    bend: tuple[float | None, float | None] | None = None,
    bound: float | None = None,
    bound_name: str = "",
) -> Markup:
    """Lines over the loads, which are in ascending order. `bend` shades where it lies; `bound` is an objective."""
    values = [value for line in drawn for value in line.values if value is not None and (value > 0 or not logarithmic)]
    if not values:
        return Markup("<p>Nothing was answered.</p>")
    ticks = (
        _ticks_log(min(values), max(*values, bound or 0))
        if logarithmic
        else linear_ticks(max(*values, bound or 0, 1e-9))
    )
    low, high = ticks[0], ticks[-1]
    widest = max(loads)

    def x(load: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * load / widest

    def y(value: float) -> float:
        if logarithmic:
            part = (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            part = value / high
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part

    parts = [_svg(label, _WIDTH, _HEIGHT)]
    if bend is not None and bend[1] is not None:
        left, right = x(bend[0] or 0), x(bend[1])
        parts.append(
            f'<rect class="bend" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>here it bends</title></rect>'
        )
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{_LEFT - 7}" y="{_HEIGHT - 22}" text-anchor="end">{html.escape(unit)}</text>')
    last = -math.inf
    for load in loads:
        if x(load) - last >= _LETTER * (len(f"{load:g}") + 1):
            last = x(load)
            parts.append(f'<text x="{last:.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{load:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(across)}</text>')
    if bound is not None:
        parts.append(
            f'<line class="bound" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(bound):.1f}" y2="{y(bound):.1f}"/>'
        )
        parts.append(
            f'<text class="bound-name" x="{_LEFT + 6}" y="{y(bound) - 5:.1f}">{html.escape(bound_name)}</text>'
        )
    ends: list[tuple[float, Line]] = []
    for line in drawn:
        points = [
            _Point(x(load), y(value), load, value) for load, value in zip(loads, line.values, strict=True) if value
        ]
        if not points:
            continue
        path = " ".join(f"{point.across:.1f},{point.down:.1f}" for point in points)
        parts.append(f'<polyline class="line {line.css}" points="{path}"/>')
        parts += [
            f'<circle class="dot {line.css}" cx="{point.across:.1f}" cy="{point.down:.1f}" r="3.5">'
            f"<title>{html.escape(line.name)} at {point.load:g}: {point.value:,.1f} {html.escape(unit)}</title>"
            "</circle>"
            for point in points
        ]
        ends.append((points[-1].down, line))
    # Names stand at the ends of their lines, pushed apart where these meet.
    lowest = -math.inf
    for down, line in sorted(ends, key=lambda end: end[0]):
        lowest = max(down + 4, lowest + _LINE)
        parts.append(
            f'<text class="name {line.css}" x="{_WIDTH - _RIGHT + 7}" y="{lowest:.1f}">{html.escape(line.name)}</text>'
        )
    return _finished(parts)


def bars(
    rows: Sequence[tuple[str, Mapping[str, float]]], *, label: str, unit: str, values: Sequence[str] = ()
) -> Markup:
    """A bar for each row, stacked of its parts; a part's class is `s-` and its name.

    `values`: the text behind each bar, which otherwise is its sum.
    """
    longest = max((sum(parts.values()) for _, parts in rows), default=0.0)
    if not longest:
        return Markup("")
    height = len(rows) * (_BAR + _GAP)
    scale = (_BARS - _LABELS - _VALUES) / longest
    drawn = [_svg(label, _BARS, height)]
    for place, (name, parts) in enumerate(rows):
        top, left = place * (_BAR + _GAP) + _GAP / 2, float(_LABELS)
        drawn.append(f'<text x="{_LABELS - 10}" y="{top + 14.5:.1f}" text-anchor="end">{html.escape(name)}</text>')
        for part, value in parts.items():
            if value <= 0:
                continue
            wide = value * scale
            title = f"{name}, {part}: {value:,.1f} {unit}"
            drawn.append(
                f'<rect class="part s-{html.escape(part)}" x="{left:.1f}" y="{top:.1f}" width="{max(wide, 0.5):.1f}" '
                f'height="{_BAR}"><title>{html.escape(title)}</title></rect>'
            )
            if wide > _LETTER * (len(part) + 2):
                drawn.append(
                    f'<text class="inside" x="{left + wide / 2:.1f}" y="{top + 14.5:.1f}" '
                    f'text-anchor="middle">{html.escape(part)}</text>'
                )
            left += wide
        text = values[place] if values else f"{sum(parts.values()):,.1f} {unit}"
        drawn.append(f'<text x="{left + 8:.1f}" y="{top + 14.5:.1f}">{html.escape(text)}</text>')
    return _finished(drawn)


def linear_ticks(high: float) -> list[float]:
    """From 0 to above `high`, four to six steps of 1, 2 or 5 times a power of ten."""
    rough = high / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return [number * step for number in range(math.ceil(high / step - 1e-9) + 1)]


def _ticks_log(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten around both; powers alone where these would be many."""
    sizes = (1, 2, 5) if high / low < 2000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [size * 10.0**power for power in powers for size in sizes]
    first = max((place for place, tick in enumerate(every) if tick <= low), default=0)
    last = next((place for place, tick in enumerate(every) if tick >= high and place > first), len(every) - 1)
    return every[first : last + 1]


def _svg(label: str, width: int, height: float) -> str:
    return f'<svg viewBox="0 0 {width} {height:g}" role="img" aria-label="{html.escape(label)}">'


def _finished(parts: Sequence[str]) -> Markup:
    return Markup("\n".join([*parts, "</svg>"]))  # noqa: S704 - made above, names escaped
