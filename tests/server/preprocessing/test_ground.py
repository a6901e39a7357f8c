"""What transparency is laid on: white, and black where what is visible would drown in white."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from server.preprocessing import ground, media
from tests import DEMO_PICTURES, ROOT
from tests.support.pictures import in_format
from tests.support.stand_ins import SPEC

CONTRAST = msgspec.structs.replace(SPEC, alpha="contrast")
CLEAR = (0, 0, 0, 0)


def shape(colour: tuple[int, ...], size: int = 120) -> Image.Image:
    """A disc on transparency."""
    image = Image.new("RGBA", (size, size), CLEAR)
    ImageDraw.Draw(image).ellipse((size // 6, size // 6, size * 5 // 6, size * 5 // 6), fill=colour)
    return image


def corner(data: bytes, alpha: ground.Alpha = "contrast") -> tuple[int, ...]:
    """The upper left pixel, which is transparent in every picture here."""
    image = media.decode(data, max_pixels=10**7, alpha=alpha).image
    return image.getpixel((0, 0))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (250, 250, 250), (255, 250, 235), (255, 255, 200), (255, 255, 255, 90)]
)
def test_what_would_drown_in_white_is_laid_on_black(colour: tuple[int, ...]) -> None:
    data = in_format(shape(colour), "PNG")
    assert corner(data) == (0, 0, 0)
    assert corner(data, "white") == (255, 255, 255)


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (128, 128, 128), (225, 225, 225), (255, 220, 225), (255, 255, 0), (173, 216, 230)]
)
def test_what_can_be_seen_on_white_stays_on_white_to_the_last_bit(colour: tuple[int, ...]) -> None:
    data = in_format(shape(colour), "PNG")
    one, other = (media.read_pixels(data, spec, max_pixels=10**7) for spec in (SPEC, CONTRAST))
    np.testing.assert_array_equal(one, other)
    assert corner(data) == (255, 255, 255)


def test_the_ground_is_seen_through_what_is_half_transparent() -> None:
    data = in_format(Image.new("RGBA", (8, 8), (255, 255, 255, 51)), "PNG")
    image = media.decode(data, max_pixels=100, alpha="contrast").image
    assert image.getpixel((4, 4)) == (51, 51, 51)


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
    for colour, level in (((250, 250, 250), 0), ((255, 252, 230), 0), ((228, 228, 228), 255), ((10, 90, 200), 255)):
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
    assert picture.getpixel((0, 0)) == (0, 0, 0)
    assert picture.getpixel((60, 60)) == (255, 255, 255)


def test_white_with_a_dark_outline_stays_on_white() -> None:
    image = shape((255, 255, 255))
    ImageDraw.Draw(image).ellipse((20, 20, 100, 100), outline=(20, 20, 20), width=3)
    assert corner(in_format(image, "PNG")) == (255, 255, 255)


def test_a_shadow_that_nearly_cannot_be_seen_weighs_next_to_nothing() -> None:
    image = Image.new("RGBA", (120, 120), (0, 0, 0, 12))
    image.alpha_composite(shape((255, 255, 255)))
    assert ground.level(image, "contrast") == 0


def test_a_picture_that_is_transparent_throughout_is_white_and_an_opaque_one_as_it_is() -> None:
    assert corner(in_format(Image.new("RGBA", (20, 20), CLEAR), "PNG")) == (255, 255, 255)
    assert corner(in_format(Image.new("RGBA", (20, 20), (254, 254, 254, 255)), "PNG")) == (254, 254, 254)


def test_a_large_picture_is_weighed_in_strips_as_a_whole_one() -> None:
    image = Image.new("RGBA", (1500, 1500), CLEAR)
    image.paste((255, 255, 255, 255), (0, 0, 1500, 1400))
    image.paste((0, 0, 0, 255), (0, 1400, 1500, 1500))
    # 100 of 1500 rows are black: 17 of 255; 130 would be 22.
    assert ground.level(image, "contrast") == 0
    image.paste((0, 0, 0, 255), (0, 1370, 1500, 1500))
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
    assert small[0, 0].max() < 10
    assert small[60, 60].min() > 245


@pytest.mark.parametrize("folder", [DEMO_PICTURES, ROOT / "export" / "pictures"], ids=["demo", "gate"])
def test_no_product_of_the_demo_catalogue_and_no_picture_of_the_gate_leaves_the_white_ground(folder: Path) -> None:
    seen = 0
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".webp", ".gif", ".avif"):
            picture = media.decode(path.read_bytes(), max_pixels=10**7, alpha="contrast")
            assert picture.ground == 255, path.name
            seen += picture.alpha is not None
    assert seen >= 5
