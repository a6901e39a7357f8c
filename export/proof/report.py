"""What the gate measured, as one HTML page: verdicts, plots of drift per picture, the worst ones side by side.

The page needs nothing but itself, and holds no time, no machine and no path: the same export gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from export.proof.colours import Converted, Shapes
from export.proof.decoding import DecodedTwice
from export.proof.drift import NEIGHBOURS, Compared
from export.proof.gate import Measured, asked
from export.proof.grading import summary_of_words
from export.proof.parity import MIN_COSINE, GatePicture
from server.artifact.artifact import Manifest
from server.artifact.grades import GRADES
from server.preprocessing.media import decode
from server.settings import MAX_PIXELS
from server.wording import counted

By = Mapping[str, Mapping[str, Measured]]
"""precision -> device -> what was measured"""

_WORST = 8
_WORST_TEXTS = 12
_NEAR = 5
_EDGE = 96
# A page of 1.5 MB still opens from a mail; a thumbnail is 2 to 4 KB, and beyond these a neighbour is shown by its name.
_MOST_THUMBNAILS = 220
_MONO = ("space", "its digest")
_WIDTH, _HEIGHT = 1000, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 10, 26
# The least difference of two cosines that float64 shows.
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class _Thumb:
    number: int
    data: str


class _Thumbs:
    """Each picture's thumbnail, once, however often it is shown."""

    def __init__(self, pictures: Sequence[GatePicture]) -> None:
        self._pictures = pictures
        self._made: dict[int, _Thumb] = {}

    def css(self, at: int) -> str:
        """The CSS class that shows the picture; empty where there are too many."""
        if at not in self._made:
            if len(self._made) >= _MOST_THUMBNAILS:
                return ""
            self._made[at] = _Thumb(at, base64.b64encode(_thumbnail(self._pictures[at].data)).decode())
        return f"t{at}"

    def __iter__(self) -> Any:
        return iter(sorted(self._made.values(), key=lambda thumb: thumb.number))


def _thumbnail(data: bytes) -> bytes:
    image = decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=2 * _EDGE).in_srgb()
    image.thumbnail((_EDGE, _EDGE), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=60, method=4)
    return out.getvalue()


def render(
    manifest: Manifest,
    images: By,
    pictures: Sequence[GatePicture],
    *,
    texts: By | None = None,
    decoding: tuple[Sequence[DecodedTwice], Compared] | None = None,
    colours: Sequence[Converted] = (),
    shapes: Shapes | None = None,
    without_text: str = "",
) -> str:
    """The page. `pictures` are those that `images` was measured on, in the same order.

    The manifest need not be complete yet: its goldens and files are not used.
    """
    texts = texts or {}
    thumbs = _Thumbs(pictures)
    parts = [
        _image_part(precision, device, measured, manifest, thumbs)
        for precision, by_device in images.items()
        for device, measured in by_device.items()
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["cosine"] = _shown
    environment.filters["nearer"] = lambda rank: f"{counted(rank, 'other')} nearer"
    return environment.get_template("report.html").render(
        manifest=manifest,
        facts=_facts(manifest),
        mono=_MONO,
        verdicts=[("Pictures", _verdicts(manifest, images)), ("Texts", _text_verdicts(manifest, texts))],
        without_text=without_text,
        grades=_grades(manifest),
        grades_of_words=[
            {"precision": precision, "line": summary_of_words(variant.text_grades, variant.text_grading)}
            for precision, variant in manifest.precisions.items()
            if variant.text_grades is not None and variant.text_grading is not None
        ],
        images=parts,
        texts=[
            _text_part(precision, device, measured)
            for precision, by_device in texts.items()
            for device, measured in by_device.items()
        ],
        decoding=_decoding_part(*decoding) if decoding is not None else None,
        colours=colours,
        shapes=shapes,
        thumbs=list(thumbs),
    )


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    source, spec, text = manifest.source, manifest.preprocessing, manifest.text
    resize = f"{spec.edge} on the shorter side, the middle {spec.size} cropped"
    if spec.resize == "squash":
        resize = f"squashed to {spec.size} × {spec.size}"
    scale = f"down to {spec.jpeg_at_least} pixels at a scale" if spec.jpeg_at_least else "in full"
    colours = "converted by a picture’s ICC profile" if spec.icc == "srgb" else "as stored, ICC profiles ignored"
    ground = "white, and on a dark grey what would drown in white" if spec.alpha == "contrast" else "white"
    facts = [
        ("model", manifest.model),
        ("source", f"{source.kind} {source.id}" + (f" at {source.revision}" if source.revision else "")),
        ("architecture", manifest.architecture),
        ("space", manifest.space.id),
        ("dimensions", str(manifest.space.dimensions)),
        ("pictures", f"{resize}, {spec.resample}; JPEGs decoded {scale}"),
        ("colours", f"{colours}; transparency laid on {ground}"),
        ("scaled by", f"{spec.rescale:.9g}, mean {_triple(spec.mean)}, deviation {_triple(spec.std)}"),
    ]
    if text is not None:
        always = "always at" if text.padded else "at most"
        facts += [("text tower", f"{text.architecture}, {always} {text.length} tokens"), ("its digest", text.digest)]
    else:
        facts.append(("text tower", "none"))
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [*facts, ("made with", f"{versions}; opset {manifest.opset}")]


def _triple(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _verdicts(manifest: Manifest, images: By) -> list[dict[str, Any]]:
    rows = []
    for precision, by_device in images.items():
        variant = next((one for name, one in manifest.precisions.items() if name == precision), None)
        for device, measured in by_device.items():
            if variant is None:
                least, mood, verdict = "", "bad", "not published"
            elif variant.space == manifest.space.id:
                least, mood, verdict = str(asked(precision, device)), "good", "✓ shares the space"
            else:
                least, mood, verdict = str(variant.min_cosine), "own", "◆ a space of its own"
            rows.append(_verdict(precision, device, measured, least, mood, verdict))
    return rows


def _text_verdicts(manifest: Manifest, texts: By) -> list[dict[str, Any]]:
    rows = []
    for precision, by_device in texts.items():
        variant = next((one for name, one in manifest.precisions.items() if name == precision), None)
        own = variant is not None and variant.text == f"text.{precision}.onnx"
        verdict = "✓ its own graph" if own else "left out: another reads"
        for device, measured in by_device.items():
            least = str(asked(precision, device))
            rows.append(_verdict(precision, device, measured, least, "good" if own else "own", verdict))
    return rows


def _verdict(precision: str, device: str, measured: Measured, least: str, mood: str, verdict: str) -> dict[str, Any]:
    return {
        "precision": precision,
        "device": device,
        "drift": measured.drift,
        "asked": least,
        "mood": mood,
        "verdict": verdict,
    }


def _grades(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "precision": precision,
            "grade": grade,
            "least": f"{variant.grades.least(grade):g}",
            "shares": [
                f"{100 * getattr(one, field):.2f} %"
                for one in (variant.grading.same, variant.grading.altered, variant.grading.others)
            ],
        }
        for precision, variant in manifest.precisions.items()
        if variant.grades is not None and variant.grading is not None
        for grade, field in zip(GRADES, ("identical", "near_duplicate", "similar"), strict=False)
    ]


def _image_part(precision: str, device: str, measured: Measured, manifest: Manifest, thumbs: _Thumbs) -> dict[str, Any]:
    variant = next((one for name, one in manifest.precisions.items() if name == precision), None)
    least = asked(precision, device)
    if variant is not None and variant.space != manifest.space.id:
        least = variant.min_cosine
    order = _order(measured.compared)
    worst = []
    for at in measured.worst(_WORST):
        if measured.compared.cosine[at] >= MIN_COSINE and not measured.compared.rank[at]:
            break
        before, after = measured.neighbours(at, _NEAR)
        rows = []
        for title, near, other in (
            ("nearest others, reference", before, after),
            (f"nearest others, {precision}", after, before),
        ):
            shown = [{"css": thumbs.css(one), "name": measured.names[one], "new": one not in other} for one in near]
            rows.append((title, shown))
        worst.append({**_own(measured, at), "css": thumbs.css(at), "rows": rows})
    return {
        "precision": precision,
        "device": device,
        "plot": _plot(measured.names, measured.compared, order, least),
        "overlaps": _overlaps(measured, order),
        "worst": worst,
    }


def _text_part(precision: str, device: str, measured: Measured) -> dict[str, Any]:
    return {
        "precision": precision,
        "device": device,
        "plot": _plot(measured.names, measured.compared, _order(measured.compared), asked(precision, device)),
        "worst": [_own(measured, at) for at in measured.worst(_WORST_TEXTS)],
    }


def _own(measured: Measured, at: int) -> dict[str, Any]:
    compared = measured.compared
    name = measured.names[at]
    if not name.strip():
        name = f"(nothing but white space: {name!r})" if name else "(nothing)"
    return {
        "name": _visible(name if len(name) <= 120 else f"{name[:119]}… ({len(name)} characters)"),
        "cosine": float(compared.cosine[at]),
        "centred": float(compared.centred[at]),
        "rank": int(compared.rank[at]),
    }


def _visible(text: str) -> str:
    """The text with control characters as their symbols: HTML cannot hold them, escaped or not."""
    shown = (
        char
        if unicodedata.category(char) not in ("Cc", "Cs", "Cn") or char in "\n\t"
        else chr(0x2400 + ord(char))
        if char < " "
        else "\ufffd"
        for char in text
    )
    return "".join(shown)


def _shown(cosine: float) -> str:
    """Six decimals, or the distance from 1 where they would all be nines."""
    apart = 1 - cosine
    return f"1 − {apart:.1e}" if 0 < apart < 5e-6 else f"{cosine:.6f}" if apart else "1"


def _decoding_part(twice: Sequence[DecodedTwice], compared: Compared) -> dict[str, Any]:
    scaled = [at for at, one in enumerate(twice) if one.scale > 1]
    order = sorted(scaled, key=lambda at: _height(compared.cosine[at]), reverse=True)
    rows = [
        {
            "name": twice[at].name,
            "scale": twice[at].scale,
            "mean": float(twice[at].apart.mean()),
            "most": int(twice[at].apart.max()),
            "cosine": float(compared.cosine[at]),
            "centred": float(compared.centred[at]),
            "rank": int(compared.rank[at]),
        }
        for at in order
    ]
    return {"plot": _plot([one.name for one in twice], compared, order, None), "rows": rows[:_WORST_TEXTS]}


# --- plots -----------------------------------------------------------------------------------------------------------


def _order(compared: Compared) -> list[int]:
    return sorted(range(len(compared.cosine)), key=lambda at: _height(compared.cosine[at]), reverse=True)


def _height(cosine: Any) -> float:
    """1 - cosine, within the range of the logarithmic scale."""
    apart = 1 - float(cosine)
    return max(apart, _LEAST) if math.isfinite(apart) else 2.0


def _across(place: int, count: int) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (place + 0.5) / max(count, 1)


def _plot(names: Sequence[str], compared: Compared, order: Sequence[int], least: float | None) -> Markup:
    """A dot for each, at 1 - cosine and at 1 - centred cosine, on a logarithmic scale."""
    if not order:
        return Markup("<p>None.</p>")
    heights = [(_height(compared.cosine[at]), _height(compared.centred[at])) for at in order]
    values = [value for pair in heights for value in pair] + ([1 - least] if least is not None else [])
    lowest = math.floor(math.log10(max(min(values), _LEAST)))
    highest = max(math.ceil(math.log10(max(values))), lowest + 1)

    def down(value: float) -> float:
        part = (highest - math.log10(max(value, _LEAST))) / (highest - lowest)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * part

    parts = [_svg(f"1 minus cosine of each of {len(order)}, the worst first: {heights[0][0]:.2g} at most")]
    every = max(1, round((highest - lowest) / 8))
    for power in range(lowest, highest + 1, every):
        y = down(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    if least is not None:
        y = down(1 - least)
        parts.append(f'<line class="asked" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="asked-text" x="{_WIDTH - _RIGHT}" y="{y - 5:.1f}" text-anchor="end">asked: {least}</text>'
        )
    for place, (at, (plain, centred)) in enumerate(zip(order, heights, strict=True)):
        x = _across(place, len(order))
        title = f"{_cut(names[at])}: cosine {compared.cosine[at]:.8f}, centred {compared.centred[at]:.6f}"
        parts.append(
            f'<g class="p"><title>{html.escape(title)}</title><circle class="c2" cx="{x:.1f}" cy="{down(centred):.1f}" '
            f'r="3"/><circle class="c1" cx="{x:.1f}" cy="{down(plain):.1f}" r="3.5"/></g>'
        )
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">the worst</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">the best of {len(order)}</text>')
    return Markup("\n".join([*parts, "</svg>"]))  # noqa: S704 - made above, names escaped


def _overlaps(measured: Measured, order: Sequence[int]) -> Markup | None:
    """A bar for each: how many of its ten nearest it kept. None where each kept all ten."""
    compared = measured.compared
    if all(kept == 1 for kept in compared.overlap):
        return None
    count = min(NEIGHBOURS, len(order) - 1)
    height = 110
    parts = [_svg(f"Of its {count} nearest others, each kept {compared.overlap.mean():.1%} on average", height)]
    width = (_WIDTH - _LEFT - _RIGHT) / len(order)

    def down(part: float) -> float:
        return 8 + (height - 16) * (1 - part)

    for part in (0.0, 0.5, 1.0):
        y = down(part)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{part * count:g}</text>')
    for place, at in enumerate(order):
        kept = float(compared.overlap[at])
        title = f"{_cut(measured.names[at])}: kept {round(kept * count)} of {count}, own rank {compared.rank[at]}"
        x, y, tall = _LEFT + (place + 0.15) * width, down(kept), down(0) - down(kept)
        parts.append(
            f'<g class="p"><title>{html.escape(title)}</title><rect class="c1" x="{x:.1f}" y="{y:.1f}" '
            f'width="{width * 0.7:.1f}" height="{tall:.1f}"/></g>'
        )
    return Markup("\n".join([*parts, "</svg>"]))  # noqa: S704 - made above, names escaped


def _svg(label: str, height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(label)}">'


def _cut(name: str) -> str:
    plain = _visible(" ".join(name.split()))
    return plain if len(plain) <= 60 else f"{plain[:59]}…"
