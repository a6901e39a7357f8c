"""What transparency is laid on: white, and a dark grey where what is visible would drown in white."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from server.preprocessing import ground, media
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support.pictures import in_format
from tests.support.stand_ins import SPEC

CONTRAST = msgspec.structs.replace(SPEC, alpha="contrast")
CLEAR = (0, 0, 0, 0)
DARK = (48, 48, 48)


@pytest.fixture(scope="module")
def starter_encoder() -> Iterator[Encoder]:
    with Encoder(Artifact.read(STARTER), "fp32", "cpu") as encoder:
        yield encoder


def shape(colour: tuple[int, ...], size: int = 120) -> Image.Image:
    """A disc on transparency."""
    image = Image.new("RGBA", (size, size), CLEAR)
    ImageDraw.Draw(image).ellipse((size // 6, size // 6, size * 5 // 6, size * 5 // 6), fill=colour)
    return image


def encoded(files: list[bytes], encoder: Encoder) -> NDArray[np.float64]:
    spec = encoder.artifact.spec
    pixels = np.stack([media.read_pixels(one, spec, max_pixels=10**7) for one in files])
    return encoder.encode(pixels).astype(np.float64)


def corner(data: bytes, alpha: ground.Alpha = "contrast") -> tuple[int, ...]:
    """The upper left pixel, which is transparent in every picture here."""
    image = media.decode(data, max_pixels=10**7, alpha=alpha).image
    return image.getpixel((0, 0))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "colour",
    [(255, 255, 255), (250, 250, 250), (238, 238, 238), (255, 250, 235), (255, 255, 200), (255, 255, 255, 90)],
)
def test_what_would_drown_in_white_is_laid_on_a_dark_grey(colour: tuple[int, ...]) -> None:
    data = in_format(shape(colour), "PNG")
    assert corner(data) == DARK
    assert corner(data, "white") == (255, 255, 255)


@pytest.mark.parametrize(
    "colour",
    [(0, 0, 0), (128, 128, 128), (232, 232, 232), (229, 231, 235), (255, 220, 225), (255, 255, 0), (173, 216, 230)],
)
def test_what_can_be_seen_on_white_stays_on_white_to_the_last_bit(colour: tuple[int, ...]) -> None:
    data = in_format(shape(colour), "PNG")
    one, other = (media.read_pixels(data, spec, max_pixels=10**7) for spec in (SPEC, CONTRAST))
    np.testing.assert_array_equal(one, other)
    assert corner(data) == (255, 255, 255)


def test_the_ground_is_seen_through_what_is_half_transparent() -> None:
    data = in_format(Image.new("RGBA", (8, 8), (255, 255, 255, 51)), "PNG")
    image = media.decode(data, max_pixels=100, alpha="contrast").image
    # A fifth of white, four of 48: 89.4.
    assert image.getpixel((4, 4)) == (89,) * 3


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 30}),
        ("AVIF", {"quality": 30}),
        ("TIFF", {}),
    ],
    ids=["png", "webp-lossless", "webp-lossy", "avif-lossy", "tiff"],
)
def test_a_copy_gets_the_ground_of_its_original_in_any_format_and_size(form: str, options: dict[str, int]) -> None:
    for colour, level in (((250, 250, 250), 48), ((255, 252, 230), 48), ((228, 228, 228), 255), ((10, 90, 200), 255)):
        for size in (60, 120, 400):
            # A lossy format's alpha is not quite 0 where nothing is.
            assert corner(in_format(shape(colour, size), form, **options)) == pytest.approx((level,) * 3, abs=8)


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA", "1 with a colour key"])
def test_every_kind_of_transparency_has_its_ground(mode: str) -> None:
    image = shape((255, 255, 255))
    if mode == "P":
        flat = Image.new("P", image.size, 0)
        flat.putpalette([9, 9, 9, 255, 255, 255])
        flat.paste(1, mask=image.getchannel("A").point(lambda value: 255 * (value > 127)))
        data = in_format(flat, "PNG", transparency=0)
    elif mode.startswith("1"):
        grey = Image.new("L", image.size, 9)
        grey.paste(255, mask=image.getchannel("A").point(lambda value: 255 * (value > 127)))
        data = in_format(grey, "PNG", transparency=9)
    else:
        data = in_format(image.convert(mode), "PNG")
    picture = media.decode(data, max_pixels=10**7, alpha="contrast").image
    assert picture.getpixel((0, 0)) == DARK
    assert picture.getpixel((60, 60)) == (255, 255, 255)


def word(text: str, colour: tuple[int, ...], top: int = 100, size: int = 240) -> Image.Image:
    """Smooth lettering on transparency; its colour is the same under all of it."""
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).text((20, top), text, font=ImageFont.load_default(48), fill=255)
    image = Image.new("RGBA", (size, size), (*colour, 255))
    image.putalpha(mask)
    return image


def lamp(end: tuple[int, int]) -> Image.Image:
    """A white disc with a black cord."""
    image = Image.new("RGBA", (240, 240), CLEAR)
    on = ImageDraw.Draw(image)
    on.ellipse((40, 10, 200, 150), fill=(255, 255, 255))
    on.line((120, 150, *end), fill=(0, 0, 0), width=6)
    return image


def names_beside_an_icon(colour: tuple[int, int, int], radius: int) -> list[Image.Image]:
    names = []
    for name in ("Aurora", "Kaspar", "Lumina", "Zephyr"):
        image = word(name, (255, 255, 255))
        ImageDraw.Draw(image).ellipse((120 - radius, 20, 120 + radius, 20 + 2 * radius), fill=colour)
        names.append(image)
    return names


PARTLY_WHITE = {
    "names beside a blue icon": names_beside_an_icon((20, 90, 200), 20),
    "names beside a large red icon": names_beside_an_icon((220, 30, 40), 28),
    "names beside an orange dot": names_beside_an_icon((240, 140, 0), 8),
    "names above a black word": [
        Image.alpha_composite(word(name, (255, 255, 255), 60), word("& Sons", (0, 0, 0), 130))
        for name in ("Aurora", "Kaspar", "Lumina", "Zephyr")
    ],
    "discs with a cord": [lamp(end) for end in ((120, 235), (30, 235), (210, 235))],
}


@pytest.mark.parametrize("kind", PARTLY_WHITE)
def test_things_with_white_and_other_parts_find_themselves_and_are_not_one_picture(
    kind: str, starter_encoder: Encoder
) -> None:
    spec = starter_encoder.artifact.spec
    images = PARTLY_WHITE[kind]
    stored = encoded([in_format(image, "PNG") for image in images], starter_encoder)
    copies = encoded([in_format(image, "WEBP", lossless=True) for image in images], starter_encoder)
    assert spec.alpha == "contrast"
    cosines = copies @ stored.T
    assert (np.diag(cosines) == cosines.max(axis=1)).all()
    assert np.diag(cosines).min() > 0.9999
    assert cosines[~np.eye(len(images), dtype=bool)].max() < 0.99


@pytest.mark.parametrize("level", [210, 220, 226, 240, 245, 255])
@pytest.mark.parametrize("times", [0.5, 0.7, 2])
@pytest.mark.parametrize("filtered", [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC])
def test_lettering_of_one_grey_keeps_its_ground_in_another_size(
    level: int, times: float, filtered: Image.Resampling
) -> None:
    """Filters overshoot at the edges of strokes, and make them lighter."""
    original = word("Aurora", (level,) * 3)
    size = round(original.width * times)
    copy = original.resize((size, size), filtered)
    assert corner(in_format(copy, "PNG")) == corner(in_format(original, "PNG")) == ((48 if level > 236 else 255),) * 3


@pytest.mark.parametrize("alpha", [1, 5, 15])
def test_what_is_faint_throughout_is_weighed_as_it_is(alpha: int) -> None:
    """A watermark of 5 % of white."""
    image = word("Aurora", (255, 255, 255))
    image.putalpha(image.getchannel("A").point(lambda value: value * alpha // 255))
    assert ground.level(image, "contrast") == 48
    dark = word("Aurora", (90, 90, 90))
    dark.putalpha(image.getchannel("A"))
    assert ground.level(dark, "contrast") == 255


def test_a_fifth_of_white_is_enough() -> None:
    image = Image.new("RGBA", (100, 100), (30, 60, 90, 255))
    image.paste((255, 255, 255, 255), (0, 0, 100, 20))
    assert ground.level(image, "contrast") == 255
    image.paste((255, 255, 255, 255), (0, 0, 100, 21))
    assert ground.level(image, "contrast") == 48


def test_a_shadow_that_nearly_cannot_be_seen_weighs_next_to_nothing() -> None:
    image = Image.new("RGBA", (120, 120), (0, 0, 0, 12))
    image.alpha_composite(shape((255, 255, 255)))
    assert ground.level(image, "contrast") == 48


def test_a_picture_that_is_transparent_throughout_is_white_and_an_opaque_one_as_it_is() -> None:
    assert corner(in_format(Image.new("RGBA", (20, 20), CLEAR), "PNG")) == (255, 255, 255)
    assert corner(in_format(Image.new("RGBA", (20, 20), (254, 254, 254, 255)), "PNG")) == (254, 254, 254)


def test_a_large_picture_is_weighed_in_strips_as_a_whole_one() -> None:
    image = Image.new("RGBA", (1500, 1500), CLEAR)
    image.paste((0, 0, 0, 255), (0, 0, 1500, 1190))
    image.paste((255, 255, 255, 255), (0, 1190, 1500, 1500))
    # 310 of 1500 rows are white: 20.7 %; 290 are 19.3 %.
    assert ground.level(image, "contrast") == 48
    image.paste((0, 0, 0, 255), (0, 1190, 1500, 1210))
    assert ground.level(image, "contrast") == 255


def test_pixels_are_not_made_of_a_picture_that_was_laid_on_another_ground_than_the_specs() -> None:
    picture = media.decode(in_format(shape((255, 255, 255)), "PNG"), max_pixels=10**7)
    with pytest.raises(ValueError, match="alpha=white, for a spec that says contrast"):
        media.to_pixels(picture, CONTRAST)
    opaque = media.decode(in_format(Image.new("RGB", (9, 9)), "PNG"), max_pixels=10**7)
    assert media.to_pixels(opaque, CONTRAST).max() == 0


def test_a_thumbnail_shows_the_ground() -> None:
    picture = media.decode(in_format(shape((255, 255, 255)), "PNG"), max_pixels=10**7, alpha="contrast")
    small = np.asarray(Image.open(io.BytesIO(media.thumbnail(picture))))
    assert np.abs(small[0, 0].astype(int) - 48).max() < 10
    assert small[60, 60].min() > 245


@pytest.mark.parametrize("folder", [DEMO_PICTURES, ROOT / "export" / "pictures"], ids=["demo", "gate"])
def test_products_of_the_demo_catalogue_and_pictures_of_the_gate_keep_the_white_ground(folder: Path) -> None:
    seen = 0
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".webp", ".gif", ".avif"):
            picture = media.decode(path.read_bytes(), max_pixels=10**7, alpha="contrast")
            # The bottle's label and light are white, more than a third of it.
            assert picture.ground == (48 if path.name == "wine-bottle.png" else 255), path.name
            seen += picture.alpha is not None
    assert seen >= 5
