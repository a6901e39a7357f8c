"""An artifact, proved again without its checkpoint: every byte, every golden, and the gate's pictures once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.checkpoints.preprocessing import processor_of
from export.errors import ExportRefused
from export.proof.colours import compare_shapes, prove_shapes
from export.proof.decoding import compare_vectors, decode_twice, prove_decoding
from export.proof.devices import devices
from export.proof.drift import unit
from export.proof.gate import Measured, asked, measure_images, measure_texts, own_space, table
from export.proof.grading import between_others, share
from export.proof.parity import GatePicture, gate_pictures, prove_pixels
from export.steps import step
from server.artifact.artifact import (
    MIN_COSINE_IN_SPACE,
    SEAL,
    Artifact,
    Device,
    Precision,
    TextTower,
    Tokens,
    Variant,
    seal,
)
from server.errors import TextRejected
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.media import read_pixels
from server.preprocessing.text import Tokenizer
from server.settings import MAX_PIXELS

# The manifest has the cosine to torch. Here it is measured to fp32's graph: the two may differ by a rounding error.
_ROUNDING = 1e-6
_SHARE_TOLERANCE = 0.005


def verify(folder: Path) -> None:
    """Prove the artifact in the folder, a printed line per step.

    Files: the seal, every digest, and no file that the manifest does not list, except a README.md. Manifest: the gate
    accepts each precision's space and figures. Goldens: pictures and texts, as at every start of the server, for each
    precision on each device here. Gate: pixels against a processor made from the spec; vectors alone against vectors in
    batches and against fp32's; JPEGs at the spec's scale against JPEGs in full. Texts: likewise. The cosines to torch
    need the checkpoint: they are read from the manifest.

    Raises ExportRefused or ArtifactInvalid, which name what is wrong.
    """
    with step("files") as note:
        artifact = Artifact.read(folder)
        _check_seal(folder)
        artifact.check_files()
        _check_unlisted(artifact)
        manifest = artifact.manifest
        size = sum(file.bytes for file in manifest.files.values())
        note(f"{len(manifest.files)} files, {size / 1e6:.1f} MB, as exported; space {manifest.space.id[:16]}")
        for precision, variant in manifest.precisions.items():
            _check_space(artifact, precision, variant)
            _check_figures(artifact, precision, variant)
    with step("goldens") as note:
        for precision in manifest.precisions:
            for device in devices(artifact, precision):
                lowest = prove_goldens(artifact, precision, device)
                note(f"{precision} on {device}: lowest cosine {lowest:.10f}")
        texts = f" and {len(manifest.text_goldens)} texts their tokens" if manifest.text else ""
        note(f"{len(manifest.goldens)} pictures give their pixels{texts}")
    with step("gate") as note:
        pictures = gate_pictures(artifact.spec)
        equal = prove_pixels(processor_of(artifact.spec), pictures)
        note(f"{equal} of {len(pictures)} pictures equal to the last bit, the others once upright and opaque")
        _verify_images(artifact, pictures, note)
    if manifest.text is not None:
        with step("texts") as note:
            _verify_texts(artifact, manifest.text, note)


def prove_goldens(artifact: Artifact, precision: Precision, device: Device = "cpu") -> float:
    """The goldens, pictures and texts, through the server's own decoder, tokenizer and encoders; the lowest cosine.

    Raises ArtifactInvalid.
    """

    def pixels(data: bytes) -> NDArray[np.uint8]:
        return read_pixels(data, artifact.spec, max_pixels=MAX_PIXELS)

    with ExitStack() as opened:
        encoder = opened.enter_context(Encoder(artifact, precision, device))
        tower = artifact.manifest.text
        if tower is None:
            return artifact.self_test(precision, pixels, encoder.encode)
        words = opened.enter_context(TextEncoder(artifact, precision, device))
        tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
        return artifact.self_test(precision, pixels, encoder.encode, tokenizer.tokens, words.encode)


def _verify_images(artifact: Artifact, pictures: Sequence[GatePicture], note: Callable[[str], None]) -> None:
    by_fp32: NDArray[np.float64] | None = None
    decoded = False
    # fp32 first: it is what the others are compared with.
    for precision, variant in sorted(artifact.manifest.precisions.items(), key=lambda one: one[0] != "fp32"):
        for device in devices(artifact, precision):
            with Encoder(artifact, precision, device) as encoder:
                measured = measure_images(by_fp32, encoder, pictures)
                _check_lengths(f"{precision} graph", measured.found)
                if by_fp32 is None and precision == "fp32":
                    by_fp32 = measured.references
                if not decoded:
                    decoded = True
                    twice = decode_twice(((picture.name, picture.data) for picture in pictures), artifact.spec)
                    at_scale = compare_vectors(twice, encoder.encode)
                    prove_decoding(twice, at_scale)
                    scaled = sum(one.scale > 1 for one in twice)
                    lowest = at_scale.cosine.min()
                    note(f"{scaled} JPEGs decoded at a scale: lowest cosine {lowest:.6f} to decoding in full")
                    if artifact.spec.alpha == "contrast":
                        shapes = compare_shapes(artifact.spec, encoder.encode)
                        prove_shapes(shapes)
                        note(f"white shapes on transparency: highest cosine {shapes.contrast:.6f}")
            note(f"{precision} on {device}: {_batches(measured)}")
            _check_grades(precision, variant, measured)
            if precision != "fp32" and by_fp32 is not None:
                _check_shared(artifact, precision, variant, device, measured)
                note(_to_fp32(measured))
        note(_when_exported(variant))


def _verify_texts(artifact: Artifact, tower: TextTower, note: Callable[[str], None]) -> None:
    from export.checkpoints.tokenizer import TEXTS

    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    texts, tokens = readable(tokenizer, TEXTS)
    by_fp32: NDArray[np.float64] | None = None
    graphs: set[tuple[str | None, str]] = set()
    for precision, variant in sorted(artifact.manifest.precisions.items(), key=lambda one: one[0] != "fp32"):
        if variant.text is None:
            note(f"{precision} has no text graph")
            continue
        for device in devices(artifact, precision):
            if (variant.text, device) in graphs:
                note(f"{precision} on {device} uses {variant.text}")
                continue
            graphs.add((variant.text, device))
            with TextEncoder(artifact, precision, device) as encoder:
                measured = measure_texts(by_fp32, encoder, texts, tokens)
            _check_lengths(f"{precision} text graph", measured.found)
            note(f"{precision} on {device}: {len(texts)} texts, {_batches(measured)}")
            if precision == "fp32" and by_fp32 is None:
                by_fp32 = measured.references
            elif by_fp32 is not None:
                low = [
                    at
                    for at in measured.worst(len(texts))
                    if not measured.compared.cosine[at] >= MIN_COSINE_IN_SPACE - _ROUNDING
                ]
                if low:
                    raise ExportRefused(
                        f"On {device}, {variant.text} is too far from the text graph of fp32 here: {len(low)} of "
                        f"{len(texts)} texts are below {MIN_COSINE_IN_SPACE}.\n{table(measured, low)}"
                    )
                note(_to_fp32(measured))


def readable(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[str], list[Tokens]]:
    """The texts that the server accepts, with their tokens: it refuses a text without a token."""
    accepted, tokens = [], []
    for text in texts:
        try:
            row = tokenizer.tokens(text)
        except TextRejected:
            continue
        accepted.append(text)
        tokens.append(row)
    return accepted, tokens


def _batches(measured: Measured) -> str:
    same = "bit-identical alone and in batches" if measured.batch_identical else "NOT bit-identical in batches here"
    return f"{same}, of unit length"


def _to_fp32(measured: Measured) -> str:
    lost = int((measured.compared.rank > 0).sum())
    return (
        f"lowest cosine to fp32 here {measured.compared.cosine.min():.8f}, "
        f"{'each finds itself first' if not lost else f'{lost} do not find themselves first'}"
    )


def _when_exported(variant: Variant) -> str:
    return ", ".join(
        f"cosine to the checkpoint when exported, on {device}: {parity.image.min_cosine}"
        for device, parity in variant.parity.items()
    )


def _check_lengths(what: str, vectors: NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.abs(lengths - 1).max() < 1e-5:
        raise ExportRefused(f"The {what} gives vectors of length {lengths.min()} to {lengths.max()}.")


def _check_shared(artifact: Artifact, precision: str, variant: Variant, device: str, measured: Measured) -> None:
    """Raises ExportRefused where a precision in fp32's space is too far from fp32 on this machine."""
    if variant.space != artifact.manifest.space.id:
        return
    compared = measured.compared
    far = [
        at
        for at in measured.worst(len(measured.names))
        if not compared.cosine[at] >= MIN_COSINE_IN_SPACE - _ROUNDING or compared.rank[at]
    ]
    if far:
        raise ExportRefused(
            f"{precision} shares the space of fp32, but on this machine ({device}) {len(far)} of "
            f"{len(measured.names)} pictures are below {MIN_COSINE_IN_SPACE} or do not find themselves first. Run "
            f"{precision} on a machine like the one where it was exported, or run fp32.\n{table(measured, far)}"
        )


def _check_space(artifact: Artifact, precision: Precision, variant: Variant) -> None:
    base = artifact.manifest.space.id
    if precision == "fp32" and variant.space != base:
        raise ExportRefused("The manifest gives fp32 a space of its own, but fp32 is what makes the artifact's space.")
    if variant.space != base and variant.space != own_space(base, precision, graph_digests(artifact, variant.image)):
        raise ExportRefused(
            f"The manifest gives {precision} the space {variant.space[:16]}, which is neither that of the artifact nor "
            "the one that its graph's bytes make."
        )


def graph_digests(artifact: Artifact, graph: str) -> list[str]:
    """The manifest's digests of a graph's files, the weights beside it included, by name, as `own_space` needs them."""
    files = artifact.manifest.files
    return [files[name].sha256 for name in sorted(files) if name == graph or name.startswith(f"{graph}.")]


def _check_figures(artifact: Artifact, precision: Precision, variant: Variant) -> None:
    """Raises ExportRefused for figures in the manifest that the gate would not have accepted."""
    shared = variant.space == artifact.manifest.space.id
    # A precision may use fp32's text graph.
    reader: Precision = precision if variant.text == f"text.{precision}.onnx" else "fp32"
    for device, parity in variant.parity.items():
        reached = [(parity.image, asked(precision, device) if shared else variant.min_cosine)]
        if parity.text is not None:
            reached.append((parity.text, asked(reader, device)))
        for drift, least in reached:
            if not drift.min_cosine >= least:
                raise ExportRefused(
                    f"The manifest says that {precision} reached a cosine of {drift.min_cosine} on {device}, below "
                    f"the {least} that it had to reach: such an artifact was not published by this export."
                )
        if shared and parity.image.self_first < parity.image.count:
            raise ExportRefused(
                f"The manifest says that {precision} shares the space on {device}, but that only "
                f"{parity.image.self_first} of {parity.image.count} pictures find themselves first."
            )


def _check_grades(precision: Precision, variant: Variant, measured: Measured) -> None:
    """About as many pairs of different pictures must reach each grade here as the manifest says.

    Pictures are decoded in full here, and were graded as served, which moves a cosine a little. Raises ExportRefused.
    """
    grades, grading = variant.grades, variant.grading
    if grades is None or grading is None:
        return
    found = share(between_others(unit(measured.found)), grades)
    if found.pairs != grading.others.pairs:
        return  # another version of the export has other pictures
    for name in ("identical", "near_duplicate", "similar"):
        here, there = getattr(found, name), getattr(grading.others, name)
        if abs(here - there) > _SHARE_TOLERANCE:
            raise ExportRefused(
                f"The manifest says that {there:.2%} of the pairs of different pictures are "
                f"{name.replace('_', '-')} in {precision}, but here {here:.2%} are: its grades are not of these graphs."
            )


def _check_seal(folder: Path) -> None:
    # `Artifact.read` accepts a folder without a seal.
    path = folder / SEAL
    if not path.is_file() or path.read_bytes() != seal((folder / "manifest.json").read_bytes()):
        raise ExportRefused(f"{path} is missing or damaged: manifest.json may not be the one that was exported.")


def _check_unlisted(artifact: Artifact) -> None:
    known = {*artifact.manifest.files, "manifest.json", SEAL, "README.md"}
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if "__pycache__" in path.parts:
            continue  # left by running the starter's training
        if (path.is_symlink() or not path.is_dir()) and name not in known:
            raise ExportRefused(f"{path} is not a file of this artifact: its manifest does not list it.")
