"""The starter finds a picture again by its colours, whatever space they are written in, and white things on nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from export.proof.parity import PICTURES
from export.proof.profiles import SPACES, in_space, rgb_profile
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from server.preprocessing.media import read_pixels
from tests import STARTER
from tests.support.pictures import in_format
from tests.support.profiles import press_profile, printed

SIDE = 240


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder(Artifact.read(STARTER), "fp32", "cpu") as encoder:
        yield encoder


def vectors(encoder: Encoder, files: list[bytes], icc: str = "srgb") -> NDArray[np.float64]:
    spec = msgspec.structs.replace(encoder.artifact.spec, icc=icc)
    pixels = np.stack([read_pixels(data, spec, max_pixels=10**8) for data in files])
    return encoder.encode(pixels).astype(np.float64)


def white_things() -> dict[str, Image.Image]:
    """Logos, lettering, outlines and thin lines: white on transparency."""
    things: dict[str, Image.Image] = {}
    for name in ("bar", "disc", "star", "ring", "frame", "line", "ACME", "Nova", "zen"):
        image = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
        on = ImageDraw.Draw(image)
        match name:
            case "bar":
                on.rectangle((20, 80, 220, 160), fill="white")
            case "disc":
                on.ellipse((30, 30, 210, 210), fill="white")
            case "star":
                on.regular_polygon((120, 120, 100), 3, fill="white")
            case "ring":
                on.ellipse((30, 30, 210, 210), outline="white", width=14)
            case "frame":
                on.rectangle((20, 50, 220, 190), outline="white", width=8)
            case "line":
                on.line((20, 220, 220, 20), fill="white", width=6)
            case _:
                on.text((15, 80), name, fill="white", font=ImageFont.load_default(76))
        things[name] = image
    return things


@pytest.mark.parametrize(
    ("form", "options"),
    [("WEBP", {"lossless": True}), ("WEBP", {"quality": 60}), ("AVIF", {"quality": 60}), ("TIFF", {})],
    ids=["webp-lossless", "webp-lossy", "avif-lossy", "tiff"],
)
def test_white_things_on_transparency_are_told_apart_and_found_again(
    encoder: Encoder, form: str, options: dict[str, int]
) -> None:
    things = list(white_things().values())
    stored = vectors(encoder, [in_format(image, "PNG") for image in things])
    asked = vectors(encoder, [in_format(image, form, **options) for image in things])
    cosines = asked @ stored.T
    own = np.diagonal(cosines).copy()
    np.fill_diagonal(cosines, -1)
    assert (own > cosines.max(axis=1)).all()
    assert own.min() >= (0.9 if "quality" in options else 0.9999)
    assert cosines.max() < 0.97


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB (1998)", "ProPhoto RGB"])
def test_a_vivid_thing_in_a_wide_space_is_found_before_its_paler_variants(encoder: Encoder, space: str) -> None:
    profile = rgb_profile(space, SPACES[space])
    with Image.open(PICTURES / "dahlia.webp") as image:
        vivid = image.convert("RGB")
    variants = [ImageEnhance.Color(vivid).enhance(part) for part in (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)]
    stored = vectors(encoder, [in_format(one, "PNG") for one in variants])
    query = in_format(in_space(vivid, profile), "PNG", icc_profile=profile)
    assert (stored @ vectors(encoder, [query])[0]).argmax() == 0
    # Its numbers alone are those of a paler thing.
    assert (stored @ vectors(encoder, [query], icc="ignored")[0]).argmax() > 0


def test_what_a_press_prints_is_found_by_the_profile_of_the_press(encoder: Encoder) -> None:
    inks = []
    for name in ("dahlia.webp", "hammer.jpg", "two-dogs.jpg"):
        with Image.open(PICTURES / name) as image:
            inks.append(np.asarray(image.convert("RGB").resize((224, 224)).convert("CMYK")) // 2)
    proofs = vectors(encoder, [in_format(Image.fromarray(printed(one)), "PNG") for one in inks])
    files = [in_format(Image.fromarray(one, "CMYK"), "TIFF", icc_profile=press_profile()) for one in inks]
    managed, unmanaged = (np.diagonal(vectors(encoder, files, icc) @ proofs.T) for icc in ("srgb", "ignored"))
    assert managed.min() >= 0.999
    assert (unmanaged < managed).all()
