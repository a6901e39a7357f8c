"""What differs between two artifacts, and whether their vectors may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from export.artifacts.listing import apart, drift_figures, graph_bytes, size_of, spec_fields
from export.table import columns
from server.artifact.artifact import Artifact, Drift, Manifest, Parity
from server.artifact.grades import GRADES

_FIGURES = (
    "number",
    "lowest cosine",
    "mean cosine",
    "lowest centred cosine",
    "mean centred cosine",
    "itself first",
    "top ten kept",
    "moved",
    "in batches",
)


def diff(a: Path, b: Path, *, speed: bool = False, seconds: float = 2.0) -> str:
    """Everything that differs between two artifacts, and a conclusion in words. `speed` measures both in turns.

    Raises ArtifactInvalid for a folder that is no artifact.
    """
    one, other = Artifact.read(a), Artifact.read(b)
    before, after = one.manifest, other.manifest
    parts = [
        _section("model", _model(before, after)),
        _section("space", _space(before, after)),
        _section("preprocessing", _spec(before, after)),
        _section("made with", _versions(before, after)),
        _section("graphs", _graphs(before, after)),
        _section("text tower", _text(before, after)),
        _section("parity", _parity(before, after)),
        _section("grades", _grades(before, after)),
    ]
    if speed:
        parts.append(["", "speed", *(f"  {line}" for line in _speed(one, other, seconds).splitlines())])
    differing = [line for part in parts for line in part]
    head = ["", str(a), str(b)]
    lines = differing[1:] if differing else [f"The manifests of {a} and {b} say the same."]
    if differing:
        lines = [f"A is {head[1]}, B is {head[2]}", "", *lines]
    return "\n".join([*lines, "", conclusion(before, after)])


Row = tuple[str, str, str]


def _section(title: str, rows: Sequence[Row]) -> list[str]:
    """The rows that differ, below their title; nothing where no row differs."""
    differing = [("", *row) for row in rows if row[1] != row[2]]
    return ["", title, *columns([("", "", "A", "B"), *differing])] if differing else []


def _model(a: Manifest, b: Manifest) -> list[Row]:
    return [
        ("name", a.name, b.name),
        ("model", a.model, b.model),
        ("source", _source(a), _source(b)),
        ("architecture", a.architecture, b.architecture),
    ]


def _source(manifest: Manifest) -> str:
    source = manifest.source
    return f"{source.kind} {source.id}" + (f" at {source.revision}" if source.revision else "")


def _space(a: Manifest, b: Manifest) -> list[Row]:
    return [
        ("id", a.space.id[:16], b.space.id[:16]),
        ("dimensions", str(a.space.dimensions), str(b.space.dimensions)),
        *((f"of {one}", _space_of(a, one), _space_of(b, one)) for one in _in_either(a.precisions, b.precisions)),
    ]


def _space_of(manifest: Manifest, precision: str) -> str:
    for name, variant in manifest.precisions.items():
        if name == precision:
            return variant.space[:16] + (" (its own)" if apart(manifest, precision) else "")
    return "-"


def _spec(a: Manifest, b: Manifest) -> list[Row]:
    theirs = dict(spec_fields(b.preprocessing))
    return [(name, value, theirs[name]) for name, value in spec_fields(a.preprocessing)]


def _versions(a: Manifest, b: Manifest) -> list[Row]:
    rows = [(name, a.versions.get(name, "-"), b.versions.get(name, "-")) for name in _in_either(a.versions, b.versions)]
    return [*rows, ("opset", str(a.opset), str(b.opset)), ("format", str(a.format), str(b.format))]


def _graphs(a: Manifest, b: Manifest) -> list[Row]:
    return [
        (f"{tower}, {precision}", _graph(a, precision, tower), _graph(b, precision, tower))
        for precision in _in_either(a.precisions, b.precisions)
        for tower in ("image", "text")
    ]


def _graph(manifest: Manifest, precision: str, tower: str) -> str:
    for name, variant in manifest.precisions.items():
        graph = variant.image if tower == "image" else variant.text
        if name == precision and graph is not None:
            digests = [file.sha256 for key, file in manifest.files.items() if key.startswith(graph)]
            return f"{graph}, {size_of(graph_bytes(manifest, graph))}, {' '.join(one[:12] for one in digests)}"
    return "-"


def _text(a: Manifest, b: Manifest) -> list[Row]:
    if a.text is None and b.text is None:
        return []
    one, other = ({} if text is None else msgspec.to_builtins(text) for text in (a.text, b.text))
    return [(name, str(one.get(name, "-")), str(other.get(name, "-"))) for name in _in_either(one, other)]


def _parity(a: Manifest, b: Manifest) -> list[Row]:
    rows: list[Row] = []
    one, other = _figures(a), _figures(b)
    for what in _in_either(one, other):
        here, there = one.get(what), other.get(what)
        if here is None or there is None:
            rows.append((what, "measured" if here else "-", "measured" if there else "-"))
        else:
            rows += [(f"{what}: {name}", x, y) for name, x, y in zip(_FIGURES, here, there, strict=True)]
    return rows


def _grades(a: Manifest, b: Manifest) -> list[Row]:
    one, other = _grades_of(a), _grades_of(b)
    return [(name, one.get(name, "-"), other.get(name, "-")) for name in _in_either(one, other)]


def _grades_of(manifest: Manifest) -> dict[str, str]:
    return {
        f"{precision}, {grade} from": f"{grades.least(grade):g}"
        for precision, variant in manifest.precisions.items()
        if (grades := variant.grades) is not None
        for grade in GRADES[:-1]
    } | {
        f"{precision}, words similar from": f"{variant.text_grades.similar:g}"
        for precision, variant in manifest.precisions.items()
        if variant.text_grades is not None
    }


def _figures(manifest: Manifest) -> dict[str, list[str]]:
    return {
        f"{precision} on {device}, {what}": drift_figures(drift)
        for precision, variant in manifest.precisions.items()
        for device, parity in variant.parity.items()
        for what, drift in _drifts(parity)
    }


def _drifts(parity: Parity) -> list[tuple[str, Drift]]:
    named = (("pictures", parity.image), ("texts", parity.text), ("JPEGs at a scale", parity.scaled_decoding))
    return [(what, drift) for what, drift in named if drift is not None]


def _in_either(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """The names in either, in the order of the first."""
    return list(dict.fromkeys([*one, *other]))


def _speed(one: Artifact, other: Artifact, seconds: float) -> str:
    from export.proof.speed import measure, table

    shared = [name for name in one.manifest.precisions if name in other.manifest.precisions]
    return table(measure({"A": one, "B": other}, shared, seconds=seconds)) if shared else "no precision is in both"


def conclusion(a: Manifest, b: Manifest) -> str:
    """Whether the vectors of A and B may be compared, and if not, why not."""
    lines = []
    # By precision: one that drifted has a space of its own, even where the artifacts share theirs.
    pairs = [
        f"{one} of A with {other} of B"
        for one, first in a.precisions.items()
        for other, second in b.precisions.items()
        if first.space == second.space
    ]
    if a.space.id != b.space.id:
        lines.append(
            f"Different spaces: vectors of A and B must not be compared. Re-embed the catalogue before switching, "
            f"because {_because(a, b)}."
        )
    elif len(pairs) == len(a.precisions) * len(b.precisions):
        lines.append("Same space: vectors of A and B may be compared, and switching needs no re-embedding.")
    elif pairs:
        lines.append(f"Vectors may be compared in the same space only: {', '.join(pairs)}.")
    else:
        lines.append(
            "Different spaces, though weights and preprocessing are the same: vectors of A and B must not be compared. "
            "Re-embed the catalogue before switching."
        )
    for manifest, which in ((a, "A"), (b, "B")):
        own = [precision for precision in manifest.precisions if apart(manifest, precision)]
        if own:
            lines.append(
                f"In {which}, {' and '.join(own)} has drifted into a space of its own: its vectors must not be "
                "compared with those of another precision."
            )
    if a.text is None or b.text is None:
        if a.text is not b.text:
            lines.append(f"Only {'A' if b.text is None else 'B'} has a text tower.")
    elif a.text.digest != b.text.digest:
        lines.append("The text towers differ, which needs no re-embedding.")
    return "\n".join(lines)


def _because(a: Manifest, b: Manifest) -> str:
    fields = [name for name, one, other in _spec(a, b) if one != other]
    reasons = []
    if fields:
        reasons.append(f"{' and '.join(fields)} of the preprocessing differ{'s' if len(fields) == 1 else ''}")
    if a.space.dimensions != b.space.dimensions:
        reasons.append(f"they have {a.space.dimensions} and {b.space.dimensions} dimensions")
    # The id is a digest of the weights and the spec: where the spec is the same, the weights differ.
    if not reasons:
        reasons.append("the weights differ")
    return " and ".join(reasons)
