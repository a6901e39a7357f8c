"""GIF: frames of every place and palette against libvips and arithmetic, and what must not cost the picture."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image

from server import errors
from server.preprocessing import gif, media
from server.preprocessing.formats import GIF
from server.preprocessing.stored import Bounds
from tests.support.gifs import TRAILER, blocks, control, extension, frame, screen
from tests.support.pictures import in_format

MOST = 1_000_000
RANDOM = np.random.default_rng(11)
COLOURS = RANDOM.integers(1, 256, (16, 3), np.uint8)
OTHERS = RANDOM.integers(1, 256, (16, 3), np.uint8)
PALETTE, OTHER_PALETTE = COLOURS.tobytes(), OTHERS.tobytes()
NUMBERS = RANDOM.integers(0, 16, (10, 12))
OPAQUE = np.full((10, 12, 1), 255, np.uint8)
PICTURE = COLOURS[NUMBERS]
SCREEN = screen(12, 10, PALETTE)
CLEAN = SCREEN + frame(NUMBERS) + TRAILER


def rgba(data: bytes) -> NDArray[np.uint8]:
    stored = gif.read(data, GIF, Bounds(MOST))
    assert stored.size == stored.image.size == media.measure(data, max_pixels=MOST)
    return np.asarray(stored.image.convert("RGBA"))


def by_vips(data: bytes) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = pyvips.Image.new_from_buffer(data, "").numpy()
    if found.shape[2] == 3:
        found = np.concatenate([found, np.full((*found.shape[:2], 1), 255, np.uint8)], axis=2)
    return found


def same(data: bytes) -> bool:
    return bool(np.array_equal(rgba(data), np.concatenate([PICTURE, OPAQUE], axis=2)))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [None, 5])
@pytest.mark.parametrize("bits", [4, 5, 8])
def test_every_kind_is_read_as_by_libvips_and_by_arithmetic(
    own: bool, interlaced: bool, transparent: int | None, bits: int
) -> None:
    for width, height in ((12, 10), (1, 1), (1, 9), (9, 1), (40, 33)):
        numbers = np.random.default_rng(width).integers(0, 16, (height, width))
        data = screen(width, height, PALETTE) + control(transparent)
        data += frame(numbers, palette=OTHER_PALETTE if own else None, interlaced=interlaced, bits=bits) + TRAILER
        found = rgba(data)
        alpha = np.where(numbers == transparent, 0, 255).astype(np.uint8)
        expected = np.dstack([(OTHERS if own else COLOURS)[numbers], alpha])
        np.testing.assert_array_equal(found, expected)
        theirs = by_vips(data)
        theirs[alpha == 0, :3] = expected[alpha == 0, :3]  # nobody sees which colour is transparent
        np.testing.assert_array_equal(found, theirs)


@pytest.mark.parametrize("transparent", [None, 5])
@pytest.mark.parametrize("size", [(20, 20), (12, 10), (5, 6), (0, 0), (15, 14), (16, 14)])
def test_around_a_frame_that_is_smaller_than_its_screen_all_is_transparent(
    size: tuple[int, int], transparent: int | None
) -> None:
    # A screen that the frame does not fit in grows.
    data = screen(*size, PALETTE, background=7) + control(transparent) + frame(NUMBERS, at=(3, 4)) + TRAILER
    width, height = max(size[0], 15), max(size[1], 14)
    expected = np.zeros((height, width, 4), np.uint8)
    alpha = np.where(transparent == NUMBERS, 0, 255)
    expected[4:14, 3:15] = np.dstack([PICTURE, alpha])
    found = rgba(data)
    np.testing.assert_array_equal(found[..., 3], expected[..., 3])
    np.testing.assert_array_equal(found[found[..., 3] > 0], expected[found[..., 3] > 0])
    # libvips agrees on size and place, but has black there where no number is transparent.
    np.testing.assert_array_equal(by_vips(data)[found[..., 3] > 0], expected[found[..., 3] > 0])
    on_white = np.asarray(media.decode(data, max_pixels=MOST).image)
    assert (on_white[found[..., 3] == 0] == on_white[found[..., 3] == 0][:1]).all()


def test_a_screen_of_no_size_is_that_of_the_frame() -> None:
    assert same(screen(0, 0, PALETTE) + frame(NUMBERS) + TRAILER)


def test_the_first_frame_counts_whatever_becomes_of_it() -> None:
    for disposal in range(8):
        behind = control(3) + frame(NUMBERS[::-1]) + TRAILER
        assert same(SCREEN + control(None, disposal) + frame(NUMBERS) + behind)


def test_numbers_beyond_the_palette_are_black_and_greys_without_any() -> None:
    found = rgba(screen(12, 10, PALETTE[:24]) + frame(NUMBERS) + TRAILER)
    np.testing.assert_array_equal(found, by_vips(screen(12, 10, PALETTE[:24]) + frame(NUMBERS) + TRAILER))
    assert (found[NUMBERS >= 8] == (0, 0, 0, 255)).all()
    greys = rgba(screen(12, 10) + frame(NUMBERS * 16) + TRAILER)
    np.testing.assert_array_equal(greys[..., :3], (NUMBERS * 16)[..., None].repeat(3, 2))


def test_the_last_word_on_transparency_before_the_frame_counts() -> None:
    assert same(SCREEN + control(5) + control() + frame(NUMBERS) + TRAILER)
    for between in (b"", extension(0xFE, b"a comment"), extension(0xFF, b"NETSCAPE2.0")):
        clear = rgba(SCREEN + control(4) + control(5) + between + frame(NUMBERS) + TRAILER)[..., 3] == 0
        np.testing.assert_array_equal(clear, NUMBERS == 5)


ODD = [
    extension(0xF9, b""),
    extension(0xF9, b"\1"),
    extension(0xFE, b"x" * 5000),
    extension(0xFE, b""),
    extension(0xFF, b"NETSCAPE2.0"),
    extension(0xFF, b"XMP DataXMP" + bytes(range(255, 0, -1))),
    b"!\xff\x0bICCRGBG1012" + blocks(bytes(100_000)),
    extension(0x01, b"plain text"),
    extension(0x77, b"unknown"),
    b"\0\0\0",
    b"\xff",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_what_nobody_reads_does_not_cost_the_picture(odd: bytes) -> None:
    assert same(SCREEN + odd + frame(NUMBERS) + TRAILER)
    assert same(SCREEN + odd * 3 + frame(NUMBERS) + TRAILER)
    assert same(SCREEN + frame(NUMBERS) + odd + TRAILER)
    assert same(CLEAN + odd)


def test_what_is_broken_behind_the_first_frame_does_not_matter() -> None:
    for behind in (
        b"!",
        b"!\xff\x0b",
        b",",
        b"," + b"\xff" * 9,
        frame(NUMBERS)[:-20],
        b"junk" * 1000,
        b"!\xfe\xffshort",
    ):
        assert same(SCREEN + frame(NUMBERS) + behind)


def test_a_gif_without_its_end_is_read_where_every_row_is_there() -> None:
    # Without its trailer, the end of its blocks, and the code that ends them.
    for cut in range(4):
        assert same(CLEAN[: len(CLEAN) - cut])
    for cut in (5, 20, len(frame(NUMBERS)) - 12):
        with pytest.raises(errors.UnreadablePicture, match="damaged or cut short"):
            rgba(CLEAN[: len(CLEAN) - cut])


def test_a_gif_that_lacks_rows_or_its_frame_is_refused() -> None:
    taller = frame(NUMBERS).replace(struct.pack("<HH", 12, 10), struct.pack("<HH", 12, 13))
    for data in (
        SCREEN + taller + TRAILER,
        SCREEN + TRAILER,
        SCREEN,
        SCREEN[:20],
        SCREEN[:9],
        SCREEN + b"!",
        SCREEN + b"!\xfe\xff",
        SCREEN + b"," + bytes(4),
        SCREEN + frame(NUMBERS[:0]) + TRAILER,
        SCREEN + frame(NUMBERS, palette=PALETTE)[:30],
        SCREEN + frame(NUMBERS)[:10],
    ):
        with pytest.raises(errors.UnreadablePicture):
            rgba(data)
        with pytest.raises(errors.UnreadablePicture):
            media.decode(data, max_pixels=MOST)


def test_the_bound_on_pixels_holds_for_screen_and_frame() -> None:
    for data in (
        screen(65_535, 65_535, PALETTE) + frame(NUMBERS) + TRAILER,
        SCREEN + frame(NUMBERS, at=(65_535, 65_535)) + TRAILER,
        SCREEN + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x08" + blocks(b"little"),
    ):
        for reading in (media.decode, media.measure):
            with pytest.raises(errors.PictureTooLarge):
                reading(data, max_pixels=MOST)


def test_of_ten_thousand_frames_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, frombytes = [], Image.frombytes

    def counted(*given: Any) -> Image.Image:
        decoded.append(given)
        return frombytes(*given)

    monkeypatch.setattr(Image, "frombytes", counted)
    assert same(SCREEN + (control(None, 2) + frame(NUMBERS)) * 10_000 + TRAILER)
    assert len(decoded) == 1


def test_blocks_without_number_before_the_frame_are_refused_by_name() -> None:
    comment = b"!\xfe" + b"\1x" * 60_000 + b"\0"
    assert same(SCREEN + comment + frame(NUMBERS) + TRAILER)
    for many in (comment * 2, extension(0xFE, b"") * 100_001):
        with pytest.raises(errors.UnsupportedPicture, match="more than 100,000 blocks"):
            rgba(SCREEN + many + frame(NUMBERS) + TRAILER)


def test_damaged_files_raise_nothing_but_what_rejects_them() -> None:
    chance = random.Random(6)
    files = [
        CLEAN,
        screen(20, 20) + control(5) + frame(NUMBERS, at=(2, 3), palette=PALETTE, interlaced=True) + TRAILER,
        in_format(Image.linear_gradient("L"), "GIF"),
    ]
    fates = set()
    for number in range(900):
        data = bytearray(files[number % len(files)])
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(6, len(data))] = chance.randrange(256)
        if number % 7 == 0:
            del data[chance.randrange(6, len(data)) :]
        try:
            media.decode(bytes(data), max_pixels=MOST)
            fates.add("read")
        except errors.MediaRejected as exc:
            fates.add(type(exc).__name__)
    assert {"read", "UnreadablePicture", "PictureTooLarge"} <= fates


def test_what_pillow_reads_is_read_the_same() -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (31, 23, 4), np.uint8))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        data = in_format(image.convert(mode), "GIF", comment=b"for readers")
        by_pillow = Image.open(io.BytesIO(data)).convert("RGBA")
        assert rgba(data).tobytes() == by_pillow.tobytes()
