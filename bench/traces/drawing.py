"""A trace as one SVG that stands alone: a line for each span, with its time and what it says, by day and by night."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

_WIDTH = 1120
_LEFT, _RIGHT = 250, 330
_TOP, _LINE, _BAR = 92, 27, 16
_INDENT = 16
_EDGE = 14

# Okabe and Ito's colours, which most people can distinguish; what only waits is grey.
_STYLE = """
text { font: 13px system-ui, "Segoe UI", sans-serif; fill: #222; }
.title { font-size: 17px; font-weight: 600; } .about { fill: #666; font-size: 12px; }
.value { font-variant-numeric: tabular-nums; } .note { fill: #666; font-size: 12px; }
.grid { stroke: #e4e4e4; } .tree { stroke: #bbb; fill: none; }
.paper { fill: #fff; }
.http { fill: #56b4e9; } .picture { fill: #e69f00; } .model { fill: #009e73; } .sql { fill: #cc79a7; }
.wait { fill: #c4c4c4; } .inner { fill: #8ea2c6; }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd; } .about, .note { fill: #999; } .paper { fill: #16181b; } .grid { stroke: #2c3036; }
  .tree { stroke: #555; } .wait { fill: #8b8f96; }
}
"""

_CSS = {
    "read": "http",
    "decode": "picture",
    "resize": "picture",
    "batch": "model",
    "encode": "model",
    "wait": "wait",
    "queue": "wait",
    "connection": "wait",
}
_LEGEND = (
    ("http", "the request and its body"),
    ("picture", "the picture"),
    ("model", "the model"),
    ("sql", "the database"),
    ("wait", "waiting"),
    ("inner", "what others make up"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A span as it is drawn: times in milliseconds after the request came, `depth` below it."""

    name: str
    depth: int
    began: float
    took: float
    note: str


def lines(spans: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The spans of one trace, as `python -m bench trace` writes them: each above those below it, in time's order.

    Raises ValueError where there is not one that all others are below.
    """
    known = {span["id"] for span in spans}
    (root,) = [span for span in spans if span["parent"] not in known]
    start = root["began"]

    def of(span: Mapping[str, Any], depth: int) -> Iterator[Line]:
        began, ended = ((span[name] - start) / 1e6 for name in ("began", "ended"))
        yield Line(span["name"], depth, began, ended - began, _note(span))
        for one in sorted((one for one in spans if one["parent"] == span["id"]), key=lambda one: one["began"]):
            yield from of(one, depth + 1)

    return list(of(root, 0))


def draw(report: Mapping[str, Any]) -> str:
    """The trace of a report as an SVG."""
    drawn = lines(report["spans"])
    longest = max(line.began + line.took for line in drawn)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    bottom = _TOP + len(drawn) * _LINE
    height = bottom + 26
    title = "One search by picture, as its trace tells it"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="{html.escape(title)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
            f'<text class="title" x="{_EDGE}" y="26">{html.escape(title)}</text>',
            f'<text class="about" x="{_EDGE}" y="45">{html.escape(report["about"])}</text>',
            *_legend(),
            *_grid(longest, scale, bottom),
            *(text for place, line in enumerate(drawn) for text in _line(line, _above(drawn, place), place, scale)),
            "</svg>\n",
        ]
    )


def _above(drawn: Sequence[Line], place: int) -> int:
    """How many lines above the one at this place stands the span around it; 0 for the first, which has none."""
    return next((up for up in range(1, place + 1) if drawn[place - up].depth < drawn[place].depth), 0)


def _line(line: Line, above: int, place: int, scale: float) -> Iterator[str]:
    """`above`: so many lines higher stands the span around."""
    top = _TOP + place * _LINE
    middle = top + _LINE / 2 + 4.5
    across = _EDGE + line.depth * _INDENT
    if above:
        begin = top - (above - 1) * _LINE - 4
        yield f'<path class="tree" d="M{across - 9} {begin} V{middle - 4.5:.1f} H{across - 3}"/>'
    yield f'<text x="{across}" y="{middle:.1f}">{html.escape(line.name)}</text>'
    left, wide = _LEFT + line.began * scale, max(line.took * scale, 1.5)
    css = _CSS.get(line.name, "sql" if line.name.startswith("SQL") else "inner" if line.depth else "http")
    yield (
        f'<rect class="{css}" x="{left:.1f}" y="{top + (_LINE - _BAR) / 2:.1f}" width="{wide:.1f}" height="{_BAR}" '
        f'rx="2"><title>{html.escape(f"{line.name}: {line.took:.2f} ms, after {line.began:.2f} ms")}</title></rect>'
    )
    note = f' <tspan class="note">{html.escape(line.note)}</tspan>' if line.note else ""
    yield f'<text class="value" x="{left + wide + 7:.1f}" y="{middle:.1f}">{line.took:.2f} ms{note}</text>'


def _grid(longest: float, scale: float, bottom: float) -> Iterator[str]:
    step = _step(longest)
    for number in range(int(longest / step) + 1):
        across = _LEFT + number * step * scale
        yield f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{_TOP - 4}" y2="{bottom}"/>'
        yield f'<text class="about" x="{across:.1f}" y="{bottom + 15}" text-anchor="middle">{number * step:g} ms</text>'


def _step(longest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are four to ten of them."""
    power: float = 10 ** floor(log10(longest / 4))
    return next(power * factor for factor in (5, 2, 1) if longest / (power * factor) >= 4)


def _legend() -> Iterator[str]:
    across = float(_EDGE)
    for css, name in _LEGEND:
        yield f'<rect class="{css}" x="{across:.0f}" y="59" width="12" height="12" rx="2"/>'
        yield f'<text x="{across + 17:.0f}" y="70">{html.escape(name)}</text>'
        across += 17 + 6.9 * len(name) + 18


def _note(span: Mapping[str, Any]) -> str:
    """What a reader of the picture wants to know of a span's attributes and links."""
    said: Mapping[str, Any] = span["attributes"]
    match span["name"]:
        case "decode":
            return f"{said['twinlens.format']}, {said['twinlens.pixels']:,} pixels"
        case "embed":
            return f"{said['twinlens.bytes']:,} bytes"
        case "wait":
            return f"for a thread of {said['twinlens.pool']}"
        case "queue":
            return "for the model"
        case "connection":
            return "of the pool"
        case "batch":
            return f"of {said['twinlens.batch.size']}, linked to the requests of all"
        case "encode" if span["links"]:
            return "linked to its batch"
        case "search":
            return f"{said['twinlens.plan']}, {said['twinlens.matches']} matches"
        case name if "/" in name:
            return str(said["http.response.status_code"])
    return ""
