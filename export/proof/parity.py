"""The gate's pictures, and its first half: bytes → pixels, as the checkpoint's own processor makes them.

A loose gate proves nothing: with bilinear instead of bicubic resizing, vectors still have a cosine of 0.9999 to the
right ones. So pixels must be equal to the last bit; only then are vectors compared (see gate.py), at 0.999999.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.checkpoints.preprocessing import reference_pixels
from export.errors import ExportRefused
from server.artifact.artifact import PreprocessingSpec
from server.errors import MediaRejected
from server.preprocessing.formats import sniff
from server.preprocessing.media import decode, to_pixels
from server.settings import MAX_PIXELS

PICTURES = Path(__file__).parent.parent / "pictures"
MIN_COSINE = 0.999999
"""The least cosine of fp32 on the CPU to torch, for every picture and text."""

MOST_CALIBRATION = 500
"""At most so many of the user's own pictures are used: more would prove little more, and each is run several times."""

_ORIENTATION_TAG = 0x0112

# A file with such a name must be a picture. HEIC is here so that it is refused by name, and not ignored.
_PICTURE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jpe .jpeg .jpg .mpo .png .tif .tiff .webp".split()  # noqa: SIM905 - as read
)


@dataclass(frozen=True, slots=True)
class GatePicture:
    """One of the gate's pictures: its file, its bytes, and its pixels as the server makes them, decoded in full.

    Its profile is ignored and its transparency laid on white, whatever the spec says: the checkpoint's own processor
    knows no more of either. What the spec's choices do to colours and on transparency is measured in colours.py.
    """

    path: Path
    data: bytes
    pixels: NDArray[np.uint8]
    alike: bool = True
    """Whether the checkpoint's own pipeline reads the same picture from these bytes. It drops alpha, clips samples of
    more than 8 bits and ignores the orientation; ours lays it on white, scales its samples and turns it upright."""
    below: Path | None = None
    """The folder given as --calibration, where the picture is the user's own."""

    @property
    def name(self) -> str:
        """Its file name; one of the user's own also has the folders below the one given."""
        return self.path.name if self.below is None else f"calibration/{self.path.relative_to(self.below).as_posix()}"

    def open(self) -> Image.Image:
        """The picture as users of the checkpoint open it: with Pillow alone."""
        return Image.open(io.BytesIO(self.data))

    def as_meant(self) -> Image.Image:
        """The input of the checkpoint's pipeline: the file itself, or our picture of it, upright and opaque."""
        return self.open() if self.alike else decode(self.data, max_pixels=MAX_PIXELS).as_stored().image


def gate_pictures(spec: PreprocessingSpec, folder: Path | None = None) -> list[GatePicture]:
    """Every bundled picture, decoded by the server's own decoder. Raises ExportRefused when there is none."""
    folder = folder or PICTURES
    paths = [path for path in sorted(folder.iterdir()) if path.suffix != ".md"] if folder.is_dir() else []
    pictures = [_read(path, path.read_bytes(), spec) for path in paths]
    if not pictures:
        raise ExportRefused(f"There are no pictures in {folder} to prove the export with.")
    return pictures


def calibration_pictures(spec: PreprocessingSpec, folder: Path) -> list[GatePicture]:
    """The user's own pictures in a folder and in those below it, for the gate, beside the bundled ones; by name.

    One is enough. Of more than MOST_CALIBRATION pictures so many are used, evenly spread. A file that does not look
    like a picture, by its name or by its first bytes, is ignored.

    Raises ExportRefused for a folder that is missing or holds no picture, and for a picture that cannot be read.
    """
    if not folder.is_dir():
        raise ExportRefused(f"There is no folder {folder} with pictures for --calibration.")
    found = [path for path in sorted(folder.rglob("*")) if _is_picture(path, folder)]
    if not found:
        raise ExportRefused(f"There is no picture in {folder} nor in the folders below it; --calibration needs one.")
    step = max(1.0, len(found) / MOST_CALIBRATION)
    chosen = [found[int(at * step)] for at in range(min(len(found), MOST_CALIBRATION))]
    pictures = []
    for path in chosen:
        try:
            pictures.append(_read(path, path.read_bytes(), spec, below=folder))
        except MediaRejected as exc:
            raise ExportRefused(
                f"{path} cannot be used as one of the pictures of --calibration: {exc.sentence} "
                "Remove it from the folder, or repair it."
            ) from exc
    return pictures


def _is_picture(path: Path, folder: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
        return False
    if path.suffix.lower() in _PICTURE_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(64)
    try:
        sniff(head)
    except MediaRejected:
        return False
    return True


def _read(path: Path, data: bytes, spec: PreprocessingSpec, below: Path | None = None) -> GatePicture:
    """Raises MediaRejected or one of its subclasses."""
    pixels = to_pixels(decode(data, max_pixels=MAX_PIXELS), as_the_checkpoint(spec))
    return GatePicture(path, data, pixels, alike=_is_alike(data), below=below)


def as_the_checkpoint(spec: PreprocessingSpec) -> PreprocessingSpec:
    """The spec without the choices of ours that no processor knows."""
    return msgspec.structs.replace(spec, icc="ignored", alpha="white")


def _is_alike(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        try:
            upright = image.getexif().get(_ORIENTATION_TAG, 1) not in range(2, 9)
        except Exception:  # both pipelines ignore damaged EXIF
            upright = True
        return upright and not image.has_transparency_data and not image.mode.startswith(("I", "F"))


def prove_pixels(processor: Any, pictures: Sequence[GatePicture]) -> int:
    """Compare pixels with those that a Hugging Face processor makes of the same files, to the last bit.

    Returns how many are equal. A picture that the processor reads differently (`alike` is False) is compared too, once
    it is upright and opaque, but does not count. Raises ExportRefused with a table of those that differ.
    """
    drifted = []
    for picture in pictures:
        theirs = reference_pixels(processor, picture.as_meant())
        if theirs.shape != picture.pixels.shape or theirs.dtype != np.uint8:
            drifted.append((picture.name, f"{theirs.dtype}{list(theirs.shape)}, not uint8{list(picture.pixels.shape)}"))
        elif not np.array_equal(theirs, picture.pixels):
            apart = np.abs(theirs.astype(np.int16) - picture.pixels)
            drifted.append((picture.name, f"{(apart > 0).mean():.2%} of samples differ, by up to {apart.max()} of 255"))
    _refuse_drift(drifted, len(pictures), "does not make the pixels that the checkpoint's own processor makes")
    return sum(picture.alike for picture in pictures)


def _refuse_drift(drifted: list[tuple[str, str]], pictures: int, what: str) -> None:
    if drifted:
        width = max(len(name) for name, _ in drifted)
        table = "\n".join(f"  {name:<{width}}  {how}" for name, how in drifted)
        raise ExportRefused(f"The artifact {what}: {len(drifted)} of {pictures} pictures drifted.\n{table}")
