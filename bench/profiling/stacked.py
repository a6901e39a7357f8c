"""Stacked bars as one SVG that stands alone, in a document or opened by itself, by day and by night."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_WIDTH = 1120
_LEFT, _RIGHT = 230, 170
_BAR, _GAP = 24, 8
_LETTER = 6.6
_LEGEND = 18

# Okabe and Ito's colours, which most people can distinguish; what only waits is grey.
_STYLE = """
text { font: 13px system-ui, "Segoe UI", sans-serif; fill: #222; }
.title { font-size: 17px; font-weight: 600; } .about { fill: #666; font-size: 12px; }
.panel { font-weight: 600; font-size: 14px; }
.value { font-variant-numeric: tabular-nums; } .inside { font-size: 12px; fill: #111; }
.floor { stroke: #222; stroke-dasharray: 4 3; stroke-width: 1.2; }
.paper { fill: #fff; }
.c1 { fill: #56b4e9; } .c2 { fill: #e69f00; } .c3 { fill: #f0e442; } .c4 { fill: #009e73; } .c5 { fill: #cc79a7; }
.c6 { fill: #d55e00; } .c7 { fill: #8ea2c6; } .wait { fill: #d4d4d4; }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd; } .about { fill: #999; } .inside { fill: #111; } .paper { fill: #16181b; } .floor { stroke: #ddd; }
  .wait { fill: #8b8f96; }
}
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What a bar may hold: its key in `Bar.values`, its name in the legend, its colour."""

    key: str
    name: str
    css: str


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    values: Mapping[str, float]
    text: str
    """What stands behind it."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars under a title. `relative`: all of one length, else of one scale; `floor`: a line across at this value."""

    title: str
    bars: Sequence[Bar]
    parts: Sequence[Part]
    relative: bool = False
    floor: float | None = None


def svg(title: str, about: str, panels: Sequence[Panel]) -> str:
    """The panels, one below the other."""
    parts: list[str] = []
    down = 62.0
    for panel in panels:
        lines, height = _panel(panel, down)
        parts += lines
        down += height + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {down - 12:.0f}" role="img" '
            f'aria-label="{html.escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{down - 12:.0f}"/>',
            f'<text class="title" x="14" y="26">{html.escape(title)}</text>',
            f'<text class="about" x="14" y="45">{html.escape(about)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, top: float) -> tuple[list[str], float]:
    """The panel's elements, and its height."""
    longest = max((sum(bar.values.values()) for bar in panel.bars), default=0.0) or 1.0
    room = _WIDTH - _LEFT - _RIGHT
    lines = [f'<text class="panel" x="14" y="{top + 14:.1f}">{html.escape(panel.title)}</text>']
    lines += _legend(panel, top + 38)
    first = top + 38 + _LEGEND
    for place, bar in enumerate(panel.bars):
        scale = room / ((sum(bar.values.values()) or 1.0) if panel.relative else longest)
        lines += _bar(panel, bar, first + place * (_BAR + _GAP), scale)
    height = first - top + len(panel.bars) * (_BAR + _GAP) - _GAP
    if panel.floor is not None:
        across = _LEFT + panel.floor * room / longest
        ends = f'y1="{first - 4:.1f}" y2="{top + height + 4:.1f}"'
        lines.append(f'<line class="floor" x1="{across:.1f}" x2="{across:.1f}" {ends}/>')
    return lines, height


def _legend(panel: Panel, top: float) -> Iterator[str]:
    across = 14.0
    for part in panel.parts:
        if not any(bar.values.get(part.key) for bar in panel.bars):
            continue
        yield f'<rect class="{part.css}" x="{across:.1f}" y="{top - 10:.1f}" width="12" height="12" rx="2"/>'
        yield f'<text x="{across + 17:.1f}" y="{top:.1f}">{html.escape(part.name)}</text>'
        across += 17 + _LETTER * len(part.name) + 18


def _bar(panel: Panel, bar: Bar, top: float, scale: float) -> Iterator[str]:
    middle = top + _BAR / 2 + 4.5
    yield f'<text x="{_LEFT - 10}" y="{middle:.1f}" text-anchor="end">{html.escape(bar.name)}</text>'
    across = float(_LEFT)
    for part in panel.parts:
        value = bar.values.get(part.key, 0.0)
        if value <= 0:
            continue
        wide = value * scale
        text = f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"
        yield (
            f'<rect class="{part.css}" x="{across:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_BAR}">'
            f"<title>{html.escape(f'{bar.name}, {part.name}: {value:.2f}')}</title></rect>"
        )
        if wide > _LETTER * len(text) + 6:
            yield (
                f'<text class="inside" x="{across + wide / 2:.1f}" y="{middle:.1f}" text-anchor="middle">{text}</text>'
            )
        across += wide
    yield f'<text class="value" x="{across + 8:.1f}" y="{middle:.1f}">{html.escape(bar.text)}</text>'
