"""A part of a picture: the pixels that a file of nothing but this part would give, in every format and orientation."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from export.proof.profiles import SPACES, rgb_profile
from server.artifact.artifact import PreprocessingSpec
from server.errors import BadParameter, PictureTooLarge
from server.preprocessing import media
from server.preprocessing.nvimagecodec import JpegDecoder
from server.preprocessing.region import Region, region_of
from tests.support.pictures import in_format

SPEC = PreprocessingSpec(
    size=64,
    resize="shortest-edge",
    edge=72,
    resample="bicubic",
    rescale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    alpha="contrast",
    icc="srgb",
)
MOST = 64_000_000


def rough(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Fine detail everywhere, and no symmetry: a crop that is off by a pixel is another picture."""
    samples = np.random.default_rng(width).integers(0, 256, (height, width, len(mode)), np.uint8)
    samples[: height // 3, : width // 2, 0] = 250
    return Image.fromarray(samples.squeeze())


def as_file(image: Image.Image, form: str, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if form == "WEBP":
        options |= {"lossless": True, "exact": True}
    return in_format(image, form, exif=exif, **options)


def seen(data: bytes) -> Image.Image:
    """The upright picture by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        turned = ImageOps.exif_transpose(image)
    assert turned is not None
    return turned


def of_pixels(box: tuple[int, int, int, int], size: tuple[int, int]) -> Region:
    (left, top, right, bottom), (width, height) = box, size
    region = region_of([left / width, top / height, right / width, bottom / height])
    assert region is not None
    return region


def pixels(data: bytes, region: Region | None = None, spec: PreprocessingSpec = SPEC, **given: Any) -> media.Pixels:
    return media.read_pixels(data, spec, max_pixels=MOST, region=region, **given)


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


# --- which pixels are meant ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        ([0.25, 0.5, 0.75, 1], (100, 80), (25, 40, 75, 80)),
        ([0.111, 0.111, 0.119, 0.119], (100, 100), (11, 11, 12, 12)),
        ([0.118, 0.118, 0.122, 0.122], (100, 100), (11, 11, 13, 13)),
        ([0.333333, 0, 0.666667, 1], (3000, 9), (1000, 0, 2000, 9)),
        ([0.5, 0.5, 0.500001, 0.500001], (10, 10), (5, 5, 6, 6)),
        ([0.999999, 0.999999, 1, 1], (10, 10), (9, 9, 10, 10)),
        ([0, 0, 0.000001, 0.000001], (3, 1), (0, 0, 1, 1)),
        ([math.nextafter(0.5, 1), 0, 0.9, 1], (1, 64_000_000), (0, 0, 1, 64_000_000)),
    ],
)
def test_a_region_is_all_pixels_that_it_touches(
    crop: list[float], size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    region = region_of(crop)
    assert region is not None
    assert region.pixels(*size) == box


@pytest.mark.parametrize("length", [1, 2, 3, 49, 1001, 4093, 20_000])
def test_fractions_of_whole_pixels_mean_these_pixels_also_with_six_digits(length: int) -> None:
    for first in {0, 1, length // 3, length // 2, length - 1} & {*range(length)}:
        for last in {first + 1, (first + length) // 2, length - 1, length} & {*range(first + 1, length + 1)}:
            for near, far in ((first / length, last / length), (round(first / length, 6), round(last / length, 6))):
                assert Region(near, near, far, far).pixels(length, length) == (first, first, last, last)


def test_a_region_lies_within_the_picture_and_is_never_empty() -> None:
    draws = np.random.default_rng(2)
    for _ in range(3000):
        width, height = (int(2**power) for power in draws.uniform(0, 13, 2))
        left, right, top, bottom = draws.random(4)
        if draws.random() < 0.3:
            right, bottom = left + 2e-6, top + 2e-6
        corners = [min(left, right), min(top, bottom), min(1, max(left, right)), min(1, max(top, bottom))]
        region = region_of(corners)
        assert region is not None
        x0, y0, x1, y1 = region.pixels(width, height)
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert x0 <= region.left * width + 0.01
        assert x1 >= region.right * width - 0.01


def test_the_whole_picture_is_no_region() -> None:
    assert region_of([0, 0, 1, 1]) is None
    assert region_of([-0.0, -0.0, 1.0, 1.0]) is None
    assert region_of([0, 0, 1, 0.999999]) is not None


@pytest.mark.parametrize(
    ("crop", "said"),
    [
        ([], "has 0"),
        ([0, 0, 1], "has 3"),
        ([0, 0, 1, 1, 1], "has 5"),
        ([-0.1, 0, 1, 1], "from 0 to 1"),
        ([0, 0, 1, 1.0001], "from 0 to 1"),
        ([0, 0, 640, 480], "from 0 to 1"),
        ([math.nan, 0, 1, 1], "from 0 to 1"),
        ([0, 0, 1, math.inf], "from 0 to 1"),
        ([0.5, 0, 0.5, 1], "left must be less than right"),
        ([0.6, 0, 0.5, 1], "left must be less than right"),
        ([0, 0.9, 1, 0.1], "top must be less than bottom"),
        ([0.5, 0, 0.5000005, 1], "less than a millionth"),
        ([0, 0.5, 1, 0.5000005], "top and bottom are less than a millionth"),
    ],
)
def test_what_is_no_part_of_a_picture_is_refused_with_a_sentence(crop: list[float], said: str) -> None:
    with pytest.raises(BadParameter, match=f"^crop.*{said}"):
        region_of(crop)
    with pytest.raises(BadParameter, match=r"^query\[2\]\.crop"):
        region_of(crop, "query[2].crop")


def test_regions_are_told_apart_by_their_keys() -> None:
    crops = [(0, 0, 0.5, 1), (0, 0, 0.5, 0.9), (0, 0.1, 0.5, 1), (0.1, 0, 0.5, 1), (0, 0, math.nextafter(0.5, 1), 1)]
    regions = [region_of(crop) for crop in crops]
    keys = {region.key for region in regions if region is not None}
    assert len(keys) == len(crops)
    assert {len(key) for key in keys} == {32}
    again, negative = region_of([0, 0, 0.5, 1]), region_of([-0.0, 0, 0.5, 1])
    assert again is not None
    assert negative is not None
    assert again.key == negative.key


# --- its pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["shortest-edge", "squash"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_has_the_pixels_of_a_file_that_holds_nothing_else(orientation: int, form: str, resize: str) -> None:
    spec = msgspec.structs.replace(SPEC, resize=resize)
    data = as_file(rough(211, 157), form, orientation)
    upright = seen(data)
    for box in ((20, 30, 150, 140), (0, 0, 100, 60), (140, 3, 150, 157), (17, 100, 140, 101), (99, 99, 100, 100)):
        cut = upright.crop(box)
        expected = pixels(in_format(cut, "PNG"), spec=spec)
        region = of_pixels(box, upright.size)
        np.testing.assert_array_equal(pixels(data, region, spec), expected)
        picture = media.decode(data, max_pixels=MOST, region=region)
        np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(cut.convert("RGB")))
        assert (picture.width, picture.height, picture.scale, picture.box) == (*cut.size, 1, None)


def with_alpha() -> bytes:
    """White on one half, dark on the other, and all of it in part transparent: each half wants a ground of its own."""
    samples = np.asarray(rough(120, 80, "RGBA")).copy()
    samples[:, :60, :3] = 255
    samples[:, 60:, :3] //= 3
    return in_format(Image.fromarray(samples), "PNG")


@pytest.mark.parametrize(
    "data",
    [
        with_alpha(),
        in_format(rough(120, 80).quantize(17), "PNG", transparency=3),
        in_format(rough(120, 80).quantize(40), "GIF"),
        in_format(rough(120, 80, "L"), "BMP"),
        in_format(rough(120, 80).convert("1"), "PNG"),
        in_format(rough(120, 80), "TIFF"),
    ],
    ids=["alpha", "a transparent colour", "gif", "bmp", "one bit", "tiff"],
)
@pytest.mark.parametrize("box", [(0, 0, 55, 80), (65, 5, 120, 77), (30, 20, 90, 60)])
def test_nothing_beside_the_region_counts(data: bytes, box: tuple[int, int, int, int]) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        alone = in_format(image.convert("RGBA").crop(box), "PNG")
        np.testing.assert_array_equal(pixels(data, of_pixels(box, image.size)), pixels(alone))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_converted_as_in_a_file_with_the_same_profile(mode: str) -> None:
    profile = rgb_profile("Display P3", SPACES["Display P3"])
    whole = rough(300, 200, mode)
    box = (40, 10, 290, 190)
    data, alone = (in_format(image, "PNG", icc_profile=profile) for image in (whole, whole.crop(box)))
    assert not np.array_equal(pixels(alone), pixels(in_format(whole.crop(box), "PNG")))
    np.testing.assert_array_equal(pixels(data, of_pixels(box, whole.size)), pixels(alone))


def test_samples_of_more_than_8_bits_are_as_bright_as_in_the_whole_picture() -> None:
    """Of 32 bits the whole picture's largest says what white is: its dark corner alone would be another picture."""
    samples = np.zeros((80, 120), np.int32)
    samples[:40, :60] = np.arange(60) * 4
    samples[40:, 60:] = 65_535
    data = in_format(Image.fromarray(samples), "TIFF")
    region = of_pixels((0, 0, 60, 40), (120, 80))
    assert pixels(data, region).max() <= 1
    deep = in_format(Image.fromarray((samples[:, ::-1]).astype(np.uint16)), "PNG")
    cut = in_format(Image.fromarray(samples[:, ::-1][10:70, 30:90].astype(np.uint16)), "PNG")
    np.testing.assert_array_equal(pixels(deep, of_pixels((30, 10, 90, 70), (120, 80))), pixels(cut))


def test_a_region_of_one_pixel_is_that_pixels_colour_and_a_thin_one_takes_little_memory() -> None:
    whole = rough(97, 61)
    data = in_format(whole, "PNG")
    at = (96, 60)
    one = pixels(data, of_pixels((*at, at[0] + 1, at[1] + 1), whole.size))
    np.testing.assert_array_equal(one, np.broadcast_to(np.asarray(whole)[at[1], at[0]], one.shape))
    long = in_format(rough(5000, 40), "PNG")
    np.testing.assert_array_equal(
        pixels(long, of_pixels((0, 20, 5000, 21), (5000, 40))),
        pixels(in_format(rough(5000, 40).crop((0, 20, 5000, 21)), "PNG")),
    )


# --- JPEG ------------------------------------------------------------------------------------------------------------


def smooth(width: int, height: int) -> Image.Image:
    """Grey waves that every scale of a JPEG keeps, without symmetry: what is moved by a pixel is seen at once."""
    across, down = np.meshgrid(np.arange(width) / 14, np.arange(height) / 16)
    return Image.fromarray((127 + 60 * np.sin(across + 0.3 * down) + 60 * np.cos(down)).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_in_full_gives_what_pillow_decodes_and_cuts(orientation: int, options: dict[str, Any]) -> None:
    data = as_file(rough(211, 157), "JPEG", orientation, quality=90, **options)
    upright = seen(data)
    for box in ((20, 30, 150, 140), (0, 0, 9, 8), (149, 3, 150, 120)):
        region = of_pixels(box, upright.size)
        np.testing.assert_array_equal(pixels(data, region), pixels(in_format(upright.crop(box), "PNG")))


@pytest.mark.parametrize(
    ("side", "scale"), [(1600, 8), (1000, 8), (800, 8), (799, 4), (400, 4), (399, 2), (200, 2), (199, 1), (30, 1)]
)
def test_the_regions_size_chooses_the_scale_and_not_the_pictures(side: int, scale: int) -> None:
    """A picture of this size alone would be decoded at this scale."""
    data = in_format(smooth(1700, 1600), "JPEG")
    region = of_pixels((50, 0, 50 + side, side), (1700, 1600))
    picture = media.decode(data, max_pixels=MOST, jpeg_at_least=100, region=region)
    alone = media.decode(in_format(smooth(side, side), "JPEG"), max_pixels=MOST, jpeg_at_least=100)
    assert (picture.scale, picture.width, picture.height) == (scale, side, side)
    assert alone.scale == scale
    assert media.decode(data, max_pixels=MOST, jpeg_at_least=100).scale == 8


@pytest.mark.parametrize("resize", ["shortest-edge", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("box", [(3, 5, 262, 265), (61, 2, 323, 400), (0, 0, 259, 257), (131, 87, 391, 407)])
def test_what_is_cut_at_a_scale_stands_where_it_stands_in_full(
    box: tuple[int, int, int, int], orientation: int, resize: str
) -> None:
    """Also where the region begins between two pixels of what was decoded."""
    spec = msgspec.structs.replace(SPEC, resize=resize, edge=64, jpeg_at_least=64)
    data = as_file(smooth(411, 413), "JPEG", orientation, quality=97)
    region = of_pixels(box, seen(data).size)
    picture = media.decode(data, max_pixels=MOST, jpeg_at_least=64, region=region)
    assert picture.scale == 4
    assert picture.box is not None
    assert (picture.width, picture.height) == (box[2] - box[0], box[3] - box[1])
    full = pixels(data, region, msgspec.structs.replace(spec, jpeg_at_least=0))
    assert apart(pixels(data, region, spec), full) < 0.6
    # A pixel beside it, in full, would be more than that.
    for x, y in ((1, 0), (0, 1)):
        beside = of_pixels((box[0] + x, box[1] + y, box[2] + x, box[3] + y), seen(data).size)
        assert apart(pixels(data, beside, msgspec.structs.replace(spec, jpeg_at_least=0)), full) > 2


def test_a_small_region_keeps_the_detail_that_the_whole_pictures_scale_would_lose() -> None:
    samples = np.zeros((1600, 1600, 3), np.uint8)
    samples[100:164:2, 100:164] = 255  # stripes of one pixel
    data = in_format(Image.fromarray(samples), "JPEG", quality=95, subsampling=0)
    spec = msgspec.structs.replace(SPEC, edge=64, jpeg_at_least=128)
    stripes = pixels(data, of_pixels((100, 100, 164, 164), (1600, 1600)), spec)
    assert stripes.std() > 100
    assert media.decode(data, max_pixels=MOST, jpeg_at_least=128).scale == 8


def test_a_picture_that_only_a_scale_brings_within_the_bound_can_be_cut_at_half_its_detail() -> None:
    data = in_format(smooth(800, 600), "JPEG")
    region = of_pixels((100, 100, 190, 190), (800, 600))
    given: dict[str, Any] = {"jpeg_at_least": 100, "region": region}
    assert media.decode(data, max_pixels=480_000, **given).scale == 1
    assert media.decode(data, max_pixels=479_999, **given).scale == 2
    assert media.decode(data, max_pixels=120_000, **given).scale == 2
    for read in (media.decode, media.measure):
        with pytest.raises(PictureTooLarge):
            read(data, max_pixels=119_999, **given)
    # All coefficients of a progressive one would be held: it is within the bound, or it is refused, cut or not.
    progressive = in_format(smooth(800, 600), "JPEG", progressive=True)
    assert media.decode(progressive, max_pixels=480_000, **given).scale == 1
    with pytest.raises(PictureTooLarge):
        media.decode(progressive, max_pixels=479_999, **given)


def fake_decoder(turned: list[int]) -> Callable[[bytes], Image.Image]:
    def read(data: bytes) -> Image.Image:
        turned.append(1)
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")

    return read


@pytest.mark.parametrize("orientation", [1, 6])
def test_another_decoder_of_jpeg_gives_all_of_it_and_the_region_is_cut_from_that(orientation: int) -> None:
    """Where a region is decoded at a scale, it is not asked, as for pictures."""
    asked: list[int] = []
    data = as_file(rough(211, 157), "JPEG", orientation)
    region = of_pixels((20, 30, 150, 140), seen(data).size)
    np.testing.assert_array_equal(pixels(data, region, read_jpeg=fake_decoder(asked)), pixels(data, region))
    assert asked == [1]
    spec = msgspec.structs.replace(SPEC, size=48, edge=48, jpeg_at_least=50)
    np.testing.assert_array_equal(pixels(data, region, spec, read_jpeg=fake_decoder(asked)), pixels(data, region, spec))
    assert asked == [1]


def test_nvimagecodec_gives_the_region_that_pillow_gives() -> None:
    pytest.importorskip("nvidia.nvimgcodec")
    data = as_file(rough(211, 157), "JPEG", 6)
    region = of_pixels((20, 30, 150, 140), seen(data).size)
    ours = pixels(data, region, read_jpeg=JpegDecoder(None)).astype(np.int16)
    assert np.abs(ours - pixels(data, region)).max() <= 2
