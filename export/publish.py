"""Graph, manifest and goldens to a whole artifact, written, read back and run as the server will."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.checkpoint import Checkpoint
from export.errors import ExportRefused
from export.parity import MIN_COSINE, GatePicture
from export.trace import OPSET
from server.artifact import (
    FORMAT,
    SEAL,
    Artifact,
    File,
    Golden,
    Manifest,
    Precision,
    Space,
    Variant,
    seal,
    space_id,
)
from server.encoder import Encoder
from server.errors import ArtifactInvalid
from server.media import decode, to_pixels

GOLDENS = 4
MIN_GOLDEN_COSINE = 0.99999
"""fp32 on another processor, runtime or provider stays well above this; another resize filter does not."""

_MAX_PIXELS = 64_000_000
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_PACKAGES = ("numpy", "onnx", "optimum", "optimum-onnx", "pillow", "torch", "transformers")


def graph_name(precision: Precision) -> str:
    return f"image.{precision}.onnx"


def draft(checkpoint: Checkpoint, name: str, precision: Precision) -> Manifest:
    """The manifest before anything was measured: enough for the server's encoder to run the graph."""
    space = Space(space_id(checkpoint.tensors, checkpoint.spec), checkpoint.dimensions)
    return Manifest(
        format=FORMAT,
        name=name,
        model=checkpoint.model,
        source=checkpoint.source,
        architecture=checkpoint.architecture,
        space=space,
        preprocessing=checkpoint.spec,
        opset=OPSET,
        precisions={
            precision: Variant(
                image=graph_name(precision),
                space=space.id,
                min_cosine=MIN_COSINE,
                min_golden_cosine=MIN_GOLDEN_COSINE,
                parity={},
            )
        },
        goldens=[],
        versions=_versions(checkpoint.packages),
        files={},
    )


def _versions(more: Sequence[str]) -> dict[str, str]:
    # "2.13.0+cpu" and "2.13.0+cu130" are one version on two machines.
    versions = {package: version(package).partition("+")[0] for package in (*_PACKAGES, *more)}
    versions["onnxruntime"] = onnxruntime.__version__
    return dict(sorted(versions.items()))


def choose_goldens(pictures: Sequence[GatePicture]) -> list[GatePicture]:
    """The smallest files, among them one that is lossless and one JPEG; by name.

    Raises ExportRefused when the pictures hold neither.
    """
    by_size = sorted(pictures, key=lambda picture: (len(picture.data), picture.name))
    lossless = next((picture for picture in by_size if is_lossless(picture)), None)
    jpeg = next((picture for picture in by_size if picture.path.suffix in (".jpg", ".jpeg")), None)
    if lossless is None or jpeg is None:
        raise ExportRefused("The gate's pictures need a lossless one and a JPEG, to be an artifact's goldens.")
    chosen = {lossless.name: lossless, jpeg.name: jpeg}
    for picture in by_size:
        if len(chosen) < GOLDENS:
            chosen.setdefault(picture.name, picture)
    return [chosen[name] for name in sorted(chosen)]


def is_lossless(picture: GatePicture) -> bool:
    """Whether every decoder makes the same pixels of it; a WebP says so by the name of its first chunk."""
    return picture.path.suffix in _LOSSLESS or picture.data[12:16] == b"VP8L"


def write_goldens(
    folder: Path, pictures: Sequence[GatePicture], vectors: dict[str, NDArray[np.float32]], precision: Precision
) -> list[Golden]:
    """Write bytes, pixels and vectors; `vectors` has one float32[D] for each picture's name."""
    (folder / "goldens").mkdir()
    # Some of the gate's pictures ask for attribution, which goes wherever they go.
    notice = pictures[0].path.with_name("LICENCES.md")
    if notice.is_file():
        (folder / "goldens" / notice.name).write_bytes(notice.read_bytes())
    goldens = []
    for picture in pictures:
        base = f"goldens/{picture.path.stem}"
        golden = Golden(
            picture=f"goldens/{picture.name}",
            lossless=is_lossless(picture),
            pixels=f"{base}.pixels.npy",
            embeddings={precision: f"{base}.{precision}.npy"},
        )
        (folder / golden.picture).write_bytes(picture.data)
        (folder / golden.pixels).write_bytes(_npy(picture.pixels))
        (folder / golden.embeddings[precision]).write_bytes(_npy(vectors[picture.name]))
        goldens.append(golden)
    return goldens


def _npy(array: NDArray[Any]) -> bytes:
    # numpy writes to a file itself without saying why it could not; bytes leave the writing, and its errors, to Python.
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def digests(folder: Path) -> dict[str, File]:
    """Size and SHA-256 of every file below the folder, by its path in it; without the manifest and its seal."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in ("manifest.json", SEAL):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = File(path.stat().st_size, digest)
    return files


def write_manifest(folder: Path, manifest: Manifest) -> None:
    data = manifest.to_json()
    (folder / "manifest.json").write_bytes(data)
    (folder / SEAL).write_bytes(seal(data))


def read_back(folder: Path, precision: Precision) -> float:
    """Read, check and run the artifact as the server will at every start; the goldens' lowest cosine.

    Raises ExportRefused when the server would refuse it.
    """
    try:
        artifact = Artifact.read(folder)
        artifact.check_files()
        with Encoder(artifact, precision, "cpu") as encoder:
            return self_test(artifact, encoder)
    except ArtifactInvalid as exc:
        raise ExportRefused(f"The artifact was written but does not read back: {exc.sentence}") from exc


def self_test(artifact: Artifact, encoder: Encoder) -> float:
    """The goldens through the server's own decoder and encoder; their lowest cosine. Raises ArtifactInvalid."""

    def pixels(data: bytes) -> NDArray[np.uint8]:
        return to_pixels(decode(data, max_pixels=_MAX_PIXELS).image, artifact.spec)

    return artifact.self_test(encoder.precision, pixels, encoder.encode)
