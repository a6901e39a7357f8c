"""The gate's second half: pixels → vector → the ten nearest, reference against each precision on each device.

The references are the checkpoint's own vectors, made once in torch. Every picture is judged by itself: a mean hides
the one picture in a hundred that a customer uploads.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportRefused
from export.proof.devices import devices as devices
from export.proof.drift import Compared, compare, nearest, unit
from export.proof.parity import MIN_COSINE, GatePicture
from server.artifact.artifact import MIN_COSINE_IN_SPACE, Drift, Precision, Tokens, Vectors
from server.errors import EncoderFailed

ELSEWHERE = 0.99999
"""The least cosine of fp32 on another device than the CPU, whose arithmetic need not be float32 throughout (CUDA
multiplies in TensorFloat-32): as much as the server asks of its goldens there at each start."""

BATCH = 8
"""Pictures or texts in one run: the gate's memory does not grow with their number."""

_SHOWN = 10
# A lower cosine is no drift: --allow-drift is not suggested.
_LEAST_ALLOWED = 0.01
# How many vectors are tried in pairs and in threes; in batches of BATCH all are.
_IN_SMALL_BATCHES = 12

Watch = Callable[[Sequence[Any], str], Iterable[Any]]
"""Yields the things it is given, one after the other, and may show progress under their name."""


def unwatched(things: Sequence[Any], what: str) -> Iterable[Any]:
    return things


class _ReadsPictures(Protocol):
    def encode(self, pixels: NDArray[np.uint8], /) -> Vectors: ...


class _ReadsTexts(Protocol):
    def encode(self, tokens: Tokens, /) -> Vectors: ...


class _ImageReference(Protocol):
    def reference_vector(self, picture: Any, /) -> NDArray[Any]: ...


class _TextReference(Protocol):
    def reference_vector(self, text: str, /) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The vectors that one precision gave the gate's pictures, or its texts, on one device."""

    names: Sequence[str]
    references: NDArray[np.float64]
    """[N, D], the checkpoint's own vectors"""
    found: NDArray[np.float32]
    """[N, D], alone or in a batch, whichever was farther from the reference"""
    batch_identical: bool
    compared: Compared = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compared", compare(self.references, self.found))

    @property
    def drift(self) -> Drift:
        """The manifest's figures."""
        return self.compared.drift(batch_identical=self.batch_identical)

    def worst(self, count: int) -> list[int]:
        """The places of the worst, the worst first: those that do not find themselves first, then by cosine."""
        cosines, ranks = self.compared.cosine, self.compared.rank
        # A cosine that is not a number counts as the worst.
        order = sorted(range(len(self.names)), key=lambda at: (-int(ranks[at]), _number(cosines[at]), self.names[at]))
        return order[:count]

    def neighbours(self, at: int, count: int) -> tuple[list[int], list[int]]:
        """The places of the nearest other references: to its own reference, and to the vector found."""
        one, other = unit(self.references[at : at + 1])[0], unit(self.found[at : at + 1])[0]
        among = unit(self.references)
        return nearest(among @ one, at)[:count], nearest(among @ other, at)[:count]


def _number(cosine: Any) -> float:
    return float(cosine) if math.isfinite(cosine) else -2.0


# --- the references --------------------------------------------------------------------------------------------------


def references(
    tower: _ImageReference, pictures: Sequence[GatePicture], model: str, watch: Watch = unwatched
) -> NDArray[np.float64]:
    """The checkpoint's own vectors of the pictures, float64[N, D]; of each picture `as_meant`.

    Raises ExportRefused for a checkpoint whose own vectors are not finite.
    """
    return _finite(
        [tower.reference_vector(picture.as_meant()) for picture in watch(pictures, "pictures in torch")], model
    )


def text_references(
    tower: _TextReference, texts: Sequence[str], model: str, watch: Watch = unwatched
) -> NDArray[np.float64]:
    """The checkpoint's own vectors of the texts, float64[N, D]. Raises ExportRefused as `references` does."""
    return _finite([tower.reference_vector(text) for text in watch(texts, "texts in torch")], model)


def _finite(vectors: Sequence[NDArray[Any]], model: str) -> NDArray[np.float64]:
    stacked = np.stack(vectors).astype(np.float64)
    # A vector of zeros has no direction: divided by its length it is not finite.
    if not np.isfinite(stacked).all() or not np.linalg.norm(stacked, axis=1).all():
        raise ExportRefused(
            f"The weights of {model} give vectors that are not finite, or have no length: nothing can be compared "
            "with them."
        )
    return stacked


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_images(
    expected: NDArray[np.float64] | None,
    encoder: _ReadsPictures,
    pictures: Sequence[GatePicture],
    watch: Watch = unwatched,
) -> Measured:
    """Compare the encoder's vectors, alone and in batches, with the references.

    Without references, its vectors in batches are compared with its own vectors alone. Raises ExportRefused where the
    encoder fails.
    """
    names = [picture.name for picture in pictures]
    pixels = [picture.pixels for picture in pictures]
    return _measure(expected, encoder.encode, names, pixels, [list(range(len(names)))], watch, "pictures")


def measure_texts(
    expected: NDArray[np.float64] | None,
    encoder: _ReadsTexts,
    texts: Sequence[str],
    tokens: Sequence[Tokens],
    watch: Watch = unwatched,
) -> Measured:
    """The same for texts, given with their tokens, int64[L] each; only those of one length share a batch."""
    lengths: dict[int, list[int]] = defaultdict(list)
    for at, row in enumerate(tokens):
        lengths[len(row)].append(at)
    # A text that has no other of its length shares a batch with itself.
    groups = [places if len(places) > 1 else places * 2 for _, places in sorted(lengths.items())]
    return _measure(expected, encoder.encode, list(texts), tokens, groups, watch, "texts")


def _measure(
    given: NDArray[np.float64] | None,
    encode: Callable[[Any], Vectors],
    names: Sequence[str],
    inputs: Sequence[NDArray[Any]],
    groups: Sequence[Sequence[int]],
    watch: Watch,
    what: str,
) -> Measured:
    alone = np.concatenate([_run(encode, inputs[at][None]) for at in watch(range(len(names)), f"{what} alone")])
    expected = alone.astype(np.float64) if given is None else given
    worst = alone.copy()
    own = compare(expected, alone).cosine
    identical = True
    for chosen in watch(_batches(groups), f"{what} in batches"):
        together = _run(encode, np.stack([inputs[at] for at in chosen]))
        identical = identical and np.array_equal(together, alone[chosen])
        for at, vector in zip(chosen, together, strict=True):
            cosine = float(unit(expected[at : at + 1])[0] @ unit(vector[None])[0])
            if not cosine >= own[at]:
                own[at], worst[at] = cosine, vector
    return Measured(names, expected, worst, identical)


def _batches(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Batches of BATCH with all of them, in reverse order; and some in pairs and in threes."""
    batches: list[list[int]] = []
    for group in groups:
        turned = list(group)[::-1]
        few = turned[:: max(1, len(turned) // _IN_SMALL_BATCHES)][:_IN_SMALL_BATCHES]
        for size, places in ((BATCH, turned), (2, few), (3, few)):
            # Evenly, so that the last batch does not hold a single one.
            batches += [part.tolist() for part in np.array_split(places, math.ceil(len(places) / size))]
    return [list(batch) for batch in dict.fromkeys(map(tuple, batches)) if len(batch) > 1]


def _run(encode: Callable[[Any], Vectors], batch: NDArray[Any]) -> Vectors:
    try:
        return encode(batch)
    except EncoderFailed as exc:
        # The encoder's own sentence is meant for callers of a server. Without a cause, a vector was not finite.
        if exc.__cause__ is None:
            raise ExportRefused(
                "The graph gives vectors that are not finite in ONNX Runtime, where torch gives finite ones: the "
                "weights are too large or too small for its precision."
            ) from exc
        raise ExportRefused(f"The graph does not run in ONNX Runtime: {exc.__cause__}") from exc


# --- judging ---------------------------------------------------------------------------------------------------------


def asked(precision: str, device: str) -> float:
    """The least cosine of each picture and of each text."""
    if precision != "fp32":
        return MIN_COSINE_IN_SPACE
    return MIN_COSINE if device == "cpu" else ELSEWHERE


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether, and in which space, a precision's image tower may be published."""

    precision: Precision
    shares_space: bool
    """Whether its vectors may be compared with those of fp32; otherwise it needs a space of its own (`own_space`)."""
    min_cosine: float
    """The least cosine asked of each picture: the manifest's `Variant.min_cosine`."""
    sentence: str


def judge(precision: Precision, measured: Mapping[str, Measured], allow_drift: float | None = None) -> Verdict:
    """Judge a precision by its figures on each device. `allow_drift` is the least cosine that the user accepts.

    fp32 makes the space: on the CPU it must reach MIN_COSINE, and no drift of it is allowed. Another precision shares
    the space where every picture reaches MIN_COSINE_IN_SPACE and finds its own reference first. Raises ExportRefused
    with a table of the worst pictures.
    """
    least = asked(precision, "cpu")
    failed = {device: _failed(one, asked(precision, device)) for device, one in measured.items()}
    lowest = min(float(one.compared.cosine.min()) for one in measured.values())
    if not any(failed.values()):
        return Verdict(precision, True, least, f"{precision} shares the space: every cosine is at least {least}")
    if precision != "fp32" and allow_drift is not None and lowest >= allow_drift:
        return Verdict(
            precision,
            False,
            allow_drift,
            f"{precision} drifts (lowest cosine {lowest:.6f}) and was accepted with --allow-drift {allow_drift}: it "
            "has a space of its own, and its vectors are never compared with those of fp32",
        )
    raise ExportRefused(_refusal(precision, measured, failed, allow_drift, lowest))


def _failed(measured: Measured, least: float) -> list[int]:
    """The places of the pictures that are too far from their own reference, or nearer to another one."""
    compared = measured.compared
    # Written so that a cosine that is not a number counts as drift.
    bad = {at for at in range(len(measured.names)) if not compared.cosine[at] >= least or compared.rank[at]}
    return [at for at in measured.worst(len(measured.names)) if at in bad]


def _refusal(
    precision: str,
    measured: Mapping[str, Measured],
    failed: Mapping[str, Sequence[int]],
    allow_drift: float | None,
    lowest: float,
) -> str:
    parts = []
    for device, places in failed.items():
        if not places:
            continue
        one, least = measured[device], asked(precision, device)
        low = sum(not one.compared.cosine[at] >= least for at in places)
        lost = sum(bool(one.compared.rank[at]) for at in places)
        parts.append(
            f"The {precision} graph does not give the checkpoint's vectors on {device}: {len(places)} of "
            f"{len(one.names)} pictures drifted ({low} with a cosine below {least}, {lost} that do not find themselves "
            "first).\n" + table(one, places)
        )
    if precision == "fp32":
        parts.append("Nothing was published: all else is measured against fp32, so no drift of it can be accepted.")
    elif not lowest >= _LEAST_ALLOWED:
        parts.append(
            "Nothing was published: such vectors are unrelated to the checkpoint's. No --allow-drift accepts them."
        )
    elif allow_drift is None:
        parts.append(
            f"Nothing was published. Leave out --precision {precision}; or accept the drift with --allow-drift "
            f"{_below(lowest)}, which gives {precision} a space of its own: a catalogue must then be embedded with it "
            "from the start."
        )
    else:
        parts.append(f"Nothing was published: --allow-drift {allow_drift} is above the lowest cosine, {lowest:.6f}.")
    return "\n".join(parts)


def table(measured: Measured, places: Sequence[int]) -> str:
    """At most ten lines: name, cosine, centred cosine, and how many others are nearer."""
    shown = places[:_SHOWN]
    names = [_short(measured.names[at]) for at in shown]
    width = max(len("picture"), *map(len, names)) if names else 0
    compared = measured.compared
    lines = [f"  {'':<{width}}      cosine   centred  others nearer"]
    lines += [
        f"  {name:<{width}}  {compared.cosine[at]:>10.8f}  {compared.centred[at]:+.5f}  {compared.rank[at]:>13}"
        for name, at in zip(names, shown, strict=True)
    ]
    if len(places) > _SHOWN:
        lines.append(f"  and {len(places) - _SHOWN} more")
    return "\n".join(lines)


def _short(name: str) -> str:
    """A name cut to 40 characters, without the control characters that a text can send to a terminal."""
    plain = "".join(char if char.isprintable() else "·" for char in name)
    return plain if len(plain) <= 40 else f"{plain[:39]}…"


def _below(cosine: float) -> float:
    """The --allow-drift to suggest: the cosine, cut to two decimals (three where it is near 1)."""
    places = 1000 if cosine >= 0.99 else 100
    return math.floor(cosine * places) / places


@dataclass(frozen=True, slots=True)
class TextVerdict:
    """Whether a precision keeps a text graph of its own, or texts go through that of fp32."""

    own: bool
    sentence: str


def judge_texts(precision: Precision, measured: Mapping[str, Measured]) -> TextVerdict:
    """Judge a precision's text tower by its figures on each device.

    The least cosine is that of pictures. But no catalogue holds vectors of texts, so a text graph that falls short
    is left out with a notice, and needs no --allow-drift. Raises ExportRefused for fp32 only.
    """
    low = {
        device: [at for at in one.worst(len(one.names)) if not one.compared.cosine[at] >= asked(precision, device)]
        for device, one in measured.items()
    }
    lowest = min(float(one.compared.cosine.min()) for one in measured.values())
    if not any(low.values()):
        least = asked(precision, "cpu")
        return TextVerdict(True, f"{precision} has a text graph of its own: every cosine is at least {least}")
    device, places = next((device, places) for device, places in low.items() if places)
    least = asked(precision, device)
    count = len(measured[device].names)
    if precision == "fp32":
        raise ExportRefused(
            f"The text graph does not give the checkpoint's vectors on {device} (at least {least} is needed): "
            f"{len(places)} of {count} texts drifted.\n{table(measured[device], places)}"
        )
    return TextVerdict(
        False,
        f"{precision} has no text graph of its own and uses that of fp32: {len(places)} of {count} texts "
        f"drifted below {least} on {device} (lowest cosine {lowest:.6f})",
    )


def own_space(base: str, precision: Precision, graph_sha256: Sequence[str]) -> str:
    """The id of the space of a precision that drifted: a digest of the base space, the precision and the graph's bytes.

    `graph_sha256`: the digests of the graph's files, in the order of their names; a graph over 2 GB has two.
    """
    digest = hashlib.sha256(b"twinlens drifted space 1\n")
    digest.update(f"{base} {precision}\n".encode())
    for one in graph_sha256:
        digest.update(f"{one}\n".encode())
    return digest.hexdigest()
