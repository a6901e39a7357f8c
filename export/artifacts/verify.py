"""An artifact, proved again without its checkpoint: every byte, every golden, and the gate's pictures once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.checkpoints.preprocessing import processor_of
from export.errors import ExportRefused
from export.proof.decoding import compare_vectors, decode_twice, prove_decoding
from export.proof.devices import devices
from export.proof.drift import unit
from export.proof.gate import SHARED, Measured, asked, measure_images, measure_texts, own_space, table
from export.proof.grading import between_others, share
from export.proof.parity import GatePicture, gate_pictures, prove_pixels
from export.steps import step
from server.artifact.artifact import SEAL, Artifact, Device, Precision, TextTower, Tokens, Variant, seal
from server.errors import TextRejected
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.media import read_pixels
from server.preprocessing.text import Tokenizer

_MAX_PIXELS = 64_000_000

# The manifest has the cosine to torch, here it is taken to fp32's own graph: they are a rounding apart.
_ROUNDING = 1e-6
_OTHERS_APART = 0.005


def verify(folder: Path) -> None:
    """Prove the artifact in the folder, a printed line per step.

    Files: the seal, every digest, and nothing that the manifest does not list (a README.md apart). Manifest: each
    precision's space and figures are such as the gate lets pass. Goldens: as at every start of the server, pictures and
    texts, for each precision on each device here. Gate: pixels against a processor made from the spec; vectors alone
    against in batches, against fp32's, and JPEGs at the spec's scale against in full. Texts: likewise. What needs the
    checkpoint itself, the cosines to torch, is read from the manifest and not repeated.

    Raises ExportRefused or ArtifactInvalid, which name what is wrong.
    """
    with step("files") as told:
        artifact = Artifact.read(folder)
        _check_seal(folder)
        artifact.check_files()
        _check_unlisted(artifact)
        manifest = artifact.manifest
        size = sum(file.bytes for file in manifest.files.values())
        told(f"{len(manifest.files)} files, {size / 1e6:.1f} MB, as exported; space {manifest.space.id[:16]}")
        for precision, variant in manifest.precisions.items():
            _check_space(artifact, precision, variant)
            _check_figures(artifact, precision, variant)
    with step("goldens") as told:
        for precision in manifest.precisions:
            for device in devices(artifact, precision):
                lowest = prove_goldens(artifact, precision, device)
                told(f"{precision} on {device}: lowest cosine {lowest:.10f}")
        texts = f" and {len(manifest.text_goldens)} texts their tokens" if manifest.text else ""
        told(f"{len(manifest.goldens)} pictures give their pixels{texts}")
    with step("gate") as told:
        pictures = gate_pictures(artifact.spec)
        equal = prove_pixels(processor_of(artifact.spec), pictures)
        told(f"{equal} of {len(pictures)} pictures equal to the last bit, the others once upright and opaque")
        _verify_images(artifact, pictures, told)
    if manifest.text is not None:
        with step("texts") as told:
            _verify_texts(artifact, manifest.text, told)


def prove_goldens(artifact: Artifact, precision: Precision, device: Device = "cpu") -> float:
    """The goldens, pictures and texts, through the server's own decoder, tokenizer and encoders; the lowest cosine.

    Raises ArtifactInvalid.
    """

    def pixels(data: bytes) -> NDArray[np.uint8]:
        return read_pixels(data, artifact.spec, max_pixels=_MAX_PIXELS)

    with ExitStack() as opened:
        encoder = opened.enter_context(Encoder(artifact, precision, device))
        tower = artifact.manifest.text
        if tower is None:
            return artifact.self_test(precision, pixels, encoder.encode)
        words = opened.enter_context(TextEncoder(artifact, precision, device))
        tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
        return artifact.self_test(precision, pixels, encoder.encode, tokenizer.tokens, words.encode)


def _verify_images(artifact: Artifact, pictures: Sequence[GatePicture], told: Callable[[str], None]) -> None:
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
                    told(f"{scaled} JPEGs decoded at a scale: lowest cosine {at_scale.cosine.min():.6f} to in full")
            told(f"{precision} on {device}: {_batches(measured)}")
            _check_grades(precision, variant, measured)
            if precision != "fp32" and by_fp32 is not None:
                _check_shared(artifact, precision, variant, device, measured)
                told(_to_fp32(measured))
        told(_when_exported(variant))


def _verify_texts(artifact: Artifact, tower: TextTower, told: Callable[[str], None]) -> None:
    from export.checkpoints.tokenizer import TEXTS

    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    texts, tokens = readable(tokenizer, TEXTS)
    by_fp32: NDArray[np.float64] | None = None
    graphs: set[tuple[str | None, str]] = set()
    for precision, variant in sorted(artifact.manifest.precisions.items(), key=lambda one: one[0] != "fp32"):
        if variant.text is None:
            told(f"{precision} reads no words")
            continue
        for device in devices(artifact, precision):
            if (variant.text, device) in graphs:
                told(f"{precision} on {device} reads words with {variant.text}")
                continue
            graphs.add((variant.text, device))
            with TextEncoder(artifact, precision, device) as encoder:
                measured = measure_texts(by_fp32, encoder, texts, tokens)
            _check_lengths(f"{precision} text graph", measured.found)
            told(f"{precision} on {device}: {len(texts)} texts, {_batches(measured)}")
            if precision == "fp32" and by_fp32 is None:
                by_fp32 = measured.references
            elif by_fp32 is not None:
                low = [
                    at for at in measured.worst(len(texts)) if not measured.compared.cosine[at] >= SHARED - _ROUNDING
                ]
                if low:
                    raise ExportRefused(
                        f"On {device}, {variant.text} is too far from the text graph of fp32 here: {len(low)} of "
                        f"{len(texts)} texts are below {SHARED}.\n{table(measured, low)}"
                    )
                told(_to_fp32(measured))


def readable(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[str], list[Tokens]]:
    """Those of the texts that the server takes, with their tokens: it refuses one with nothing in it to read."""
    taken, tokens = [], []
    for text in texts:
        try:
            row = tokenizer.tokens(text)
        except TextRejected:
            continue
        taken.append(text)
        tokens.append(row)
    return taken, tokens


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
    """A precision in fp32's space must be near it here as well, not only where it was exported."""
    if variant.space != artifact.manifest.space.id:
        return
    compared = measured.compared
    far = [
        at
        for at in measured.worst(len(measured.names))
        if not compared.cosine[at] >= SHARED - _ROUNDING or compared.rank[at]
    ]
    if far:
        raise ExportRefused(
            f"{precision} shares the space of fp32, but on this machine ({device}) {len(far)} of "
            f"{len(measured.names)} pictures are below {SHARED} or do not find themselves first. Run {precision} "
            f"where it was exported for, or fp32.\n{table(measured, far)}"
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
    """What `own_space` takes: the digests of a graph's files, weights beside it included, in the order of their names.

    As the manifest has them.
    """
    files = artifact.manifest.files
    return [files[name].sha256 for name in sorted(files) if name == graph or name.startswith(f"{graph}.")]


def _check_figures(artifact: Artifact, precision: Precision, variant: Variant) -> None:
    """The figures in the manifest must be such as the gate lets pass."""
    shared = variant.space == artifact.manifest.space.id
    # Words may go through fp32's graph.
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
    """As many pairs of different pictures must reach each grade here as the manifest says, about.

    The gate's pictures are decoded in full here and were graded as served, which moves a cosine a little.
    """
    grades, grading = variant.grades, variant.grading
    if grades is None or grading is None:
        return
    found = share(between_others(unit(measured.found)), grades)
    if found.pairs != grading.others.pairs:
        return  # an export of another version had other pictures
    for name in ("identical", "near_duplicate", "similar"):
        here, there = getattr(found, name), getattr(grading.others, name)
        if abs(here - there) > _OTHERS_APART:
            raise ExportRefused(
                f"The manifest says that {there:.2%} of the pairs of different pictures are "
                f"{name.replace('_', '-')} in {precision}, but here {here:.2%} are: its grades are not of these graphs."
            )


def _check_seal(folder: Path) -> None:
    # `Artifact.read` compares a seal that is there; here it must be.
    path = folder / SEAL
    if not path.is_file() or path.read_bytes() != seal((folder / "manifest.json").read_bytes()):
        raise ExportRefused(f"{path} is missing or damaged: nothing says that manifest.json is the one exported.")


def _check_unlisted(artifact: Artifact) -> None:
    known = {*artifact.manifest.files, "manifest.json", SEAL, "README.md"}
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if "__pycache__" in path.parts:
            continue  # what ran the starter's training left it
        if (path.is_symlink() or not path.is_dir()) and name not in known:
            raise ExportRefused(f"{path} is not a file of this artifact: its manifest does not list it.")
