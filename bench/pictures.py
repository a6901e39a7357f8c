"""Pictures to send: the demo catalogue's, and photographs of the size that catalogues are full of."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "server" / "ingest" / "demo_catalogue"
PHOTOGRAPHS = ROOT / "export" / "pictures"

# The gate has drawings and small pictures as well; these are photographs, and the ones that earlier figures came from.
_SOURCES = (
    "astronaut.jpg",
    "brick-wall.jpg",
    "cat.png",
    "coffee-cup.png",
    "fig-in-bowl.jpg",
    "mountain-panorama.jpg",
    "paintbrushes.webp",
    "pavilion.jpg",
    "sunset.jpg",
    "two-dogs.jpg",
)

SIZE = (640, 480)
_QUALITY = 90
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's bytes, and the demo product that it must find first, if it is one."""

    name: str
    data: bytes
    product: str | None = None


def demo() -> list[Picture]:
    """The demo catalogue's pictures, read as the server's own listing names them."""
    listing = json.loads((DEMO / "catalogue.json").read_bytes())
    return [Picture(one["id"], (DEMO / one["picture"]).read_bytes(), one["id"]) for one in listing["products"]]


def folder(path: Path) -> list[Picture]:
    """The pictures of a folder, as they are. Raises ValueError when it has none."""
    pictures = [
        Picture(one.name, one.read_bytes())
        for one in sorted(path.iterdir())
        if one.is_file() and one.suffix.lower() in _SUFFIXES
    ]
    if not pictures:
        raise ValueError(f"there is no picture in {path}")
    return pictures


def photographs(count: int) -> list[Picture]:
    """So many distinct 640 x 480 JPEGs, cut at random from the gate's photographs; the same ones every time."""
    sources = []
    for path in (PHOTOGRAPHS / name for name in _SOURCES):
        with Image.open(path) as image:
            sources.append((path.stem, image.convert("RGB")))
    chance = np.random.default_rng(640480)
    pictures = []
    for number in range(count):
        name, source = sources[number % len(sources)]
        most = min(source.width / SIZE[0], source.height / SIZE[1])
        scale = most * chance.uniform(0.5, 1.0)
        width, height = int(scale * SIZE[0]), int(scale * SIZE[1])
        left = int(chance.integers(0, source.width - width + 1))
        top = int(chance.integers(0, source.height - height + 1))
        cut = source.resize(SIZE, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        out = io.BytesIO()
        cut.save(out, "JPEG", quality=_QUALITY)
        pictures.append(Picture(f"{name}-{number}.jpg", out.getvalue()))
    return pictures


def distinct(count: int) -> list[bytes]:
    """So many JPEGs of 640 x 480, no two of the same bytes, because a server embeds equal ones once.

    They are a few photographs with a number behind their end, which decoders ignore.
    """
    found = [one.data for one in photographs(min(count, 64))]
    return [found[number % len(found)] + number.to_bytes(4) for number in range(count)]


BOUNDARY = "twinlens-bench"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(data: bytes, fields: dict[str, str] | None = None) -> bytes:
    """A multipart body with a picture as `file`, encoded once so that sending it costs the load generator little."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in (fields or {}).items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n'
    return b"".join(
        [
            *parts,
            head.encode(),
            b"Content-Type: application/octet-stream\r\n\r\n",
            data,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
    )
