"""The series of a soak as one SVG, which opens anywhere: one panel for each, from 0, over the minutes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from bench.load.plots import linear_ticks
from bench.soak.samples import QUANTITIES, WARM_UP

_WIDTH, _LEFT, _RIGHT = 860, 64, 24
_PANEL, _TOP, _BOTTOM = 126, 34, 22
_STYLE = """
  .ground { fill: #ffffff } text { font: 12px system-ui, sans-serif; fill: #24292f } .head { font-weight: 600 }
  .grid { stroke: #d0d7de } .line { fill: none; stroke: #0b6bcb; stroke-width: 1.8 } .warm { fill: #eaeef2 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .line { stroke: #4ea1f7 }
    .warm { fill: #161b22 }
  }
"""


def svg(minutes: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    """Panels from top to bottom; what is shaded is the warm-up, which is not judged."""
    height = len(series) * _PANEL + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
        'aria-label="What a server holds over the minutes of a soak">',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}" rx="6"/>',
    ]
    for number, (name, values) in enumerate(series.items()):
        parts += _panel(number * _PANEL, name, minutes, values)
    return "\n".join([*parts, "</svg>\n"])


def _panel(top: int, name: str, minutes: Sequence[float], values: Sequence[float]) -> Iterator[str]:
    quantity = QUANTITIES[name]
    above, below = top + _TOP, top + _PANEL - _BOTTOM
    steps = linear_ticks(max(*values, 1.0))
    last = max(minutes[-1], 1e-9)

    def x(minute: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * minute / last

    def y(value: float) -> float:
        return below - (below - above) * value / steps[-1]

    unit = f", {quantity.unit}" if quantity.unit else ""
    yield f'<text class="head" x="18" y="{top + 22}">{html.escape(quantity.title + unit)}</text>'
    yield (
        f'<rect class="warm" x="{_LEFT}" y="{above}" width="{x(last * WARM_UP) - _LEFT:.1f}" height="{below - above}"/>'
    )
    for step in (steps[0], steps[len(steps) // 2], steps[-1]):
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(step):.1f}" y2="{y(step):.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y(step) + 4:.1f}" text-anchor="end">{step:g}</text>'
    points = " ".join(f"{x(minute):.1f},{y(value):.1f}" for minute, value in zip(minutes, values, strict=True))
    yield f'<polyline class="line" points="{points}"/>'
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield f'<text x="{x(last * part):.1f}" y="{below + 15}" text-anchor="middle">{last * part:.4g} min</text>'
