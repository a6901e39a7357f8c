"""Graph, manifest and goldens to a complete artifact: written, read back and run as the server will."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Container, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.artifacts.verify import prove_goldens
from export.checkpoints.checkpoint import Checkpoint, TextTower
from export.errors import ExportRefused
from export.graphs.trace import OPSET
from export.proof.parity import MIN_COSINE, GatePicture
from export.proof.profiles import SPACES, rgb_profile
from server.artifact import artifact
from server.artifact.artifact import (
    FORMAT,
    MIN_COSINE_IN_SPACE,
    SEAL,
    Artifact,
    File,
    Golden,
    Manifest,
    Precision,
    Space,
    TextGolden,
    Tokens,
    Variant,
    seal,
    space_id,
    text_digest,
)
from server.errors import ArtifactInvalid
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.media import read_pixels
from server.settings import MAX_PIXELS

GOLDENS = ("astronaut.jpg", "bird-lamp.jpg", "brick-wall.jpg", "cat.png", "paintbrushes.webp")
"""Small files of formats that every Pillow reads: among them a lossless one, and a JPEG that is decoded at a scale for
towers of up to 300 pixels."""

_VIVID = "astronaut.jpg"
_WIDE = "Adobe RGB (1998)"

MIN_GOLDEN_COSINE: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.9995, "int8": 0.999}
"""The least cosine of a golden's vector to the one that the same graph gave it when it was exported.

fp32 on another processor, runtime or provider stays well above its bound; another resize filter does not. The sums of
int8 are exact, but a last bit that differs before a value is rounded can move that value by one. That bound equals
MIN_COSINE_IN_SPACE by chance: here a graph is compared with itself elsewhere, there with fp32.
"""

_LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_PACKAGES = ("numpy", "onnx", "optimum", "optimum-onnx", "pillow", "tokenizers", "torch", "transformers")


def graph_name(precision: Precision) -> str:
    return f"image.{precision}.onnx"


def text_name(precision: Precision) -> str:
    return f"text.{precision}.onnx"


def draft(checkpoint: Checkpoint, name: str) -> Manifest:
    """The manifest before anything is measured: enough for the server's encoder to run the graph in fp32."""
    image = checkpoint.image
    space = Space(space_id(image.tensors, image.spec), image.dimensions)
    return Manifest(
        format=FORMAT,
        name=name,
        model=checkpoint.model,
        source=checkpoint.source,
        architecture=image.architecture,
        space=space,
        preprocessing=image.spec,
        opset=OPSET,
        precisions={"fp32": variant("fp32", space.id)},
        goldens=[],
        versions=_versions(checkpoint.packages),
        files={},
    )


def variant(precision: Precision, space: str) -> Variant:
    """A precision before it is measured: its image graph, in that space."""
    return Variant(
        image=graph_name(precision),
        space=space,
        min_cosine=MIN_COSINE if precision == "fp32" else MIN_COSINE_IN_SPACE,
        min_golden_cosine=MIN_GOLDEN_COSINE[precision],
        parity={},
    )


def text_tower(tower: TextTower) -> artifact.TextTower:
    """The manifest's part about text."""
    return artifact.TextTower(
        architecture=tower.architecture,
        digest=text_digest(tower.tensors, tower.tokenizer_json),
        length=tower.length,
        padded=tower.padded,
    )


def _versions(more: Sequence[str]) -> dict[str, str]:
    # "2.13.0+cpu" and "2.13.0+cu130" are one version on two machines.
    versions = {package: version(package).partition("+")[0] for package in (*_PACKAGES, *more)}
    versions["onnxruntime"] = onnxruntime.__version__
    return dict(sorted(versions.items()))


def choose_goldens(pictures: Sequence[GatePicture], scaled: Container[str] = ()) -> list[GatePicture]:
    """GOLDENS, and one JPEG of `scaled`, the smallest, where GOLDENS hold none of them; by name.

    `scaled`: names of the JPEGs that the spec decodes at a scale. The user's own pictures are never chosen. Raises
    ExportRefused when the pictures hold none of GOLDENS.
    """
    bundled = sorted((one for one in pictures if one.below is None), key=lambda one: (len(one.data), one.name))
    chosen = {picture.name: picture for picture in bundled if picture.name in GOLDENS}
    if not chosen:
        raise ExportRefused(f"None of the pictures is one of an artifact's goldens: {', '.join(GOLDENS)}.")
    if not any(name in scaled for name in chosen):
        chosen.update([(picture.name, picture) for picture in bundled if picture.name in scaled][:1])
    return [chosen[name] for name in sorted(chosen)]


def with_profile(pictures: Sequence[GatePicture]) -> list[GatePicture]:
    """The goldens of a spec that converts colours: one of them has a profile, so that a start proves the conversion."""
    icc = rgb_profile(_WIDE, SPACES[_WIDE])
    body = b"ICC_PROFILE\0\x01\x01" + icc
    segment = b"\xff\xe2" + (2 + len(body)).to_bytes(2) + body
    return [replace(one, data=one.data[:2] + segment + one.data[2:]) if one.name == _VIVID else one for one in pictures]


def is_lossless(picture: GatePicture) -> bool:
    """Whether every decoder makes the same pixels; a lossless WebP is known by the name of its first chunk."""
    return picture.path.suffix in _LOSSLESS or picture.data[12:16] == b"VP8L"


def write_goldens(frozen: Artifact, pictures: Sequence[GatePicture], precisions: Sequence[Precision]) -> list[Golden]:
    """Write bytes, pixels as the spec makes them, and the vector that each precision gives them."""
    folder = frozen.folder
    (folder / "goldens").mkdir(exist_ok=True)
    # Licences of some of the gate's pictures ask for attribution wherever they are copied.
    notice = pictures[0].path.with_name("LICENCES.md")
    if notice.is_file():
        (folder / "goldens" / notice.name).write_bytes(notice.read_bytes())
    pixels = [read_pixels(picture.data, frozen.spec, max_pixels=MAX_PIXELS) for picture in pictures]
    goldens = []
    for picture, made in zip(pictures, pixels, strict=True):
        base = f"goldens/{picture.path.stem}"
        golden = Golden(
            picture=f"goldens/{picture.name}",
            lossless=is_lossless(picture),
            pixels=f"{base}.pixels.npy",
            embeddings={precision: f"{base}.{precision}.npy" for precision in precisions},
        )
        (folder / golden.picture).write_bytes(picture.data)
        (folder / golden.pixels).write_bytes(_npy(made))
        goldens.append(golden)
    for precision in precisions:
        with Encoder(frozen, precision, "cpu") as encoder:
            for golden, made in zip(goldens, pixels, strict=True):
                (folder / golden.embeddings[precision]).write_bytes(_npy(encoder.encode(made[None])[0]))
    return goldens


def choose_texts(texts: Sequence[str], tokens: Sequence[Tokens]) -> list[tuple[str, Tokens]]:
    """The golden texts: the first, the one with most tokens, the one with fewest, and one that is not ASCII."""
    both = list(zip(texts, tokens, strict=True))
    chosen = dict(
        [
            *both[:1],
            *sorted(both, key=lambda one: (-len(one[1]), one[0]))[:1],
            *sorted(both, key=lambda one: (len(one[1]), one[0]))[:1],
            *[one for one in both if not one[0].isascii()][:1],
        ]
    )
    return list(chosen.items())


def write_text_goldens(
    frozen: Artifact, texts: Sequence[tuple[str, Tokens]], precisions: Sequence[Precision]
) -> list[TextGolden]:
    """Write the vector that each precision gives the golden texts."""
    goldens = [
        TextGolden(
            text=text,
            tokens=tokens.tolist(),
            embeddings={precision: f"goldens/text-{number}.{precision}.npy" for precision in precisions},
        )
        for number, (text, tokens) in enumerate(texts, 1)
    ]
    for precision in precisions:
        with TextEncoder(frozen, precision, "cpu") as encoder:
            for golden, (_, tokens) in zip(goldens, texts, strict=True):
                (frozen.folder / golden.embeddings[precision]).write_bytes(_npy(encoder.encode(tokens[None])[0]))
    return goldens


def _npy(array: NDArray[Any]) -> bytes:
    # Where numpy cannot write a file itself, its error does not say why; Python's does.
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


def read_back(folder: Path, precisions: Sequence[Precision]) -> float:
    """Read, check and run the artifact as the server will at every start; the goldens' lowest cosine.

    Raises ExportRefused when the server would refuse it.
    """
    try:
        written = Artifact.read(folder)
        written.check_files()
        return min(prove_goldens(written, precision) for precision in precisions)
    except ArtifactInvalid as exc:
        raise ExportRefused(f"The artifact was written but does not read back: {exc.sentence}") from exc
