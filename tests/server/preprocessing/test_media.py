"""Bytes to pixels, over every format, orientation and way of being broken that a shop will meet."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server import errors
from server.artifact.artifact import PreprocessingSpec
from server.preprocessing import media
from server.preprocessing.media import Picture
from tests import ROOT
from tests.support.pictures import in_format

SPEC = PreprocessingSpec(
    size=224,
    resize="shortest-edge",
    edge=224,
    resample="bicubic",
    rescale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
MOST = 64_000_000


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A picture without symmetry: every orientation of it differs."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    samples = np.stack([across, down, np.where((across > 150) & (down < 80), 255, 40)], axis=-1)
    return Image.fromarray(samples.astype(np.uint8))


def decoded(data: bytes, most: int = MOST, at_least: int = 0) -> Picture:
    return media.decode(data, max_pixels=most, jpeg_at_least=at_least)


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


@pytest.mark.parametrize(
    ("form", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 3),
        ("GIF", {}, 12),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("AVIF", {"quality": 95}, 3),
    ],
)
def test_every_format_decodes_to_the_picture_it_holds(form: str, options: Any, tolerance: int) -> None:
    result = decoded(in_format(picture(), form, **options))
    assert result.image.mode == "RGB"
    assert result.format.pillow == form
    assert difference(result.image, picture()) <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_turned_upright(orientation: int, form: str) -> None:
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = decoded(in_format(stored, form, exif=exif))
    assert (result.width, result.height) == picture().size
    assert difference(result.image, picture()) < 6


def test_damaged_exif_does_not_cost_the_picture() -> None:
    exif = b"Exif\0\0" + b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 20
    assert difference(decoded(in_format(picture(), "JPEG", quality=95, exif=exif)).image, picture()) < 3


def test_cmyk_jpeg_becomes_rgb() -> None:
    result = decoded(in_format(picture().convert("CMYK"), "JPEG", quality=95))
    assert difference(result.image, picture()) < 6


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_laid_on_white(form: str) -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert difference(decoded(in_format(image, form, **options)).image, expected) <= 1


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    result = decoded(in_format(image, "PNG", transparency=0)).image
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((7, 0)) == (0, 0, 255)


def test_a_grey_png_with_alpha_is_laid_on_white() -> None:
    image = Image.new("LA", (4, 4), (10, 0))
    assert decoded(in_format(image, "PNG")).image.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    for form in ("PNG", "TIFF"):
        result = np.asarray(decoded(in_format(Image.fromarray(ramp), form)).image)
        np.testing.assert_array_equal(result[0, :, 0], np.arange(256))


def test_one_bit_and_grey_pictures_become_rgb() -> None:
    for mode in ("1", "L"):
        image = picture().convert(mode)
        assert difference(decoded(in_format(image, "PNG")).image, image.convert("RGB")) == 0


def test_float_tiff_is_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    result = np.asarray(decoded(in_format(Image.fromarray(ramp), "TIFF")).image)
    np.testing.assert_array_equal(result[0, :, 0], np.arange(256))


CORE: Any = Image.core  # type: ignore[attr-defined]  # its counters
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        # Whole numbers up to 255 are what they say; beyond, the picture counts as 16 bit. What lies outside is clipped.
        (np.array([0, 1, 200, 255], np.int32), [0, 1, 200, 255]),
        (np.array([-5, 0, 200, 255], np.int32), [0, 0, 200, 255]),
        (np.array([0, 256, 257, 65535], np.int32), [0, 1, 1, 255]),
        (np.array([-(2**31), -257, 25700, 2**31 - 1], np.int32), [0, 0, 100, 255]),
        (np.array([7, 7, 7, 7], np.int32), [7, 7, 7, 7]),
        # Fractions from 0 to 1 fill the range; others are read as whole numbers are.
        (np.array([0, 0.2, 0.5, 1], np.float32), [0, 51, 128, 255]),
        (np.array([0, 0, 0, 0.1], np.float32), [0, 0, 0, 26]),
        (np.array([0, 1, 1.5, 255], np.float32), [0, 1, 2, 255]),
        (np.array([-1, 0, 0.4, 1], np.float32), [0, 0, 0, 1]),
        (np.array([0, 257, 25700, 65535], np.float32), [0, 1, 100, 255]),
        (np.array([-3e38, 0, 25700, 3e38], np.float32), [0, 0, 100, 255]),
        # What is no number is black, and does not decide how the others are read.
        (np.array([NAN, 0.2, 0.4, 1], np.float32), [0, 51, 102, 255]),
        (np.array([NAN, 0, 100, 255], np.float32), [0, 0, 100, 255]),
        (np.array([NAN, NAN, NAN, NAN], np.float32), [0, 0, 0, 0]),
        (np.array([-INF, 0, 25700, INF], np.float32), [0, 0, 100, 255]),
        (np.array([0, 0, 0, 0], np.float32), [0, 0, 0, 0]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else "to_" + "_".join(map(str, value)),
)
def test_wide_samples_of_any_range_become_eight_bits(
    samples: NDArray[np.float32] | NDArray[np.int32], expected: list[int]
) -> None:
    result = np.asarray(decoded(in_format(Image.fromarray(samples[None].repeat(2, axis=0)), "TIFF")).image)
    assert result[0, :, 0].tolist() == expected
    np.testing.assert_array_equal(result, result[:1, :, :1].repeat(2, axis=0).repeat(3, axis=2))


@pytest.mark.parametrize(("form", "kind"), [("PNG", np.uint16), ("TIFF", np.int32), ("TIFF", np.float32)])
def test_wide_samples_take_few_bytes_a_pixel(form: str, kind: type[np.generic]) -> None:
    noise = np.random.default_rng(2).integers(0, 65536, (4000, 4000), dtype=np.uint16).astype(kind)
    data = in_format(Image.fromarray(noise), form, **({"compress_level": 0} if form == "PNG" else {}))
    tracemalloc.start()
    image = decoded(data).image
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.size == (4000, 4000)
    assert peak < 12 * 4000 * 4000


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        data = in_format(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        red, _, blue = np.asarray(decoded(data).image)[8, 8].tolist()
        assert (red, blue) == (255, 0)


def test_an_empty_upload_is_no_picture() -> None:
    with pytest.raises(errors.NoPicture):
        decoded(b"")


@pytest.mark.parametrize(
    "data", [b"hello, I am a text called photo.jpg", b"%PDF-1.7", b"<svg xmlns='x'/>", b"\0" * 100, b"BZh9"]
)
def test_what_is_not_a_picture_says_so(data: bytes) -> None:
    with pytest.raises(errors.NotAPicture):
        decoded(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_truncated_picture_is_unreadable(form: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = in_format(noise, form)
    with pytest.raises(errors.UnreadablePicture):
        decoded(data[: int(len(data) * part)])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_garbage_behind_a_good_signature_never_escapes_as_another_error(form: str) -> None:
    data = bytearray(in_format(picture(32, 32), form))
    random = np.random.default_rng(7)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(damaged), 8):
            damaged[place] = random.integers(0, 256)
        try:
            decoded(bytes(damaged))
        except errors.MediaRejected:
            continue


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = in_format(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(errors.PictureTooLarge) as caught:
        decoded(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert (caught.value.width, caught.value.height) == (20_000, 20_000)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("size", [(96, 64), (1, 1), (31, 77)])
def test_what_is_measured_is_what_is_decoded(form: str, size: tuple[int, int]) -> None:
    data = in_format(picture(*size), form)
    result = decoded(data)
    assert media.measure(data, max_pixels=MOST) == (result.width, result.height) == size


def test_measuring_is_of_the_picture_as_stored_and_refuses_as_decoding_does() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = in_format(picture(96, 64), "JPEG", exif=exif)
    assert media.measure(sideways, max_pixels=MOST) == (96, 64)
    assert (decoded(sideways).width, decoded(sideways).height) == (64, 96)
    for data, error in (
        (b"", errors.NoPicture),
        (b"text", errors.NotAPicture),
        (sideways[:20], errors.UnreadablePicture),
        (in_format(Image.new("1", (10_000, 10_000)), "PNG"), errors.PictureTooLarge),
    ):
        with pytest.raises(error):
            media.measure(data, max_pixels=MOST)


# --- the scans of a JPEG ---------------------------------------------------------------------------------------------


def progressive(scans: int | None = None) -> bytes:
    """A progressive JPEG; with its last scan repeated until it has so many."""
    data = in_format(picture(), "JPEG", quality=95, progressive=True)
    if scans is None:
        return data
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_progressive_jpeg_may_have_many_scans_but_not_any_number() -> None:
    usual, most = decoded(progressive()), decoded(progressive(100))
    assert difference(usual.image, picture()) < 3
    assert difference(most.image, picture()) < 3
    for scans in (101, 20_000):
        with pytest.raises(errors.UnsupportedPicture, match="more scans than any camera"):
            decoded(progressive(scans))


@pytest.mark.parametrize(
    "before", [b"", b"\xff\xff\xff", b"\xff\x01", b"\xff\xd0", b"garbage", b"\xff\xfe\x00\x04\xff\xd9"]
)
def test_scans_are_counted_whatever_stands_between_them(before: bytes) -> None:
    data = progressive()
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(errors.UnsupportedPicture, match="more scans than any camera"):
        decoded(data[:-2] + (before + last) * 200 + data[-2:])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("behind", ["video", "pictures", "scans"])
def test_what_follows_the_end_of_a_jpeg_is_not_counted(options: dict[Any, Any] | dict[str, bool], behind: str) -> None:
    # A phone's photograph can have a video behind it, or more pictures.
    trailer = {
        "video": np.random.default_rng(4).bytes(8_000_000),
        "pictures": progressive() * 200,
        "scans": b"\xff\xda\x00\x02" * 50_000,
    }[behind]
    assert trailer.count(b"\xff\xda") > 100
    data = in_format(picture(), "JPEG", quality=95, **options)
    assert difference(decoded(data + trailer).image, decoded(data).image) == 0


@pytest.mark.parametrize("marker", [b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"])
def test_what_lies_inside_a_segment_of_a_jpeg_is_not_counted(marker: bytes) -> None:
    # A preview inside EXIF is a JPEG of its own.
    inside = b"Exif\0\0" + b"\xff\xda\x00\x02\xff\xd9" * 500
    segment = marker + (len(inside) + 2).to_bytes(2) + inside
    data = in_format(picture(), "JPEG", quality=95, progressive=True)
    assert difference(decoded(data[:2] + segment + data[2:]).image, decoded(data).image) == 0


def test_the_bound_on_pixels_is_the_setting() -> None:
    data = in_format(picture(100, 100), "PNG")
    assert decoded(data, most=10_000).width == 100
    with pytest.raises(errors.PictureTooLarge):
        decoded(data, most=9_999)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2), (224, 224), (223, 500)])
def test_pixels_are_always_the_models_square(size: tuple[int, int]) -> None:
    pixels = media.to_pixels(picture(*size), SPEC)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_a_long_thin_picture_makes_no_giant_intermediate() -> None:
    # Resizing in full would need 224 x 1,120,000 samples; Pillow's allocator counts what it really asked for.
    CORE.reset_stats()
    media.to_pixels(Image.new("RGB", (1, 5000), (9, 8, 7)), SPEC)
    assert CORE.get_stats()["allocated_blocks"] < 10


def test_the_way_round_a_giant_intermediate_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    for width, height in [(40, 900), (900, 40), (7, 2400), (2400, 7), (230, 260), (31, 33)]:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        whole = media.to_pixels(image, SPEC).astype(np.int16)
        monkeypatch.setattr(media, "_LARGEST_INTERMEDIATE_PIXELS", 0)
        round_about = media.to_pixels(image, SPEC).astype(np.int16)
        monkeypatch.undo()
        assert np.abs(whole - round_about).max() <= 1
        assert (whole != round_about).mean() < 0.001


def test_squashing_keeps_the_entire_picture() -> None:
    spec = PreprocessingSpec(
        size=64, resize="squash", edge=64, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
    )
    image = picture(300, 100)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(media.to_pixels(image, spec), expected)


def test_a_thumbnail_is_small_keeps_its_shape_and_never_grows() -> None:
    small = Image.open(io.BytesIO(media.thumbnail(picture(2000, 1000))))
    assert (small.format, small.size) == ("WEBP", (256, 128))
    assert Image.open(io.BytesIO(media.thumbnail(picture(30, 20)))).size == (30, 20)
    assert Image.open(io.BytesIO(media.thumbnail(picture(4000, 2)))).size == (256, 1)


# --- JPEG at scale ---------------------------------------------------------------------------------------------------

TINY = msgspec.structs.replace(SPEC, size=8, edge=8)


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def leaning(width: int, height: int) -> Image.Image:
    """Grey that leads from corner to corner: what is moved by a little is seen at once, and no colour is lost."""
    across, down = np.meshgrid(np.linspace(0, 150, width), np.linspace(0, 100, height))
    return Image.fromarray((across + down).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    ("size", "at_least", "scale", "kept"),
    [
        ((800, 600), 0, 1, (800, 600)),
        ((800, 600), 601, 1, (800, 600)),
        ((800, 600), 301, 1, (800, 600)),
        ((800, 600), 300, 2, (400, 300)),
        ((801, 601), 300, 2, (401, 301)),
        ((801, 599), 300, 1, (801, 599)),
        ((800, 600), 151, 2, (400, 300)),
        ((800, 600), 150, 4, (200, 150)),
        ((803, 605), 150, 4, (201, 152)),
        ((800, 600), 75, 8, (100, 75)),
        ((807, 601), 75, 8, (101, 76)),
        ((800, 600), 1, 8, (100, 75)),
        ((10_000, 100), 50, 2, (5_000, 50)),
        ((100, 10_000), 51, 1, (100, 10_000)),
        ((3, 2), 1, 2, (2, 1)),
        ((1, 1), 1, 1, (1, 1)),
        ((1, 5_000), 1, 1, (1, 5_000)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_leaves_neither_side_below_the_bound(
    size: tuple[int, int], at_least: int, scale: int, kept: tuple[int, int]
) -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        result = decoded(in_format(picture(*size), "JPEG", **options), at_least=at_least)
        assert (result.scale, result.image.size) == (scale, kept)
        assert (result.width, result.height) == size
        assert result.box in (None, (0, 0, size[0] / scale, size[1] / scale))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_only_jpegs_are_decoded_at_a_scale(form: str) -> None:
    result = decoded(in_format(picture(800, 600), form), at_least=16)
    assert (result.scale, result.image.size) == (1, (800, 600))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
def test_a_jpeg_that_is_too_small_for_a_scale_keeps_its_pixels_to_the_last_bit(
    options: dict[Any, Any] | dict[str, bool] | dict[str, int],
) -> None:
    data = in_format(picture(401, 299), "JPEG", **options)
    assert difference(decoded(data).image, decoded(data, at_least=224).image) == 0


@pytest.mark.parametrize("resize", ["shortest-edge", "squash"])
@pytest.mark.parametrize("size", [(128, 128), (129, 130), (135, 129), (190, 131), (129, 242)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_pixels_stand_where_those_of_full_decoding_stand(
    orientation: int, size: tuple[int, int], resize: str
) -> None:
    """At 1/8, 129 pixels are 17, of which an eighth of the last is filled: counted as full, it would move all."""
    spec = msgspec.structs.replace(TINY, resize=resize, jpeg_at_least=16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = in_format(leaning(*size), "JPEG", quality=95, exif=exif)
    scaled, full = decoded(data, at_least=16), decoded(data)
    assert scaled.scale == 8
    assert (scaled.width, scaled.height) == (full.width, full.height) == full.image.size
    assert apart(media.to_pixels(scaled, spec), media.to_pixels(full, spec)) < 1
    np.testing.assert_array_equal(media.to_pixels(full, spec), media.to_pixels(full.image, spec))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_way_round_a_giant_intermediate_knows_of_scaled_pictures(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = in_format(leaning(129, 1601), "JPEG", quality=95, exif=exif)
    result = decoded(data, at_least=16)
    assert result.scale == 8
    whole = media.to_pixels(result, TINY).astype(np.int16)
    monkeypatch.setattr(media, "_LARGEST_INTERMEDIATE_PIXELS", 0)
    assert np.abs(whole - media.to_pixels(result, TINY)).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_colours_of_a_scaled_jpeg_are_those_of_the_full_one(mode: str) -> None:
    data = in_format(picture(640, 480).convert(mode), "JPEG", quality=95)
    scaled, full = decoded(data, at_least=120), decoded(data)
    assert (scaled.scale, scaled.image.mode) == (4, "RGB")
    assert difference(scaled.image, full.image.reduce(4)) < 2


def test_a_phones_multi_picture_jpeg_is_decoded_at_a_scale_as_its_first_picture() -> None:
    other = Image.new("RGB", (640, 480), "red")
    data = in_format(picture(640, 480), "MPO", quality=95, save_all=True, append_images=[other])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    scaled = decoded(data, at_least=240)
    assert (scaled.scale, scaled.image.size, scaled.width) == (2, (320, 240), 640)
    assert difference(scaled.image, picture(640, 480).reduce(2)) < 3


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_cut_or_damaged_jpeg_fares_the_same_at_every_scale(
    options: dict[Any, Any] | dict[str, bool] | dict[str, int],
) -> None:
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (96, 160, 3), dtype=np.uint8))
    data = in_format(noise, "JPEG", **options)
    random = np.random.default_rng(7)
    broken = [data[:length] for length in (*range(len(data) - 6, len(data)), *range(0, len(data), 307))]
    for _ in range(100):
        damaged = bytearray(data)
        for place in random.integers(2, len(data), 4):
            damaged[place] = random.integers(0, 256)
        broken.append(bytes(damaged))
    fates = set()
    for each in broken:
        fate = [outcome(each, at_least) for at_least in (0, 40, 20, 10)]
        assert len(set(fate)) == 1
        fates.add(fate[0])
    assert {"readable", "UnreadablePicture"} <= fates
    # Without its end mark alone it is whole.
    assert all(outcome(data[:-cut], 40) == "readable" for cut in (1, 2))
    assert all(outcome(data[:-cut], 40) == "UnreadablePicture" for cut in (5, 1000))


def outcome(data: bytes, at_least: int) -> str:
    try:
        decoded(data, at_least=at_least)
    except errors.MediaRejected as exc:
        return type(exc).__name__
    return "readable"


def test_decoding_at_a_scale_takes_little_memory() -> None:
    data = in_format(Image.new("RGB", (4000, 3000), "teal"), "JPEG")
    CORE.reset_stats()
    CORE.clear_cache()
    assert decoded(data, at_least=375).scale == 8
    assert CORE.get_stats()["allocated_blocks"] <= 2


def test_pixels_are_read_as_the_spec_says() -> None:
    data = in_format(picture(900, 700), "JPEG")
    full = media.read_pixels(data, SPEC, max_pixels=MOST)
    np.testing.assert_array_equal(full, media.to_pixels(decoded(data).image, SPEC))
    spec = msgspec.structs.replace(SPEC, jpeg_at_least=224)
    scaled = media.read_pixels(data, spec, max_pixels=MOST)
    np.testing.assert_array_equal(scaled, media.to_pixels(decoded(data, at_least=224), spec))
    assert 0 < apart(scaled, full) < 2
    with pytest.raises(errors.PictureTooLarge):
        media.read_pixels(data, SPEC, max_pixels=629_999)
    with pytest.raises(errors.PictureTooLarge):
        media.read_pixels(data, spec, max_pixels=629_999 // 4)


@pytest.mark.parametrize("size", [(2000, 1500), (1999, 1503), (4001, 300), (300, 4001)])
def test_a_thumbnail_of_a_scaled_picture_looks_like_that_of_the_full_one(size: tuple[int, int]) -> None:
    data = in_format(picture(*size), "JPEG", quality=95)
    scaled, full = decoded(data, at_least=256), decoded(data)
    assert media.fills_thumbnail(scaled)
    one, other = (Image.open(io.BytesIO(media.thumbnail(each))) for each in (scaled, full))
    assert max(one.size) == 256
    assert difference(one, other) < 2


def test_a_picture_that_was_decoded_too_small_for_its_thumbnail_says_so() -> None:
    data = in_format(picture(1600, 1200), "JPEG")
    small = decoded(data, at_least=100)
    assert small.image.size == (200, 150)
    assert not media.fills_thumbnail(small)
    assert media.fills_thumbnail(small, edge=200)
    # Of a picture that is smaller than a thumbnail, all is there.
    assert media.fills_thumbnail(decoded(in_format(picture(200, 150), "JPEG"), at_least=200))


def test_scaled_pixels_do_not_depend_on_the_processors_vector_instructions(tmp_path: Path) -> None:
    """libjpeg-turbo reads JSIMD_FORCENONE; a space must be the same on a machine with other instructions."""
    written: list[dict[str, Any]] = [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": "4:2:2"}]
    for number, options in enumerate(written):
        noisy = np.asarray(picture(803, 605)) ^ np.random.default_rng(number).integers(0, 64, (605, 803, 3), np.uint8)
        (tmp_path / f"{number}.jpg").write_bytes(in_format(Image.fromarray(noisy), "JPEG", **options))
    program = (
        "import hashlib, pathlib, sys\n"
        "from server.preprocessing.media import decode\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    for at_least in (0, 300, 150, 75):\n"
        "        image = decode(path.read_bytes(), max_pixels=10**6, jpeg_at_least=at_least).image\n"
        "        print(path.name, image.size, hashlib.sha256(image.tobytes()).hexdigest())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env=os.environ | switched,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for switched in ({}, {"JSIMD_FORCENONE": "1"})
    }
    assert len(printed) == 1
    assert printed.pop().count("\n") == 16
