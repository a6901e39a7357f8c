"""The gate: real pictures through the checkpoint's own pipeline, and through the artifact as the server runs it.

A loose gate proves nothing: with bilinear instead of bicubic resizing the vectors still have a cosine of 0.9999 with
the right ones. So pixels must be equal to the last bit, and only then are vectors compared, at 0.999999.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.checkpoint import Checkpoint
from export.drift import compare
from export.errors import ExportRefused
from export.preprocessing import reference_pixels
from server.artifact import Parity, PreprocessingSpec
from server.encoder import Encoder
from server.errors import EncoderFailed
from server.media import decode, to_pixels

PICTURES = Path(__file__).parent / "pictures"
MIN_COSINE = 0.999999

# The gate's largest picture has 12 megapixels.
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class GatePicture:
    """One of the gate's pictures: its file, its bytes, and its pixels as the server makes them."""

    path: Path
    data: bytes
    pixels: NDArray[np.uint8]

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> Image.Image:
        """As the checkpoint's own users would: Pillow, and nothing of ours."""
        return Image.open(io.BytesIO(self.data))


def gate_pictures(spec: PreprocessingSpec, folder: Path = PICTURES) -> list[GatePicture]:
    """Every picture in the folder, through the server's own decoder. Raises ExportRefused when there is none."""
    pictures = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix != ".md":
            data = path.read_bytes()
            pictures.append(GatePicture(path, data, to_pixels(decode(data, max_pixels=_MAX_PIXELS).image, spec)))
    if not pictures:
        raise ExportRefused(f"There are no pictures in {folder} to prove the export with.")
    return pictures


def prove_pixels(processor: Any, pictures: Sequence[GatePicture]) -> int:
    """Compare pixels with those of a Hugging Face processor; the number that are equal, which is all of them.

    Raises ExportRefused with a table of those that differ.
    """
    drifted = []
    for picture in pictures:
        theirs = reference_pixels(processor, picture.open())
        if theirs.shape != picture.pixels.shape or theirs.dtype != np.uint8:
            drifted.append((picture.name, f"{theirs.dtype}{list(theirs.shape)}, not uint8{list(picture.pixels.shape)}"))
        elif not np.array_equal(theirs, picture.pixels):
            apart = np.abs(theirs.astype(np.int16) - picture.pixels)
            drifted.append((picture.name, f"{(apart > 0).mean():.2%} of samples differ, by up to {apart.max()} of 255"))
    _refuse_drift(drifted, len(pictures), "does not make the pixels that the checkpoint's own processor makes")
    return len(pictures)


def prove_vectors(reference: Checkpoint, encoder: Encoder, pictures: Sequence[GatePicture]) -> Parity:
    """Compare the encoder's vectors, alone and in a batch of all, with torch's, in float64.

    Raises ExportRefused with a table of the pictures whose cosine is below MIN_COSINE, and for a checkpoint whose own
    vectors are not finite.
    """
    references = [reference.reference_vector(picture.open()) for picture in pictures]
    # A vector of zeros has no direction: it is not finite once it has been divided by its length.
    if not all(np.isfinite(vector).all() for vector in references):
        raise ExportRefused(
            f"The weights of {reference.model} give vectors that are not finite, or have no length: nothing can be "
            "compared by them."
        )
    try:
        alone = encode_alone(encoder, pictures)
        together = encoder.encode(np.stack([picture.pixels for picture in pictures]))
    except EncoderFailed as exc:
        # The encoder's own sentence is a server's, for a caller; without a cause, a vector was not finite.
        if exc.__cause__ is None:
            raise ExportRefused(
                f"The weights of {reference.model} give vectors that are not finite in ONNX Runtime, where torch gives "
                "finite ones: they are too large or too small for float32."
            ) from exc
        raise ExportRefused(f"The graph does not run in ONNX Runtime: {exc.__cause__}") from exc
    drifted = []
    for at, (picture, expected) in enumerate(zip(pictures, references, strict=True)):
        both = [cosine(expected, alone[at]), cosine(expected, together[at])]
        # Written so that a cosine that is not a number is drift, too.
        if not min(both) >= MIN_COSINE:
            drifted.append((picture.name, f"cosine {both[0]:.8f} alone, {both[1]:.8f} in a batch"))
    _refuse_drift(drifted, len(pictures), f"does not give the checkpoint's vectors (at least {MIN_COSINE} is needed)")
    worst = [
        one if cosine(ref, one) <= cosine(ref, two) else two
        for ref, one, two in zip(references, alone, together, strict=True)
    ]
    return Parity(
        pixels_equal=len(pictures),
        image=compare(np.stack(references), np.stack(worst)).drift(
            batch_identical=batch_identical(encoder, pictures, alone)
        ),
    )


def encode_alone(encoder: Encoder, pictures: Sequence[GatePicture]) -> NDArray[np.float32]:
    """Each picture in a batch of its own: float32[pictures, D]."""
    return np.concatenate([encoder.encode(picture.pixels[None]) for picture in pictures])


def batch_identical(encoder: Encoder, pictures: Sequence[GatePicture], alone: NDArray[np.float32]) -> bool:
    """Whether every picture's vector is bit-identical alone, in pairs, in threes and among all, in another order."""
    pixels = np.stack([picture.pixels for picture in pictures])
    order = np.arange(len(pixels))[::-1]
    for batch in {2, 3, len(pixels)}:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            if not np.array_equal(encoder.encode(pixels[chosen]), alone[chosen]):
                return False
    return True


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """In float64, whatever the vectors are stored as."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _refuse_drift(drifted: list[tuple[str, str]], pictures: int, what: str) -> None:
    if drifted:
        width = max(len(name) for name, _ in drifted)
        table = "\n".join(f"  {name:<{width}}  {how}" for name, how in drifted)
        raise ExportRefused(f"The artifact {what}: {len(drifted)} of {pictures} pictures drifted.\n{table}")
