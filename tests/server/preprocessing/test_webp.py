"""WebP: its pictures against libvips, and containers that must not cost the picture."""

from __future__ import annotations

import gc
import io
import random

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from server import errors
from server.preprocessing import media, webp
from server.preprocessing.formats import WEBP
from server.preprocessing.stored import Bounds
from tests.support.pictures import in_format
from tests.support.webps import (
    ALPHA,
    ANIMATION,
    EXIF,
    ICC,
    XMP,
    animation,
    bitstream,
    chunk,
    extended,
    frame,
    riff,
)

MOST = 1_000_000
SIZE = (24, 16)
Array = NDArray[np.uint8]


def gradient(*, alpha: bool = False) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    bands = [across, down, np.full_like(across, 60), np.where(down < 128, 0, across)]
    return Image.fromarray(np.stack(bands[: 4 if alpha else 3], axis=2).astype(np.uint8))


PICTURE = np.asarray(gradient())
LOSSLESS = bitstream(gradient(), lossless=True)
LOSSY = bitstream(gradient(), quality=90)
CLEAR_LOSSLESS = bitstream(gradient(alpha=True), lossless=True, exact=True)
CLEAR_LOSSY = bitstream(gradient(alpha=True), quality=90)


def rgba(data: bytes) -> Array:
    stored = webp.read(data, WEBP, Bounds(MOST))
    assert stored.size == stored.image.size == media.measure(data, max_pixels=MOST)
    return np.asarray(stored.image.convert("RGBA"))


def by_vips(data: bytes) -> Array:
    found: Array = pyvips.Image.new_from_buffer(data, "").numpy()
    if found.shape[2] == 3:
        found = np.concatenate([found, np.full((*found.shape[:2], 1), 255, np.uint8)], axis=2)
    return found


def same(data: bytes) -> bool:
    return bool(np.array_equal(np.asarray(media.decode(data, max_pixels=MOST).image), PICTURE))


def test_every_kind_is_read_as_by_libvips() -> None:
    wide = (SIZE[0] + 8, SIZE[1] + 8)
    start = [extended(wide, ANIMATION | ALPHA), animation(b"\xff\x10\x20\xff")]
    for data in (
        riff(LOSSY),
        riff(LOSSLESS),
        riff(CLEAR_LOSSLESS),
        riff(extended(SIZE, 0), LOSSY),
        riff(extended(SIZE, ALPHA), LOSSY),
        riff(extended(SIZE, ALPHA), CLEAR_LOSSY),
        riff(extended(SIZE, 0), CLEAR_LOSSY),  # alpha that no flag announces
        *(riff(*start, frame(SIZE, (4, 6), each)) for each in (LOSSY, LOSSLESS, CLEAR_LOSSY, CLEAR_LOSSLESS)),
        riff(extended(wide, ANIMATION), animation(), frame(SIZE, (8, 8), LOSSY), frame(SIZE, (0, 0), LOSSLESS)),
        riff(extended(SIZE, ANIMATION), animation(), frame(SIZE, (0, 0), LOSSY), frame(SIZE, (0, 0), LOSSLESS)),
    ):
        np.testing.assert_array_equal(rgba(data), by_vips(data))


def test_around_a_frame_that_is_smaller_than_its_screen_all_is_transparent() -> None:
    for flags in (ANIMATION, ANIMATION | ALPHA):
        data = riff(extended((32, 24), flags), animation(b"\0\0\xff\xff"), frame(SIZE, (4, 6), LOSSLESS, flags=2))
        expected = np.zeros((24, 32, 4), np.uint8)
        expected[6:22, 4:28] = np.dstack([PICTURE, np.full(SIZE[::-1], 255)])
        np.testing.assert_array_equal(rgba(data), expected)


STILL = extended(SIZE, 0)
DATED = Image.Exif()
DATED[0x0112] = 6
EXIF_BLOCK = DATED.tobytes()
XMP_BLOCK = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ODD = {
    "a profile of nothing": [extended(SIZE, ICC), chunk(b"ICCP", b""), LOSSLESS],
    "a profile of 9 MB": [extended(SIZE, ICC), chunk(b"ICCP", bytes(9_000_000)), LOSSLESS],
    "a profile behind": [extended(SIZE, ICC), LOSSLESS, chunk(b"ICCP", b"abc")],
    "flags without chunks": [extended(SIZE, ICC | EXIF | XMP), LOSSLESS],
    "chunks without flags": [
        STILL,
        chunk(b"ICCP", b"abc"),
        LOSSLESS,
        chunk(b"EXIF", EXIF_BLOCK),
        chunk(b"XMP ", XMP_BLOCK),
    ],
    "odd EXIF and XMP": [extended(SIZE, EXIF | XMP), LOSSLESS, chunk(b"EXIF", b"zz"), chunk(b"XMP ", bytes(3_000_000))],
    "EXIF that ends too early": [extended(SIZE, EXIF), LOSSLESS, b"EXIF\xff\xff\0\0abc"],
    "unknown chunks": [STILL, chunk(b"abcd", b"xyz"), LOSSLESS, chunk(b"efgh", b"1")],
    "an unknown chunk first": [chunk(b"abcd", b"xyz"), LOSSLESS],
    "chunks in a simple file": [LOSSLESS, chunk(b"EXIF", EXIF_BLOCK)],
    "a flag of animation": [extended(SIZE, ANIMATION), LOSSLESS],
    "a frame without flag": [STILL, animation(), frame(SIZE, (0, 0), LOSSLESS)],
    "a frame without head": [extended(SIZE, ANIMATION), frame(SIZE, (0, 0), LOSSLESS)],
    "a broken second frame": [
        extended(SIZE, ANIMATION),
        animation(),
        frame(SIZE, (0, 0), LOSSLESS),
        frame(SIZE, (0, 0), LOSSY[:40]),
    ],
    "ten thousand frames": [
        extended(SIZE, ANIMATION),
        animation(),
        frame(SIZE, (0, 0), LOSSLESS),
        *[frame(SIZE, (0, 0), LOSSY)] * 10_000,
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_what_nobody_reads_does_not_cost_the_picture(name: str) -> None:
    data = riff(*ODD[name])
    assert same(data)
    assert same(data + b"trailing bytes" * 100)
    assert same(data + bytes(2_000_000))
    # The length in the head does not matter where the picture is whole.
    for size in (0, 1, 20, len(data) - 9, len(data) - 7, 10 * len(data), 2**32 - 1):
        assert same(riff(*ODD[name], size=size))


def test_a_file_may_be_cut_behind_its_first_picture() -> None:
    data = riff(extended(SIZE, XMP), LOSSLESS, chunk(b"XMP ", XMP_BLOCK * 5))
    for cut in (1, 10, 100):
        assert same(data[:-cut])
    data = riff(extended(SIZE, ANIMATION), animation(), *[frame(SIZE, (0, 0), LOSSLESS)] * 2)
    for cut in (1, 20, 60):
        assert same(data[:-cut])


def test_a_picture_that_is_cut_short_is_refused() -> None:
    for data in (
        riff(LOSSY),
        riff(LOSSLESS),
        riff(extended(SIZE, ALPHA), CLEAR_LOSSY),
        riff(extended(SIZE, ANIMATION), animation(), frame(SIZE, (0, 0), LOSSY)),
    ):
        for kept in (12, 16, 25, 30, len(data) // 2, len(data) - 9, len(data) - 2):
            for reading in (rgba, lambda data: media.decode(data, max_pixels=MOST)):
                with pytest.raises(errors.UnreadablePicture):
                    reading(data[:kept])


def test_headers_that_differ_in_size_are_damaged() -> None:
    for data in (
        riff(extended((25, 16), 0), LOSSLESS),
        riff(extended(SIZE, ANIMATION), animation(), frame(SIZE, (2, 0), LOSSLESS)),
    ):
        with pytest.raises(errors.UnreadablePicture, match="damaged"):
            rgba(data)


def test_the_bound_on_pixels_holds_for_screen_and_frame() -> None:
    small = frame(SIZE, (0, 0), LOSSLESS)
    stream = bytearray(LOSSLESS)
    stream[9:13] = (16_382 | 16_382 << 14).to_bytes(4, "little")
    for data in (
        riff(extended((1 << 24, 1 << 24), ANIMATION), animation(), small),
        riff(extended((16_383, 16_383), 0), bytes(stream)),
        riff(bytes(stream)),
    ):
        with pytest.raises(errors.PictureTooLarge):
            media.decode(data, max_pixels=MOST)
        with pytest.raises(errors.PictureTooLarge):
            media.measure(data, max_pixels=MOST)


def test_the_picture_is_turned_by_exif_and_else_by_xmp() -> None:
    other = Image.Exif()
    other[0x0112] = 3
    both = [chunk(b"EXIF", other.tobytes()), chunk(b"XMP ", XMP_BLOCK)]
    for parts, orientation in (
        ([extended(SIZE, EXIF), LOSSLESS, chunk(b"EXIF", EXIF_BLOCK)], 6),
        ([extended(SIZE, EXIF), LOSSLESS, chunk(b"EXIF", EXIF_BLOCK[6:])], 6),
        ([extended(SIZE, EXIF), chunk(b"EXIF", EXIF_BLOCK), LOSSLESS], 6),
        ([extended(SIZE, XMP), LOSSLESS, chunk(b"XMP ", XMP_BLOCK)], 6),
        ([extended(SIZE, EXIF | XMP), LOSSLESS, *both], 3),
        ([extended(SIZE, EXIF | XMP), LOSSLESS, chunk(b"EXIF", b"damaged"), both[1]], 6),
    ):
        data = riff(*parts)
        assert webp.read(data, WEBP, Bounds(MOST)).orientation == orientation
        turned = np.rot90(PICTURE, -1 if orientation == 6 else 2)
        np.testing.assert_array_equal(np.asarray(media.decode(data, max_pixels=MOST).image), turned)


def test_the_profile_is_handed_on_unless_it_is_too_large() -> None:
    for profile, kept in ((b"profile", b"profile"), (bytes(4 << 20), bytes(4 << 20)), (bytes((4 << 20) + 1), None)):
        data = riff(extended(SIZE, ICC), chunk(b"ICCP", profile), LOSSLESS)
        assert webp.read(data, WEBP, Bounds(MOST)).profile == kept


def test_what_pillow_reads_is_read_the_same() -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (31, 23, 4), np.uint8))
    for mode in ("L", "LA", "RGB", "RGBA"):
        for options in (
            {"lossless": True},
            {"quality": 60},
            {"lossless": True, "exif": EXIF_BLOCK, "icc_profile": b"p"},
        ):
            data = in_format(noise.convert(mode), "WEBP", **options)
            by_pillow = Image.open(io.BytesIO(data))
            stored = webp.read(data, WEBP, Bounds(MOST))
            assert (stored.image.mode, stored.image.tobytes()) == (by_pillow.mode, by_pillow.tobytes())
            assert stored.profile == by_pillow.info.get("icc_profile")


def test_the_decoder_is_dropped_with_the_file_and_the_pixels_stay() -> None:
    for alpha in (False, True):
        picture = gradient(alpha=alpha)
        stored = webp.read(in_format(picture, "WEBP", lossless=True, exact=True), WEBP, Bounds(MOST))
        assert type(stored.image) is Image.Image
        gc.collect()
        np.testing.assert_array_equal(np.asarray(stored.image), np.asarray(picture))


def test_damaged_files_raise_nothing_but_what_rejects_them() -> None:
    chance = random.Random(6)
    files = [
        riff(extended(SIZE, ALPHA | EXIF), CLEAR_LOSSY, chunk(b"EXIF", EXIF_BLOCK)),
        riff(LOSSLESS),
        riff(extended((32, 24), ANIMATION), animation(), frame(SIZE, (4, 6), LOSSY), frame(SIZE, (4, 6), LOSSY)),
    ]
    fates = set()
    for number in range(900):
        data = bytearray(files[number % len(files)])
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(12, len(data))] = chance.randrange(256)
        if number % 7 == 0:
            del data[chance.randrange(12, len(data)) :]
        try:
            media.decode(bytes(data), max_pixels=MOST)
            fates.add("read")
        except errors.MediaRejected as exc:
            fates.add(type(exc).__name__)
    assert {"read", "UnreadablePicture", "PictureTooLarge"} <= fates
