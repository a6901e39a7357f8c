"""How large a JPEG may be: what is decoded counts, where a decoder keeps no more than that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from server import errors
from server.preprocessing import media
from tests.support.jpegs import noise, pillow, tall
from tests.support.pictures import in_format

CORE: Any = Image.core  # type: ignore[attr-defined]  # Pillow's own count of its memory
MOST = 64_000_000


def test_a_phones_108_megapixels_are_decoded_at_their_scale_in_little_memory() -> None:
    strip = Image.fromarray(np.asarray(noise(750, 1).resize((12_000, 16), Image.Resampling.BICUBIC)))
    data = tall(strip, 563, 9000)
    CORE.reset_stats()
    CORE.clear_cache()
    picture = media.decode(data, max_pixels=MOST, jpeg_at_least=448)
    assert CORE.get_stats()["allocated_blocks"] <= 2
    assert (picture.width, picture.height, picture.scale) == (12_000, 9000, 8)
    assert picture.image.size == (1500, 1125)
    expected = np.asarray(strip.reduce(8), np.int16)
    assert np.abs(np.asarray(picture.image.crop((0, 1000, 1500, 1002)), np.int16) - expected).mean() < 4
    assert media.measure(data, max_pixels=MOST, jpeg_at_least=448) == (12_000, 9000)


def test_in_full_the_bound_is_of_the_whole_picture() -> None:
    data = tall(Image.new("RGB", (12_000, 16), "teal"), 563, 9000)
    for call in (media.decode, media.measure):
        with pytest.raises(errors.PictureTooLarge) as caught:
            call(data, max_pixels=MOST)
        assert (caught.value.width, caught.value.height, caught.value.most) == (12_000, 9000, MOST)


def test_without_a_scale_that_the_spec_allows_the_bound_is_of_the_whole_picture() -> None:
    # Its shorter side leaves nothing out: 16 x 65,488 is decoded as it is.
    data = tall(Image.new("RGB", (16, 16), "teal"), 4093, 65_488)
    assert media.decode(data, max_pixels=16 * 65_488, jpeg_at_least=448).scale == 1
    for call in (media.decode, media.measure):
        with pytest.raises(errors.PictureTooLarge):
            call(data, max_pixels=16 * 65_488 - 1, jpeg_at_least=448)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("most", [39_999, 40_000, 159_999, 160_000])
def test_measuring_and_decoding_agree_on_what_is_too_large(options: dict[str, bool], most: int) -> None:
    # At a scale it may have four times the bound; all of a progressive one counts.
    data = in_format(Image.new("RGB", (400, 400), "teal"), "JPEG", **options)
    allowed = most >= (160_000 if options else 40_000)
    for call in (media.decode, media.measure):
        if allowed:
            call(data, max_pixels=most, jpeg_at_least=100)
        else:
            with pytest.raises(errors.PictureTooLarge) as caught:
                call(data, max_pixels=most, jpeg_at_least=100)
            assert (caught.value.width, caught.value.height) == (400, 400)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_pillows_own(mode: str, progressive: bool) -> None:
    data = in_format(noise(67, 45).convert(mode), "JPEG", quality=90, progressive=progressive)
    np.testing.assert_array_equal(np.asarray(media.decode(data, max_pixels=MOST).image), np.asarray(pillow(data)))


def test_what_takes_the_place_of_pillow_is_handed_the_picture_without_its_metadata() -> None:
    seen: list[bytes] = []

    def read_jpeg(data: bytes) -> Image.Image:
        seen.append(data)
        return pillow(data)

    clean = in_format(noise(40, 30), "JPEG")
    for data in (clean, clean[:-2], clean[:2] + b"\xff\xee\0\x07Adobe" + clean[2:], clean + b"trailer"):
        media.decode(data, max_pixels=MOST, read_jpeg=read_jpeg)
    assert seen == [clean] * 4
