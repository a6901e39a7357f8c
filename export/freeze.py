"""An export, step by step: checkpoint → graphs → gate → goldens → artifact, a printed line for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from export.artifacts import publish
from export.artifacts.place import destination, put, staging
from export.artifacts.verify import graph_digests, readable
from export.checkpoints.checkpoint import Checkpoint, TextTower
from export.checkpoints.sources import open_source
from export.checkpoints.tokenizer import TEXTS, prove_tokens
from export.errors import ExportRefused
from export.graphs import trace
from export.graphs.int8 import to_int8_image, to_int8_text
from export.graphs.precision import to_fp16
from export.proof import colours, gate, grading
from export.proof.captions import Caption, captioned, read_captions
from export.proof.colours import Converted, Shapes
from export.proof.decoding import DecodedTwice, compare_vectors, decode_twice, prove_decoding, scaled_by_default
from export.proof.devices import devices
from export.proof.drift import Compared
from export.proof.gate import Measured
from export.proof.parity import GatePicture, calibration_pictures, gate_pictures, prove_pixels
from export.proof.report import render
from export.steps import counted, step, watched
from server.artifact.artifact import Artifact, Manifest, Parity, Precision, PreprocessingSpec, Tokens, Variant
from server.errors import ArtifactInvalid
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.text import Tokenizer

REPORT = "report.html"

# int8 is calibrated on every second bundled picture: the others judge it on pictures that it has not seen.
_EVERY = 2
# About as many of the user's own pictures as of the bundled ones, evenly spread.
_OWN = 48


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be exported, and how."""

    source: str
    name: str
    precisions: Sequence[Precision] = ("fp32",)
    revision: str | None = None
    models: Path = Path("models")
    allow_drift: float | None = None
    """The least cosine at which a precision that drifts is still published, in a space of its own."""
    calibration: Path | None = None
    """A folder with the user's own pictures, which the gate measures and int8 is calibrated on."""
    captions: Path | None = None
    """A file with captions of pictures, by which the grade of words is chosen."""
    jpeg: str = "scaled"
    """`scaled`: large JPEGs are decoded at a fraction of their size, which the spec then says; `full`: never."""
    icc: Literal["srgb", "ignored"] = "srgb"
    """As the spec has it: whether colours are converted by a picture's profile."""
    alpha: Literal["contrast", "white"] = "contrast"
    """As the spec has it: what transparency is laid on."""

    def spec(self, of_the_checkpoint: PreprocessingSpec) -> PreprocessingSpec:
        """The checkpoint's own preprocessing with what the order adds to it."""
        spec = scaled_by_default(of_the_checkpoint) if self.jpeg == "scaled" else of_the_checkpoint
        return msgspec.structs.replace(spec, icc=self.icc, alpha=self.alpha)


def freeze(order: Order) -> Path:
    """Export a source to `models/name`; the artifact's folder.

    Raises ExportRefused, and leaves nothing behind, when any step refuses.
    """
    place = destination(order.models, order.name)
    captions = read_captions(order.captions) if order.captions is not None else []
    with staging(place) as folder:
        with step("source") as note:
            checkpoint = open_source(order.source, order.revision)
            checkpoint.image.spec = order.spec(checkpoint.image.spec)
            manifest = publish.draft(checkpoint, order.name)
            at = f" at {checkpoint.source.revision}" if checkpoint.source.revision else ""
            note(f"{checkpoint.model}{at}, {checkpoint.image.architecture}, {len(checkpoint.image.tensors)} tensors")
            note(f"space {manifest.space.id[:16]}")
            if order.captions is not None and checkpoint.text is None:
                raise ExportRefused(f"{checkpoint.without_text} So there is nothing to grade by --captions.")
        run = _ExportRun(order, folder, checkpoint, manifest, captions)
        run.compare_pixels()
        run.freeze_image()
        run.decode_at_a_scale()
        run.convert_colours()
        run.freeze_text()
        for precision in order.precisions:
            if precision != "fp32":
                run.make_image(precision)
                run.make_text(precision)
        run.calibrate_grades()
        run.calibrate_words()
        run.write_goldens()
        with step("publish") as note:
            lowest = run.publish()
            put(folder, place)
            note(f"read back (lowest golden cosine {lowest:.10f}), now {place}")
    return place


@dataclass
class _ExportRun:
    """One export in progress: what its steps so far have made and measured."""

    order: Order
    folder: Path
    checkpoint: Checkpoint
    manifest: Manifest
    captions: Sequence[Caption]
    pictures: list[GatePicture] = field(default_factory=list)
    pixels_equal: int = 0
    images: dict[Precision, dict[str, Measured]] = field(default_factory=dict)
    texts: dict[Precision, dict[str, Measured]] = field(default_factory=dict)
    """By precision and device: figures of the text graph that the precision runs."""
    left_out: dict[Precision, dict[str, Measured]] = field(default_factory=dict)
    """By precision and device: figures of the text graphs that drifted, for the report."""
    words: list[str] = field(default_factory=list)
    """The gate's texts in which the tokenizer finds a token."""
    tokens: list[Tokens] = field(default_factory=list)
    decoded: tuple[list[DecodedTwice], Compared] | None = None
    converted: list[Converted] = field(default_factory=list)
    shapes: Shapes | None = None

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.folder, self.manifest)

    def compare_pixels(self) -> None:
        with step("pixels") as note:
            spec = self.checkpoint.image.spec
            self.pictures = gate_pictures(spec)
            if self.order.calibration is not None:
                self.pictures += calibration_pictures(spec, self.order.calibration)
            self.pixels_equal = prove_pixels(self.checkpoint.image.processor, self.pictures)
            note(f"{self.pixels_equal} of {len(self.pictures)} equal the checkpoint's processor to the last bit")
            if others := len(self.pictures) - self.pixels_equal:
                note(f"the other {others} once turned upright and made opaque, which it leaves undone")

    def freeze_image(self) -> None:
        tower = self.checkpoint.image
        with step("image") as note:
            traced = trace.trace_image(tower, self.folder)
            note(f"optimum traced {len(traced.graph.node)} nodes at opset {trace.OPSET}")
            expected = gate.references(tower, self.pictures, self.checkpoint.model, watched)
            # The traced graph has the weights now: they need not be in memory twice.
            tower.release()
            size = self._write(
                trace.compose_image(traced, tower.spec, tower.dimensions), self.manifest.precisions["fp32"].image
            )
            del traced
            note(f"pixels uint8[N, {tower.spec.size}, {tower.spec.size}, 3]")
            note(f"embedding float32[N, {tower.dimensions}], unit length; {size:.1f} MB")
        with step("vectors") as note:
            self.images["fp32"] = self._measure_images("fp32", expected)
            gate.judge("fp32", self.images["fp32"])
            note(_summary(self.images["fp32"]))

    def freeze_text(self) -> None:
        if self.checkpoint.text is None:
            with step("text") as note:
                note(f"{self.checkpoint.without_text} The artifact searches by picture only")
            return
        with step("text") as note:
            tower = self.checkpoint.text()
            note(f"{tower.architecture}, {len(tower.tensors)} tensors")
            note(f"{prove_tokens(tower)} texts give the tokens that the checkpoint's own tokenizer gives")
            self._describe_text(tower)
            traced = trace.trace_text(tower, self.folder)
            note(f"{len(traced.graph.node)} nodes")
            expected = gate.text_references(tower, self.words, self.checkpoint.model, watched)
            stored = tower.stored
            tower.release()
            size = self._write(
                trace.compose_text(traced, self.checkpoint.image.dimensions, stored), publish.text_name("fp32")
            )
            del traced
            at = "always" if tower.padded else "at most"
            note(f"tokens int64[N, L], L {at} {tower.length}; {size:.1f} MB")
        with step("words") as note:
            self._alter("fp32", text=publish.text_name("fp32"))
            self.texts["fp32"] = self._measure_texts("fp32", expected)
            gate.judge_texts("fp32", self.texts["fp32"])
            note(_summary(self.texts["fp32"]))

    def _describe_text(self, tower: TextTower) -> None:
        """Write the tokenizer's file and the manifest's part about text, and tokenise the gate's texts."""
        described = publish.text_tower(tower)
        path = self.folder / described.tokenizer
        path.write_bytes(tower.tokenizer_json)
        self.manifest = msgspec.structs.replace(self.manifest, text=described)
        try:
            tokenizer = Tokenizer.read(path, described)
        except ArtifactInvalid as exc:
            raise ExportRefused(f"The server cannot read the tokenizer that was made: {exc.sentence}") from exc
        self.words, self.tokens = readable(tokenizer, TEXTS)

    def make_image(self, precision: Precision) -> None:
        with step(precision) as note:
            fp32 = self._load(self.manifest.precisions["fp32"].image)
            chosen = self._for_calibration()
            pixels = np.stack([picture.pixels for picture in chosen])
            if precision == "fp16":
                model = to_fp16(fp32, np.array_split(pixels, math.ceil(len(pixels) / gate.BATCH)))
            else:
                with counted("layers in int8") as report:
                    model = to_int8_image(fp32, pixels, scratch=self.folder, on_progress=report)
                note(f"calibrated on {len(chosen)} pictures")
            del fp32
            graph = publish.graph_name(precision)
            size = self._write(model, graph)
            del model
            note(f"image {size:.1f} MB")
            self._add(precision)
            reference = next(iter(self.images["fp32"].values())).references
            self.images[precision] = self._measure_images(precision, reference)
            verdict = gate.judge(precision, self.images[precision], self.order.allow_drift)
            note(_summary(self.images[precision]))
            note(verdict.sentence)
            self._alter(precision, min_cosine=verdict.min_cosine)
            if not verdict.shares_space:
                self.manifest = msgspec.structs.replace(self.manifest, files=publish.digests(self.folder))
                digests = graph_digests(self.artifact, graph)
                self._alter(precision, space=gate.own_space(self.manifest.space.id, precision, digests))

    def _for_calibration(self) -> list[GatePicture]:
        own = [picture for picture in self.pictures if picture.below is not None]
        bundled = [picture for picture in self.pictures if picture.below is None]
        return [*own[:: max(1, math.ceil(len(own) / _OWN))], *bundled[::_EVERY]]

    def make_text(self, precision: Precision) -> None:
        if self.manifest.text is None:
            return
        with step(f"{precision} words") as note:
            fp32 = self._load(publish.text_name("fp32"))
            if precision == "fp16":
                model = to_fp16(fp32, [row[None] for row in self.tokens[::_EVERY]])
            else:
                with counted("layers in int8") as report:
                    model = to_int8_text(fp32, self.tokens[::_EVERY], scratch=self.folder, on_progress=report)
            del fp32
            graph = publish.text_name(precision)
            size = self._write(model, graph)
            del model
            self._alter(precision, text=graph)
            reference = next(iter(self.texts["fp32"].values())).references
            measured = self._measure_texts(precision, reference)
            verdict = gate.judge_texts(precision, measured)
            if verdict.own:
                self.texts[precision] = measured
                note(f"text {size:.1f} MB")
                note(_summary(measured))
            else:
                for path in self.folder.glob(f"{graph}*"):
                    path.unlink()
                self._alter(precision, text=publish.text_name("fp32"))
                self.texts[precision] = self.texts["fp32"]
                self.left_out[precision] = measured
            note(verdict.sentence)

    def decode_at_a_scale(self) -> None:
        spec = self.checkpoint.image.spec
        if not spec.jpeg_at_least:
            return
        with step("jpeg") as note, Encoder(self.artifact, "fp32", "cpu") as encoder:
            twice = decode_twice(((picture.name, picture.data) for picture in self.pictures), spec)
            compared = compare_vectors(twice, encoder.encode)
            prove_decoding(twice, compared)
            self.decoded = (twice, compared)
            note(
                f"{sum(one.scale > 1 for one in twice)} of {len(twice)} JPEGs decoded at 1/2 to 1/8, to no less than "
                f"{spec.jpeg_at_least} pixels a side"
            )
            note(f"lowest cosine {compared.cosine.min():.6f} to decoding in full")

    def convert_colours(self) -> None:
        spec = self.checkpoint.image.spec
        if spec.icc == "ignored" and spec.alpha == "white":
            return
        with step("colours") as note, Encoder(self.artifact, "fp32", "cpu") as encoder:
            if spec.icc == "srgb":
                self.converted = colours.compare_colours(self.pictures, spec, encoder.encode)
                colours.prove_colours(self.converted)
                for one in self.converted:
                    note(
                        f"{one.space}: mean cosine to the original {one.converted[1]:.6f} converted, "
                        f"{one.ignored[1]:.6f} not; {one.converted_first} and {one.ignored_first} of {one.count} first"
                    )
            if spec.alpha == "contrast":
                self.shapes = colours.compare_shapes(spec, encoder.encode)
                colours.prove_shapes(self.shapes)
                note(
                    f"white shapes: highest cosine {self.shapes.contrast:.6f} to each other, on white "
                    f"{self.shapes.white:.6f}"
                )

    def calibrate_grades(self) -> None:
        with step("grades") as note:
            pairs = grading.pairs_of(self.pictures, self.checkpoint.image.spec)
            for precision in self._kept():
                with Encoder(self.artifact, precision, "cpu") as encoder:
                    grades, measured = grading.grade(encoder.encode, pairs, watched) or (None, None)
                self._alter(precision, grades=grades, grading=measured)
                note(f"{precision}: {grading.summary(grades, measured)}")

    def calibrate_words(self) -> None:
        tower = self.manifest.text
        if tower is None or not self.captions:
            return
        with step("captions") as note:
            tokenizer = Tokenizer.read(self.folder / tower.tokenizer, tower)
            pairs = captioned(self.captions, self.checkpoint.image.spec, tokenizer)
            for precision in self._kept():
                with (
                    Encoder(self.artifact, precision, "cpu") as encoder,
                    TextEncoder(self.artifact, precision, "cpu") as words,
                ):
                    grades, measured = grading.grade_words(encoder.encode, words.encode, pairs, watched)
                self._alter(precision, text_grades=grades, text_grading=measured)
                note(f"{precision}: {grading.summary_of_words(grades, measured)}")

    def write_goldens(self) -> None:
        with step("goldens") as note:
            scaled = {one.name for one in self.decoded[0] if one.scale > 1} if self.decoded is not None else set()
            chosen = publish.choose_goldens(self.pictures, scaled)
            if self.checkpoint.image.spec.icc == "srgb":
                chosen = publish.with_profile(chosen)
            precisions = self._kept()
            texts = publish.choose_texts(self.words, self.tokens)
            goldens = publish.write_goldens(self.artifact, chosen, precisions)
            text_goldens = publish.write_text_goldens(self.artifact, texts, precisions) if self.manifest.text else []
            self.manifest = msgspec.structs.replace(self.manifest, goldens=goldens, text_goldens=text_goldens)
            note(", ".join(golden.picture.removeprefix("goldens/") for golden in goldens))
            if text_goldens:
                note(f"{len(text_goldens)} texts")

    def publish(self) -> float:
        """Write the remaining files, delete unpublished graphs, and read everything back; the lowest golden cosine."""
        kept = {precision: self._proven(precision) for precision in self._kept()}
        used = {name for variant in kept.values() for name in (variant.image, variant.text) if name is not None}
        for path in self.folder.glob("*.onnx*"):
            if not any(path.name == name or path.name.startswith(f"{name}.") for name in used):
                path.unlink()
        self.manifest = msgspec.structs.replace(self.manifest, precisions=kept)
        if self.checkpoint.card is not None:
            (self.folder / "README.md").write_bytes(self.checkpoint.card)
        for name, data in self.checkpoint.extras.items():
            (self.folder / name).write_bytes(data)
        page = render(
            self.manifest,
            {precision: self.images[precision] for precision in kept},
            self.pictures,
            texts={
                precision: self.left_out.get(precision, self.texts[precision])
                for precision in kept
                if precision in self.texts
            },
            decoding=self.decoded,
            colours=self.converted,
            shapes=self.shapes,
            without_text=self.checkpoint.without_text,
        )
        (self.folder / REPORT).write_text(page, "utf-8")
        self.manifest = msgspec.structs.replace(self.manifest, files=publish.digests(self.folder))
        publish.write_manifest(self.folder, self.manifest)
        return publish.read_back(self.folder, list(kept))

    def _kept(self) -> list[Precision]:
        """The precisions that were asked for; fp32 is always made, since the others are made from it."""
        return [precision for precision in self.manifest.precisions if precision in self.order.precisions]

    def _proven(self, precision: Precision) -> Variant:
        images, texts = self.images[precision], self.texts.get(precision, {})
        scaled = self.decoded[1].drift(batch_identical=True) if self.decoded is not None else None
        parity = {
            device: Parity(
                pixels_equal=self.pixels_equal,
                image=measured.drift,
                text=texts[device].drift if device in texts else None,
                scaled_decoding=scaled if device == "cpu" else None,
            )
            for device, measured in images.items()
        }
        return msgspec.structs.replace(self.manifest.precisions[precision], parity=parity)

    def _write(self, model: onnx.ModelProto, name: str) -> float:
        """Write a graph; how many megabytes it has."""
        return sum(file.stat().st_size for file in trace.write_graph(model, self.folder / name)) / 1e6

    def _load(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.folder / name)

    def _add(self, precision: Precision) -> None:
        variants = {**self.manifest.precisions, precision: publish.variant(precision, self.manifest.space.id)}
        self.manifest = msgspec.structs.replace(self.manifest, precisions=variants)

    def _alter(self, precision: Precision, **fields: object) -> None:
        altered = msgspec.structs.replace(self.manifest.precisions[precision], **fields)
        self.manifest = msgspec.structs.replace(
            self.manifest, precisions={**self.manifest.precisions, precision: altered}
        )

    def _measure_images(self, precision: Precision, expected: NDArray[np.float64]) -> dict[str, Measured]:
        measured = {}
        for device in devices(self.artifact, precision):
            with Encoder(self.artifact, precision, device) as encoder:
                measured[str(device)] = gate.measure_images(expected, encoder, self.pictures, watched)
        return measured

    def _measure_texts(self, precision: Precision, expected: NDArray[np.float64]) -> dict[str, Measured]:
        measured = {}
        for device in devices(self.artifact, precision):
            with TextEncoder(self.artifact, precision, device) as encoder:
                measured[str(device)] = gate.measure_texts(expected, encoder, self.words, self.tokens, watched)
        return measured


def _summary(measured: dict[str, Measured]) -> str:
    parts = []
    for device, one in measured.items():
        drift = one.drift
        same = "bit-identical in any batch" if drift.batch_identical else "NOT bit-identical in batches on this machine"
        parts.append(
            f"on {device}: lowest cosine {drift.min_cosine:.10f} to torch, centred {drift.min_centred_cosine:.6f}; "
            f"{drift.self_first} of {drift.count} find themselves first; {same}"
        )
    return "; ".join(parts)
