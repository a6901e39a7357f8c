"""The artifacts in a folder, and what the manifest of one says: nothing is run."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportRefused
from export.proof.grading import summary_of_words
from export.table import columns
from server.artifact.artifact import Artifact, Drift, Manifest, PreprocessingSpec, Variant
from server.artifact.grades import GRADES
from server.errors import ArtifactInvalid


def list_artifacts(models: Path) -> str:
    """A table of the artifacts in a folder; an artifact that cannot be read is named with the reason.

    Raises ExportRefused when there is no such folder.
    """
    if not models.is_dir():
        raise ExportRefused(f"There is no folder {models} with artifacts.")
    rows, broken = [], []
    for path in sorted(models.iterdir()):
        if path.name.startswith(".") or not (path / "manifest.json").is_file():
            continue
        try:
            rows.append(_row(path.name, Artifact.read(path).manifest))
        except ArtifactInvalid as exc:
            broken.append(f"{path.name} cannot be read: {exc.sentence}")
    if not rows and not broken:
        return f"There are no artifacts in {models}."
    head = ["name", "model", "space", "dimensions", "precisions", "text", "size", "worst cosine"]
    return "\n".join([*(columns([head, *rows], right=(3, 6, 7)) if rows else []), *broken])


def _row(name: str, manifest: Manifest) -> list[str]:
    text = manifest.text
    return [
        name,
        manifest.model,
        manifest.space.id[:16],
        str(manifest.space.dimensions),
        ", ".join(
            precision + (" (own space)" if apart(manifest, precision) else "") for precision in manifest.precisions
        ),
        f"{text.length} tokens" if text else "no",
        size_of(sum(file.bytes for file in manifest.files.values())),
        _worst(manifest),
    ]


def _worst(manifest: Manifest) -> str:
    cosines = [
        (parity.image.min_cosine, precision)
        for precision, variant in manifest.precisions.items()
        for parity in variant.parity.values()
    ]
    return "{:.8f} {}".format(*min(cosines)) if cosines else "not measured"


def apart(manifest: Manifest, precision: str) -> bool:
    """Whether a precision has a space of its own."""
    return any(variant.space != manifest.space.id for name, variant in manifest.precisions.items() if name == precision)


def show(folder: Path) -> str:
    """Everything that the manifest of an artifact says, for people. Raises ArtifactInvalid."""
    manifest = Artifact.read(folder).manifest
    source, text = manifest.source, manifest.text
    facts = [
        ["name", manifest.name],
        ["model", manifest.model],
        ["source", f"{source.kind} {source.id}" + (f" at {source.revision}" if source.revision else "")],
        ["architecture", manifest.architecture],
        ["space", manifest.space.id],
        ["dimensions", str(manifest.space.dimensions)],
        ["size", size_of(sum(file.bytes for file in manifest.files.values()))],
    ]
    parts = [
        columns(facts),
        ["", "preprocessing"],
        columns([["", *pair] for pair in spec_fields(manifest.preprocessing)]),
    ]
    if text is None:
        parts.append(["", "text tower: none; this artifact reads pictures only"])
    else:
        parts += [
            ["", "text tower"],
            columns(
                [
                    ["", "architecture", text.architecture],
                    ["", "tokens", f"{'always' if text.padded else 'at most'} {text.length}"],
                    ["", "tokenizer", text.tokenizer],
                    ["", "digest", text.digest],
                ]
            ),
        ]
    for precision, variant in manifest.precisions.items():
        own = f"a space of its own, {variant.space}" if apart(manifest, precision) else "in the artifact's space"
        graphs = [name for name in (variant.image, variant.text) if name]
        sizes = ", ".join(f"{name} {size_of(graph_bytes(manifest, name))}" for name in graphs)
        asked = f"each picture's cosine at least {variant.min_cosine}, a golden's at least {variant.min_golden_cosine}"
        parts += [["", precision], [f"  {own}", f"  {sizes}", f"  asked: {asked}"]]
        parts.append(_drifts(manifest, precision))
        parts.append(_grades(variant))
    words = ", ".join(_quoted(golden.text) for golden in manifest.text_goldens)
    parts += [
        ["", "goldens"],
        [f"  {', '.join(golden.picture.rpartition('/')[2] for golden in manifest.goldens)}"],
        [f"  {words}"] if words else [],
        ["", "made with"],
        columns(
            [["", name, version] for name, version in (*manifest.versions.items(), ("opset", str(manifest.opset)))]
        ),
        ["", f"{len(manifest.files)} files"],
        columns([["", name, size_of(file.bytes), file.sha256] for name, file in manifest.files.items()], right=(2,)),
    ]
    return "\n".join(line for part in parts for line in part)


def _grades(variant: Variant) -> list[str]:
    return [*_grades_of_pictures(variant), *_grades_of_words(variant)]


def _grades_of_words(variant: Variant) -> list[str]:
    if variant.text is None:
        return []
    grades, measured = variant.text_grades, variant.text_grading
    if grades is None:
        return ["  grades of words: none; it was exported without captions"]
    return [f"  grades of words: {summary_of_words(grades, measured)}"] if measured is not None else []


def _grades_of_pictures(variant: Variant) -> list[str]:
    grades, measured = variant.grades, variant.grading
    if grades is None:
        return ["  grades: none; its matches have no grade"]
    rows = [["", "grade", "cosine from"] + (["same", "altered", "others"] if measured else [])]
    for name, field in zip(GRADES, ("identical", "near_duplicate", "similar"), strict=False):
        row = ["", name, f"{getattr(grades, field):g}"]
        if measured is not None:
            row += [f"{getattr(one, field):.2%}" for one in (measured.same, measured.altered, measured.others)]
        rows.append(row)
    if measured is not None:
        rows.append(
            ["", "", "of pairs", *(str(one.pairs) for one in (measured.same, measured.altered, measured.others))]
        )
    return columns(rows, right=range(2, len(rows[0])))


def _quoted(text: str) -> str:
    plain = "".join(char if char.isprintable() else "·" for char in text)
    return f'"{plain if len(plain) <= 30 else plain[:29] + "…"}"'


_DRIFT = ["number", "lowest cosine", "mean", "lowest centred", "mean", "itself first", "top ten", "moved", "batches"]


def _drifts(manifest: Manifest, precision: str) -> list[str]:
    rows = []
    for name, variant in manifest.precisions.items():
        for device, parity in variant.parity.items() if name == precision else ():
            for what, drift in (
                (f"pictures on {device} ({parity.pixels_equal} equal in pixels)", parity.image),
                (f"texts on {device}", parity.text),
                (f"JPEGs at a scale on {device}", parity.scaled_decoding),
            ):
                if drift is not None:
                    rows.append(["", what, *drift_figures(drift)])
    return columns([["", "", *_DRIFT], *rows], right=range(2, 11)) if rows else ["  not measured"]


def drift_figures(drift: Drift) -> list[str]:
    """The figures as `show` and `diff` print them, in the order of the manifest."""
    return [
        str(drift.count),
        f"{drift.min_cosine:.8f}",
        f"{drift.mean_cosine:.8f}",
        f"{drift.min_centred_cosine:.6f}",
        f"{drift.mean_centred_cosine:.6f}",
        f"{drift.self_first} of {drift.count}",
        f"{drift.recall_at_10:.1%}",
        str(drift.largest_rank_change),
        "identical" if drift.batch_identical else "differ",
    ]


def spec_fields(spec: PreprocessingSpec) -> list[tuple[str, str]]:
    """The spec's fields by name, in the order of the manifest."""
    return [(name, _plain(getattr(spec, name))) for name in spec.__struct_fields__]


def _plain(value: object) -> str:
    return ", ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def graph_bytes(manifest: Manifest, graph: str) -> int:
    """The size of a graph, the weights beside it included."""
    return sum(file.bytes for name, file in manifest.files.items() if name == graph or name.startswith(f"{graph}."))


def size_of(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
