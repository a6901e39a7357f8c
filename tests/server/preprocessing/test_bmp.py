"""BMP: every layout against arithmetic (libvips reads no BMP), and what must not cost the picture.

The expectations where files leave room were read off Chromium; where we differ on purpose, the test says so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server import errors
from server.preprocessing import bmp, media
from server.preprocessing.formats import BMP
from server.preprocessing.stored import Bounds, Stored
from tests.support.bmps import (
    ALPHA_BITFIELDS,
    BITFIELDS,
    JPEG,
    PNG,
    RAW,
    RLE4,
    RLE8,
    packed,
)
from tests.support.bmps import bmp as written
from tests.support.pictures import in_format

MOST = 1_000_000
W, H = 7, 5
RANDOM = np.random.default_rng(21)
COLOURS = RANDOM.integers(1, 256, (256, 3), np.uint8)
BGR = COLOURS[:, ::-1]
PALETTE = np.concatenate([BGR, np.zeros((256, 1), np.uint8)], axis=1).tobytes()
NUMBERS = {bits: RANDOM.integers(0, 1 << bits, (H, W)) for bits in (1, 2, 4, 8, 16, 24, 32)}
RGB_MASKS = (0xFF0000, 0xFF00, 0xFF)
ALPHA = 0xFF000000


def read(data: bytes) -> Stored:
    stored = bmp.read(data, BMP, Bounds(MOST))
    assert stored.size == stored.image.size == media.measure(data, max_pixels=MOST)
    return stored


def rgba(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(read(data).image.convert("RGBA"))


def opaque(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), 255, np.uint8)], axis=2)


def by_masks(values: NDArray[np.int64], masks: Sequence[int]) -> NDArray[np.uint8]:
    """Each channel to 8 bits, rounded."""
    bands = []
    for mask in masks:
        shift = (mask & -mask).bit_length() - 1
        bands.append(np.rint(((values & mask) >> shift) * 255 / (mask >> shift)).astype(np.uint8))
    return np.stack(bands, axis=2)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [12, 16, 40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_colours_by_number_are_read_under_every_header(bits: int, header: int, top_down: bool) -> None:
    if header == 12 and top_down:
        return  # it has no sign
    palette = BGR.tobytes() if header == 12 else PALETTE
    palette = palette[: (3 if header == 12 else 4) << bits]
    pixels = packed(NUMBERS[bits], bits, top_down=top_down)
    data = written((W, -H if top_down else H), bits, pixels, header=header, palette=palette)
    np.testing.assert_array_equal(rgba(data), opaque(COLOURS[NUMBERS[bits]]))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("greys", [[0, 255], [255, 0], list(range(16)), list(range(256))], ids=len)
def test_palettes_of_greys_are_palettes_too(bits: int, greys: list[int]) -> None:
    # Pillow takes them for samples, of as many bits as the palette has colours.
    most = min(1 << bits, len(greys))
    numbers = NUMBERS[bits] % most
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys[:most])
    found = rgba(written((W, H), bits, packed(numbers, bits), palette=palette))
    np.testing.assert_array_equal(found[..., 0], np.array(greys)[numbers])


def test_a_palette_may_be_shorter_than_it_says_or_longer_than_it_can_be() -> None:
    whole = packed(NUMBERS[8], 8)
    expected = opaque(COLOURS[NUMBERS[8]])
    for colours in (0, 256, 300, 70_000, 2**32 - 1):
        np.testing.assert_array_equal(rgba(written((W, H), 8, whole, palette=PALETTE, colours=colours)), expected)
    short = expected.copy()
    short[NUMBERS[8] >= 100] = (0, 0, 0, 255)
    for said in (None, 0):
        np.testing.assert_array_equal(rgba(written((W, H), 8, whole, palette=PALETTE[:400], colours=said)), short)


def test_the_pixels_stand_where_the_file_says_or_behind_the_palette() -> None:
    pixels, expected = packed(NUMBERS[8], 8), opaque(COLOURS[NUMBERS[8]])
    gap = written((W, H), 8, b"gap!" * 5 + pixels, palette=PALETTE, offset=54 + 1024 + 20)
    np.testing.assert_array_equal(rgba(gap), expected)
    for offset in (0, 14, 54):
        np.testing.assert_array_equal(rgba(written((W, H), 8, pixels, palette=PALETTE, offset=offset)), expected)


@pytest.mark.parametrize(("bits", "header"), [(24, 12), (24, 40), (24, 108), (32, 40), (32, 108), (32, 124)])
def test_plain_colours_are_opaque_whatever_the_fourth_byte_is(bits: int, header: int) -> None:
    found = rgba(written((W, H), bits, packed(NUMBERS[bits], bits), header=header))
    np.testing.assert_array_equal(found, opaque(by_masks(NUMBERS[bits], RGB_MASKS)))


@pytest.mark.parametrize("masks", [None, (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)])
def test_five_and_six_bits_are_within_one_of_rounding(masks: tuple[int, ...] | None) -> None:
    # Pillow cuts here, and the vectors of many catalogues were made so.
    data = written((W, H), 16, packed(NUMBERS[16], 16), compression=BITFIELDS if masks else RAW, masks=masks or ())
    exact = opaque(by_masks(NUMBERS[16], masks or (0x7C00, 0x3E0, 0x1F))).astype(int)
    assert np.isin(exact - rgba(data), (0, 1)).all()


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF)),
        (16, (0x1F, 0x3E0, 0x7C00)),
        (16, (0xE0, 0x1C, 0x3)),
        (32, RGB_MASKS),
        (32, (0xFF, 0xFF00, 0xFF0000)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
        (32, (0xFFFF0000, 0xFF00, 0xFF)),
        (32, (0xFFFFFFFF, 1, 0x80000000)),
        (32, (0xFF, 0xFF, 0xFF)),
    ],
)
def test_any_masks_are_read(bits: int, masks: tuple[int, ...]) -> None:
    expected = opaque(by_masks(NUMBERS[bits], masks))
    for header in (40, 52, 56, 124):
        for size in ((W, H), (W, -H)):
            pixels = packed(NUMBERS[bits], bits, top_down=size[1] < 0)
            data = written(size, bits, pixels, header=header, compression=BITFIELDS, masks=masks)
            np.testing.assert_array_equal(rgba(data), expected)


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (32, (*RGB_MASKS, ALPHA)),
        (32, (0xFF, 0xFF00, 0xFF0000, ALPHA)),
        (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    ],
)
def test_alpha_counts_where_a_mask_names_it(bits: int, masks: tuple[int, ...]) -> None:
    expected = by_masks(NUMBERS[bits], masks)
    pixels = packed(NUMBERS[bits], bits)
    for header in (56, 108, 124):
        data = written((W, H), bits, pixels, header=header, compression=BITFIELDS, masks=masks)
        np.testing.assert_array_equal(rgba(data), expected)
    data = written((W, H), bits, pixels, compression=ALPHA_BITFIELDS, masks=masks)
    np.testing.assert_array_equal(rgba(data), expected)
    # A short header names three colours; what follows is no mask of its.
    three = written((W, H), 32, packed(NUMBERS[32], 32), compression=BITFIELDS, masks=RGB_MASKS)
    np.testing.assert_array_equal(rgba(three), opaque(by_masks(NUMBERS[32], RGB_MASKS)))


def test_a_mask_for_alpha_counts_without_the_others_too_as_in_browsers() -> None:
    data = written((W, H), 32, packed(NUMBERS[32], 32), header=124, masks=(*RGB_MASKS, ALPHA))
    np.testing.assert_array_equal(rgba(data), by_masks(NUMBERS[32], (*RGB_MASKS, ALPHA)))


def test_alpha_of_nothing_but_zeros_is_none() -> None:
    # Browsers show nothing then; nobody sends a picture that cannot be seen.
    values = NUMBERS[32] & 0xFFFFFF
    for masks in ((*RGB_MASKS, ALPHA), (0, 0, 0, 0)):
        data = written((W, H), 32, packed(values, 32), header=124, compression=BITFIELDS, masks=masks)
        np.testing.assert_array_equal(rgba(data), opaque(by_masks(values, RGB_MASKS)))


def runs(numbers: NDArray[np.int64], bits: int) -> bytes:
    """One run a pixel, the last row first."""
    return b"".join(
        b"".join(bytes([1, value << 4 if bits == 4 else value]) for value in row.tolist()) + b"\0\0"
        for row in numbers[::-1]
    )


@pytest.mark.parametrize(("bits", "compression"), [(8, RLE8), (4, RLE4)])
def test_run_lengths_are_unrolled(bits: int, compression: int) -> None:
    palette = PALETTE[: 4 << bits]
    expected = opaque(COLOURS[NUMBERS[bits]])
    whole = runs(NUMBERS[bits], bits)
    for pixels in (whole + b"\0\1", whole, whole[:-2], whole + b"\0\1anything"):
        data = written((W, H), bits, pixels, compression=compression, palette=palette)
        np.testing.assert_array_equal(rgba(data), expected)
    down = written((W, -H), bits, whole + b"\0\1", compression=compression, palette=palette)
    np.testing.assert_array_equal(rgba(down), expected[::-1])


@pytest.mark.parametrize(
    ("bits", "pixels", "rows"),
    [
        (8, b"\3\5\0\1", ["5550000"]),
        (8, b"\3\5\0\0\7\6\0\1", ["5550000", "6666666"]),
        (8, b"\2\5\0\2\1\1\3\6\0\1", ["5500000", "0006660"]),
        (8, b"\0\5\1\2\3\4\5\0\2\7\0\0\0\1", ["1234577"]),
        (8, b"\0\4\1\2\3\4\2\7\0\0\0\1", ["1234770"]),
        (8, b"\x0a\5\0\0\2\6\0\1", ["5555555", "6600000"]),
        (8, b"\0\2\0\2\2\5\0\1", ["0000000", "0000000", "5500000"]),
        (4, b"\7\x12\0\0\0\7\x12\x34\x56\x70\0\0\3\x45\4\x67\0\1", ["1212121", "1234567", "4546767"]),
        (4, b"\0\5\x12\x34\x50\0\2\x77\0\1", ["1234577"]),
        (4, b"\0\6\x12\x34\x56\0\1\x70\0\1", ["1234567"]),
    ],
)
def test_what_run_lengths_leave_out_has_number_0(bits: int, pixels: bytes, rows: list[str]) -> None:
    expected = np.zeros((H, W), int)
    for number, row in enumerate(rows, 1):
        expected[-number] = [int(digit) for digit in row]
    data = written((W, H), bits, pixels, compression=RLE4 if bits == 4 else RLE8, palette=PALETTE[: 4 << bits])
    np.testing.assert_array_equal(rgba(data), opaque(COLOURS[expected]))


def test_run_lengths_of_whole_colours_are_unrolled() -> None:
    pixels = b"\7\1\2\3\0\0" * 4 + b"\0\3\1\2\3\4\5\6\7\x08\x09\0\4\5\4\3\0\1"
    found = rgba(written((W, H), 24, pixels, header=64, compression=4))
    assert (found[1:, :, :3] == (3, 2, 1)).all()
    assert found[0, :, :3].tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7], *[[3, 4, 5]] * 4]


def test_run_lengths_that_end_before_the_picture_are_refused() -> None:
    whole = runs(NUMBERS[8], 8)
    for cut in (3, 4, 5, 16, 40, len(whole)):
        with pytest.raises(errors.UnreadablePicture):
            rgba(written((W, H), 8, whole[: len(whole) - cut], compression=RLE8, palette=PALETTE))
    for pixels in (b"\0\2\1", b"\0\x09abc", b""):
        with pytest.raises(errors.UnreadablePicture):
            rgba(written((W, H), 8, pixels, compression=RLE8, palette=PALETTE))
    for cut in (1, 2, 3):
        with pytest.raises(errors.UnreadablePicture):
            rgba(written((W, H), 24, (b"\7\1\2\3\0\0" * 5)[: 28 - cut], header=64, compression=4))
    with pytest.raises(errors.UnsupportedPicture, match="more than 1,000,000 runs"):
        rgba(written((W, H), 8, b"\1\1" * 1_000_001, compression=RLE8, palette=PALETTE))


def test_only_what_fills_the_last_row_may_be_missing() -> None:
    data = written((W, H), 24, packed(NUMBERS[24], 24))
    for cut in range(4):
        np.testing.assert_array_equal(rgba(data[: len(data) - cut]), rgba(data))
    for cut in (4, 24, 100, len(data) - 20):
        with pytest.raises(errors.UnreadablePicture, match="damaged or cut short"):
            rgba(data[: len(data) - cut])


def test_what_is_not_read_is_named() -> None:
    zeros = bytes(W * H * 8)
    for data, name in (
        (written((W, H), 0, b"\x89PNG\r\n\x1a\n", compression=PNG), "holds a PNG"),
        (written((W, H), 0, b"\xff\xd8\xff", compression=JPEG), "holds a JPEG"),
        (written((W, H), 64, zeros), "64 bits"),
        (written((W, H), 3, zeros), "3 bits"),
        (written((W, H), 8, zeros, compression=RLE4, palette=PALETTE), "8 bits"),
        (written((W, H), 1, zeros, header=64, compression=3), "as a fax"),
        (written((W, H), 24, zeros, compression=99), r"compression \(99\)"),
        (written((W, H), 32, zeros, compression=BITFIELDS, masks=(0xF0F, 0xFF0000, 0)), "gaps"),
        (written((W, H), 24, zeros, header=40).replace(b"\x28\0\0\0", b"\x29\0\0\0", 1), "header of 41 bytes"),
    ):
        with pytest.raises(errors.UnsupportedPicture, match=name):
            rgba(data)


def test_a_header_without_size_is_damaged_and_a_great_one_too_large() -> None:
    for size in ((0, H), (W, 0), (-W, H)):
        with pytest.raises(errors.UnreadablePicture, match="no width or no height"):
            rgba(written(size, 24, b""))
    for size in ((40_000, 40_000), (W, -(2**31))):
        for compression, bits in ((RAW, 24), (RLE8, 8)):
            with pytest.raises(errors.PictureTooLarge):
                media.decode(written(size, bits, b"", compression=compression), max_pixels=MOST)
    with pytest.raises(errors.UnreadablePicture):
        media.measure(b"BM" + bytes(10), max_pixels=MOST)


def test_a_profile_is_handed_on() -> None:
    data = bytearray(written((W, H), 24, packed(NUMBERS[24], 24), header=124))
    data[14 + 56 : 14 + 60] = b"DEBM"
    data[14 + 112 : 14 + 120] = (len(data) - 14).to_bytes(4, "little") + (500).to_bytes(4, "little")
    assert read(bytes(data)).profile is None  # it is not there
    assert read(bytes(data) + b"p" * 500).profile == b"p" * 500


def test_damaged_files_raise_nothing_but_what_rejects_them() -> None:
    chance = random.Random(6)
    files = [
        written((W, H), 8, runs(NUMBERS[8], 8), compression=RLE8, palette=PALETTE),
        written((W, H), 4, runs(NUMBERS[4], 4), compression=RLE4, palette=PALETTE[:64]),
        written(
            (W, H), 16, packed(NUMBERS[16], 16), header=124, compression=BITFIELDS, masks=(0xF00, 0xF0, 0xF, 0xF000)
        ),
        in_format(Image.linear_gradient("L").resize((40, 30)).convert("RGB"), "BMP"),
    ]
    fates = set()
    for number in range(1200):
        data = bytearray(files[number % len(files)])
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(2, 80)] = chance.randrange(256)
            data[chance.randrange(2, len(data))] = chance.randrange(256)
        if number % 7 == 0:
            del data[chance.randrange(2, len(data)) :]
        try:
            media.decode(bytes(data), max_pixels=MOST)
            fates.add("read")
        except errors.MediaRejected as exc:
            fates.add(type(exc).__name__)
    assert {"read", "UnreadablePicture", "UnsupportedPicture", "PictureTooLarge"} <= fates
