"""PNG: every kind against libvips and arithmetic, and the chunks that must not cost a picture."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from export.proof.profiles import grey_profile
from server import errors
from server.preprocessing import cicp, media, png, png_chunks
from server.preprocessing.formats import PNG
from server.preprocessing.stored import Bounds, Stored
from tests.support.pictures import in_format
from tests.support.pngs import (
    GREY,
    GREY_ALPHA,
    INDEXED,
    KINDS,
    RGB,
    RGB_ALPHA,
    SAMPLES,
    SIGNATURE,
    chunk,
    header,
    pixels,
)
from tests.support.pngs import png as written

MOST = 1_000_000
Array = NDArray[np.uint8]


def read(data: bytes) -> Stored:
    return png.read(data, PNG, Bounds(MOST))


def rgba(image: Image.Image) -> Array:
    """As straight RGBA; grey of 16 bits as `media` rounds it."""
    if image.mode == "I;16":
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    return np.asarray(image.convert("RGBA"))


def by_vips(data: bytes, colour: int) -> Array:
    """The same by libvips, its 16 bits brought to 8 as is expected of us: grey rounded, the rest cut."""
    image = pyvips.Image.new_from_buffer(data, "")
    samples = image.numpy().reshape(image.height, image.width, image.bands)
    if samples.dtype == np.uint16:
        samples = np.rint(samples / 257) if colour == GREY else samples >> 8
    found: Array = samples.astype(np.uint8)
    if found.shape[2] < 3:
        found = np.concatenate([found[..., :1].repeat(3, 2), found[..., 1:]], axis=2)
    if found.shape[2] == 3:
        found = np.concatenate([found, np.full((*found.shape[:2], 1), 255, np.uint8)], axis=2)
    return found


def noise(colour: int, bits: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.int64]:
    shape = (size[1], size[0], SAMPLES[colour])
    return np.random.default_rng([seed, colour, bits]).integers(0, 1 << bits, shape)


PALETTE = np.random.default_rng(8).integers(0, 256, (256, 3), np.uint8)
ALPHAS = np.random.default_rng(9).integers(0, 256, 256, np.uint8)


def expected(samples: NDArray[np.int64], colour: int, bits: int, key: Any) -> Array:
    """Straight RGBA by the specification's arithmetic."""
    most = (1 << bits) - 1
    if colour == INDEXED:
        alphas = ALPHAS if key is not None else np.full(256, 255)
        return np.concatenate([PALETTE, alphas[:, None]], axis=1).astype(np.uint8)[samples[..., 0]]
    eight = samples >> 8 if bits == 16 and colour != GREY else np.rint(samples * 255 / most)
    colours = eight[..., :1].repeat(3, 2) if colour in (GREY, GREY_ALPHA) else eight[..., :3]
    alpha = eight[..., -1:] if colour in (GREY_ALPHA, RGB_ALPHA) else np.full_like(eight[..., :1], 255)
    if key is not None:
        alpha = np.where((samples == key).all(axis=2, keepdims=True), 0, 255)
    return np.concatenate([colours, alpha], axis=2).astype(np.uint8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_every_kind_is_read_as_by_libvips_and_by_arithmetic(
    colour: int, bits: int, transparent: bool, interlaced: bool
) -> None:
    if transparent and colour in (GREY_ALPHA, RGB_ALPHA):
        return  # they may have no tRNS
    for size in ((29, 19), (1, 1), (8, 8), (3, 1), (1, 3), (5, 2), (9, 6)):
        samples = noise(colour, bits, size)
        if bits == 16 and size[0] > 8:
            # Neighbours of the transparent colour, which agree with it in their upper 8 bits or their lower ones.
            samples[3:9] = samples[0, 0]
            samples[4, :, 0] ^= 1
            samples[5, :, -1] ^= 1 << 8
        before, key = [], None
        if colour == INDEXED:
            before.append(chunk(b"PLTE", PALETTE[: 1 << bits].tobytes()))
        if transparent:
            key = samples[0, 0]
            raw = ALPHAS[: 1 << bits].tobytes() if colour == INDEXED else key.astype(">u2").tobytes()
            before.append(chunk(b"tRNS", raw))
        data = written(samples, colour, bits, interlaced=interlaced, before=before)
        stored = read(data)
        found = rgba(stored.image)
        assert stored.size == stored.image.size == size
        assert not (transparent and colour != INDEXED) or (found[..., 3] == 0).any()
        np.testing.assert_array_equal(found, expected(samples, colour, bits, key))
        np.testing.assert_array_equal(found, by_vips(data, colour))


PICTURE = noise(RGB, 8, (24, 16))
STREAM = zlib.compress(pixels(PICTURE, 8))
CLEAN = written(PICTURE, RGB, 8)


def shown(data: bytes) -> Array:
    return np.asarray(media.decode(data, max_pixels=MOST).image)


def same(data: bytes) -> bool:
    return bool(np.array_equal(shown(data), PICTURE))


def keyed(key: bytes, colour: int = RGB, bits: int = 8, **options: Any) -> Array:
    samples = options.pop("samples", PICTURE)
    return np.asarray(rgba(read(written(samples, colour, bits, before=[chunk(b"tRNS", key)], **options)).image))[..., 3]


def test_only_the_bits_that_a_sample_has_count_in_a_transparent_colour() -> None:
    key = PICTURE[2, 3]
    clear = (key == PICTURE).all(axis=2)
    np.testing.assert_array_equal(keyed((key + 512).astype(">u2").tobytes()) == 0, clear)
    grey = noise(GREY, 2, (24, 16))
    np.testing.assert_array_equal(keyed(b"\x7f\xfe", GREY, 2, samples=grey) == 0, grey[..., 0] == 2)


def test_a_transparent_colour_that_is_longer_than_it_must_be_counts_and_a_shorter_one_does_not() -> None:
    key = PICTURE[2, 3].astype(">u2").tobytes()
    assert keyed(key + b"more")[2, 3] == 0
    assert (keyed(key[:5]) == 255).all()


def test_transparency_counts_once_in_its_place_and_with_a_right_checksum() -> None:
    first, second = (PICTURE[row, 3].astype(">u2").tobytes() for row in (2, 5))
    twice = rgba(read(written(PICTURE, RGB, 8, before=[chunk(b"tRNS", first), chunk(b"tRNS", second)])).image)
    assert (twice[2, 3, 3], twice[5, 3, 3]) == (0, 255)
    # As Chromium does with each of them.
    assert same(written(PICTURE, RGB, 8, behind=[chunk(b"tRNS", first)]))
    assert same(written(PICTURE, RGB, 8, before=[chunk(b"tRNS", first, crc=1)]))
    grey = noise(GREY_ALPHA, 8, (24, 16))
    plain = written(grey, GREY_ALPHA, 8)
    np.testing.assert_array_equal(shown(written(grey, GREY_ALPHA, 8, before=[chunk(b"tRNS", b"\0\1")])), shown(plain))


def test_transparency_of_more_colours_than_the_palette_has_is_cut_to_it() -> None:
    samples = noise(INDEXED, 2, (24, 16))
    before = [chunk(b"PLTE", PALETTE[:4].tobytes()), chunk(b"tRNS", ALPHAS[:9].tobytes())]
    found = rgba(read(written(samples, INDEXED, 2, before=before)).image)
    np.testing.assert_array_equal(found, expected(samples, INDEXED, 2, 0))
    # Before the palette that it is for, it counts as absent: with libpng, too.
    found = rgba(read(written(samples, INDEXED, 2, before=before[::-1])).image)
    np.testing.assert_array_equal(found, expected(samples, INDEXED, 2, None))


def test_numbers_beyond_the_palette_are_black() -> None:
    samples = noise(INDEXED, 2, (24, 16))
    before = [chunk(b"PLTE", PALETTE[:2].tobytes()), chunk(b"tRNS", b"\0\0")]
    data = written(samples, INDEXED, 2, before=before)
    found = rgba(read(data).image)
    assert (found[samples[..., 0] >= 2] == (0, 0, 0, 255)).all()
    np.testing.assert_array_equal(found, by_vips(data, INDEXED))


def test_the_first_picture_of_an_animation_is_the_default_one() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    data = in_format(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    assert shown(data)[4, 4].tolist() == [255, 0, 0]


# --- what nobody reads -----------------------------------------------------------------------------------------------

BEFORE_PIXELS = [
    chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1_200_000))),
    chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(9_000_000))),
    chunk(b"iCCP", b"p\0\0damaged"),
    chunk(b"iCCP", b"p\0\7" + zlib.compress(bytes(100))),
    chunk(b"iCCP", b""),
    chunk(b"iCCP", b"no name"),
    chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100)), crc=0),
    chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
    chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300_000))) * 400,
    chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3_000_000))),
    chunk(b"zTXt", b"Raw profile type APP1\0\0damaged"),
    chunk(b"zTXt", b"Raw profile type APP1"),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 10\nzz\n"),
    chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 10\n\xff\xfe\n"),
    chunk(b"tEXt", b"no keyword ends"),
    chunk(b"tEXt", b"Comment\0wrong", crc=7),
    chunk(b"tEXt", b"\xff" * 200),
    chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0damaged"),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0en"),
    chunk(b"iTXt", b""),
    chunk(b"eXIf", b""),
    chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    chunk(b"eXIf", b"Exif\0\0MM\0*"),
    *(chunk(kind, bytes(length)) for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"bKGD") for length in (0, 1, 3)),
    *(chunk(kind, bytes(length)) for kind in (b"tIME", b"sBIT", b"hIST", b"sPLT", b"cICP") for length in (0, 1, 7)),
    *(chunk(kind, bytes(length)) for kind in (b"acTL", b"fcTL", b"oFFs", b"pCAL", b"sTER") for length in (0, 3, 40)),
    *(chunk(kind, b"\xff" * 40) for kind in (b"acTL", b"fcTL", b"sRGB", b"gAMA", b"mDCv", b"cLLi")),
    chunk(b"acTL", b"\0\0\0\5\0\0\0\0") * 2,
    chunk(b"fcTL", struct.pack(">IIIIIHHBB", 4, 999, 999, 0, 0, 0, 0, 9, 9)),
    chunk(b"abCd", b"\0" * 100_000),
    chunk(b"vpAg", b"", crc=3),
    chunk(b"PLTE", b"\1\2\3\4"),
    chunk(b"PLTE", PALETTE.tobytes(), crc=3),
    chunk(b"tRNS", b"\0"),
]


@pytest.mark.parametrize("number", range(len(BEFORE_PIXELS)))
def test_no_chunk_that_decides_no_pixel_costs_the_picture(number: int) -> None:
    odd = BEFORE_PIXELS[number]
    assert same(written(PICTURE, RGB, 8, before=[odd]))
    assert same(written(PICTURE, RGB, 8, before=[odd, odd]))
    assert same(written(PICTURE, RGB, 8, behind=[odd]))
    assert same(written(PICTURE, RGB, 8, behind=[odd], end=b""))
    assert same(written(PICTURE, RGB, 8) + odd)


def test_hundreds_of_mixtures_of_odd_chunks_leave_the_pixels_as_they_are() -> None:
    chance = random.Random(4)
    kinds = [b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"acTL", b"fcTL", b"fdAT"]
    starts = [
        b"",
        b"Comment\0",
        b"Comment\0\0x\x9c",
        b"XML:com.adobe.xmp\0\1\0\0\0x\x9c",
        b"p\0\0x\x9c",
        b"MM\0*\0\0\0\x08",
    ]

    def odd() -> bytes:
        content = chance.choice(starts) + chance.randbytes(chance.choice([0, 1, 4, 13, 300]))
        wrong = chance.choice([None, None, chance.getrandbits(32)])
        return chunk(chance.choice(kinds), content, crc=wrong)

    for _ in range(300):
        before, behind = ([odd() for _ in range(chance.randrange(4))] for _ in range(2))
        data = written(PICTURE, RGB, 8, before=before, behind=behind, end=chance.choice([b"", chunk(b"IEND")]))
        assert read(data).orientation == 1
        assert same(data)


def test_what_follows_the_end_does_not_matter() -> None:
    for behind in (b"x", bytes(5), CLEAN, chunk(b"IHDR", b"damaged"), chunk(b"IDAT", b"more"), b"\xff" * 5000):
        assert same(CLEAN + behind)


def test_many_small_parts_make_the_picture() -> None:
    parts = [chunk(b"IDAT", STREAM[at : at + 1]) for at in range(len(STREAM))]
    assert same(written(PICTURE, RGB, 8, idats=parts))
    assert same(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT")] * 50_000 + parts))
    assert same(written(PICTURE, RGB, 8, idats=[parts[0], chunk(b"tEXt", b"a\0b"), *parts[1:]]))
    with pytest.raises(errors.UnsupportedPicture, match="more than 100,000 chunks"):
        shown(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT")] * 100_000 + parts))


# --- whole, damaged, cut short ---------------------------------------------------------------------------------------


def test_a_png_without_its_end_is_read_where_every_row_is_there() -> None:
    # IEND, the CRC of the pixels, and the checksum at the end of their stream.
    for cut in range(12 + 4 + 4 + 1):
        assert same(CLEAN[: len(CLEAN) - cut])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("dark", [False, True])
def test_a_png_that_lacks_rows_is_refused(interlaced: bool, dark: bool) -> None:
    samples = PICTURE // 2 + 64
    samples[-4:] = 0 if dark else samples[-4:]
    whole = pixels(samples, 8, interlaced=interlaced)

    def fate(stream: bytes, **options: Any) -> bool:
        data = written(samples, RGB, 8, interlaced=interlaced, idats=[chunk(b"IDAT", stream)], **options)
        try:
            return np.array_equal(shown(data), samples)
        except errors.UnreadablePicture:
            return False

    assert fate(zlib.compress(whole))
    assert fate(zlib.compress(whole + b"and more than it needs"))
    # Cut anywhere, and ended as if that were all.
    for length in (0, 1, 73, 74, len(whole) // 2, len(whole) - 74, len(whole) - 73, len(whole) - 1):
        assert not fate(zlib.compress(whole[:length]))
        assert not fate(zlib.compress(whole, 0)[: length + 7])
    data = written(samples, RGB, 8, interlaced=interlaced, idats=[chunk(b"IDAT", zlib.compress(whole, 0))])
    for kept in (0.1, 0.5, 0.9, 0.97):
        with pytest.raises(errors.UnreadablePicture, match="damaged or cut short"):
            shown(data[: int(len(data) * kept)])


def test_an_interlaced_png_of_one_row_or_column_must_be_whole_too() -> None:
    for size in ((24, 1), (1, 24), (1, 1), (2, 1)):
        samples = noise(RGB, 8, size)
        whole = pixels(samples, 8, interlaced=True)
        for length in range(len(whole) + 1):
            idats = [chunk(b"IDAT", zlib.compress(whole[:length]))]
            data = written(samples, RGB, 8, interlaced=True, idats=idats)
            if length == len(whole):
                np.testing.assert_array_equal(shown(data), samples)
            else:
                with pytest.raises(errors.UnreadablePicture):
                    shown(data)


def test_one_of_the_two_checksums_of_the_pixels_must_be_right() -> None:
    damaged = STREAM[:-4] + bytes(4)
    assert same(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT", STREAM, crc=1)]))
    assert same(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT", damaged)]))
    with pytest.raises(errors.UnreadablePicture):
        shown(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT", damaged, crc=1)]))
    # Without compression a damaged byte is seen by nothing else.
    stored = bytearray(zlib.compress(pixels(PICTURE, 8), 0))
    crc = zlib.crc32(b"IDAT" + stored)
    stored[100] ^= 255
    with pytest.raises(errors.UnreadablePicture):
        shown(written(PICTURE, RGB, 8, idats=[chunk(b"IDAT", bytes(stored), crc=crc)]))


@pytest.mark.parametrize(("colour", "bits"), [kind for kind in KINDS if kind[0] != INDEXED])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_wrong_checksum_of_the_stream_costs_no_kind_of_picture(colour: int, bits: int, transparent: bool) -> None:
    samples = noise(colour, bits, (24, 16))
    key = samples[3, 4] if transparent and colour in (GREY, RGB) else None
    before = [] if key is None else [chunk(b"tRNS", key.astype(">u2").tobytes())]
    wrong = zlib.compress(pixels(samples, bits))[:-4] + b"sums"
    for idats in ([chunk(b"IDAT", wrong)], [chunk(b"IDAT", wrong[:-4])], [chunk(b"IDAT", wrong[:-4] + b"su")]):
        found = read(written(samples, colour, bits, before=before, idats=idats)).image
        np.testing.assert_array_equal(rgba(found), expected(samples, colour, bits, key))


@pytest.mark.parametrize(("colour", "bits"), [(GREY, 4), (GREY, 8), (GREY, 16), (RGB, 8), (RGB, 16)])
def test_a_transparent_colour_is_found_in_every_strip(colour: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_PIXELS_AT_ONCE", 24 * 5)
    samples = noise(colour, bits, (24, 16))
    key = samples[0, 0].copy()
    samples[::3, ::2] = key
    before = [chunk(b"tRNS", key.astype(">u2").tobytes())]
    np.testing.assert_array_equal(
        rgba(read(written(samples, colour, bits, before=before)).image), expected(samples, colour, bits, key)
    )


def test_kinds_that_take_long_to_decode_are_bounded_by_their_bytes() -> None:
    def most(colour: int, bits: int, *before: bytes, crc: int | None = None) -> int:
        """The least bound on pixels at which 24 x 16 of them are read."""
        samples = 0 * noise(colour, bits, (24, 16))
        idats = [chunk(b"IDAT", zlib.compress(pixels(samples, bits)), crc=crc)]
        data = written(samples, colour, bits, before=before, idats=idats)
        for bound in range(24 * 16, 3 * 24 * 16):
            with contextlib.suppress(errors.UnsupportedPicture):
                png.read(data, PNG, Bounds(bound))
                return bound
        raise AssertionError

    key = chunk(b"tRNS", bytes(6))
    usual = 24 * 16
    # Bytes a pixel, times how often they are inflated, within 6.
    assert most(RGB, 8, key) == most(RGB_ALPHA, 8) == most(RGB, 16) == most(GREY, 16, key) == usual
    assert most(RGB, 8, crc=1) == usual
    assert most(RGB_ALPHA, 16) == usual * 8 // 6
    assert most(RGB, 16, key) == most(RGB, 16, crc=1) == usual * 12 // 6
    wide = written(noise(RGB_ALPHA, 16, (24, 16)), RGB_ALPHA, 16)
    with pytest.raises(errors.UnsupportedPicture, match=r"24 x 16 pixels .* at most 288 pixels"):
        png.read(wide, PNG, Bounds(usual))


def test_a_damaged_header_or_palette_is_refused() -> None:
    samples = noise(INDEXED, 2, (24, 16))
    palette = PALETTE[:4].tobytes()
    for before in (
        [],
        [chunk(b"PLTE")],
        [chunk(b"PLTE", palette, crc=1)],
        [chunk(b"PLTE", palette)] * 2,
        [chunk(b"PLTE", palette * 65)],
    ):
        with pytest.raises(errors.UnreadablePicture, match="palette"):
            shown(written(samples, INDEXED, 2, before=before))
    for wrong in (
        header(0, 16, RGB, 8),
        header(24, 0, RGB, 8),
        header(24, 16, RGB, 4),
        header(24, 16, 1, 8),
        header(24, 16, INDEXED, 16),
        header(24, 16, RGB, 8, 2),
        header(24, 16, RGB, 8)[:-4] + bytes(4),
        chunk(b"IHDR", header(24, 16, RGB, 8)[8:20]),
        header(24, 16, RGB, 8) * 2,
    ):
        for reading in (shown, lambda data: media.measure(data, max_pixels=MOST)):
            if reading is shown or wrong != header(24, 16, RGB, 8) * 2:
                with pytest.raises(errors.UnreadablePicture, match="header"):
                    reading(SIGNATURE + wrong + CLEAN[33:])


def test_kinds_that_are_not_read_are_named() -> None:
    with pytest.raises(errors.UnsupportedPicture, match="Xcode"):
        shown(SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\2") + CLEAN[8:])
    with pytest.raises(errors.UnsupportedPicture, match="ABCD"):
        shown(written(PICTURE, RGB, 8, before=[chunk(b"ABCD", b"x")]))


def test_a_bomb_is_refused_by_its_header_and_never_inflates_beyond_its_pixels() -> None:
    with pytest.raises(errors.PictureTooLarge):
        shown(SIGNATURE + header(30_000, 30_000, RGB, 8) + chunk(b"IDAT", b"nothing of it is read"))
    endless = zlib.compress(bytes(60_000_000))
    dark = written(0 * PICTURE, RGB, 8, idats=[chunk(b"IDAT", endless)])
    assert not shown(dark).any()
    with pytest.raises(errors.UnreadablePicture):
        shown(written(0 * PICTURE, RGB, 8, idats=[chunk(b"IDAT", endless, crc=1)]))


def test_damaged_files_raise_nothing_but_what_rejects_them() -> None:
    chance = random.Random(6)
    samples = noise(INDEXED, 4, (24, 16))
    before = [chunk(b"PLTE", PALETTE[:16].tobytes()), chunk(b"tRNS", ALPHAS[:5].tobytes()), BEFORE_PIXELS[-6]]
    files = [
        CLEAN,
        written(samples, INDEXED, 4, before=before, interlaced=True),
        written(noise(GREY, 16, (24, 16)), GREY, 16, before=[chunk(b"tRNS", b"\0\1")]),
        in_format(Image.new("RGB", (9, 9)), "PNG", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]),
    ]
    fates = set()
    for number in range(1200):
        data = bytearray(files[number % len(files)])
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(8, len(data))] = chance.randrange(256)
        if number % 7 == 0:
            del data[chance.randrange(8, len(data)) :]
        try:
            media.decode(bytes(data), max_pixels=MOST)
            fates.add("read")
        except errors.MediaRejected as exc:
            fates.add(type(exc).__name__)
    assert {"read", "UnreadablePicture", "UnsupportedPicture"} <= fates


# --- orientation and colour ------------------------------------------------------------------------------------------


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def digits(name: bytes, block: bytes) -> bytes:
    lines = [block[at : at + 36].hex().encode() for at in range(0, len(block), 36)]
    return b"\n%s\n%8d\n%s\n" % (name, len(block), b"\n".join(lines))


ORIENTED = {
    "eXIf": chunk(b"eXIf", exif(6)[6:]),
    "eXIf with a prefix": chunk(b"eXIf", exif(6)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)),
    "XMP in a language": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0x-default\0packet\0" + xmp(6)),
    "compressed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6))),
    "raw EXIF": chunk(b"tEXt", b"Raw profile type exif\0" + digits(b"exif", exif(6))),
    "compressed raw EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits(b"exif", exif(6)))),
    "raw APP1": chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(digits(b"generic profile", exif(6)))),
    "raw APP1 of XMP": chunk(
        b"tEXt", b"Raw profile type APP1\0" + digits(b"APP1", b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))
    ),
    "raw XMP": chunk(b"tEXt", b"Raw profile type xmp\0" + digits(b"xmp", xmp(6))),
}


@pytest.mark.parametrize("place", ORIENTED)
def test_the_picture_is_turned_by_whatever_says_so(place: str) -> None:
    upright = np.rot90(PICTURE, -1)
    oriented = ORIENTED[place]
    np.testing.assert_array_equal(shown(written(PICTURE, RGB, 8, before=[oriented])), upright)
    np.testing.assert_array_equal(shown(written(PICTURE, RGB, 8, behind=[oriented])), upright)
    # The first one of a kind counts, and not one that is damaged.
    broken = oriented[:-4] + bytes(4)
    np.testing.assert_array_equal(shown(written(PICTURE, RGB, 8, before=[broken, oriented, oriented])), upright)


def test_the_head_of_digits_in_a_text_is_short() -> None:
    whole = digits(b"exif", exif(6))

    def turned(text: bytes) -> int:
        return read(written(PICTURE, RGB, 8, before=[chunk(b"tEXt", b"Raw profile type exif\0" + text)])).orientation

    assert turned(whole) == turned(b" \n" * 50 + whole) == 6
    assert turned(b" \n" * 100 + whole) == turned(b" \n" * 500_000) == turned(b"a" * 500_000) == 1
    assert turned(b"\nexif\n" + b" \n" * 500_000) == turned(b"\nexif\nfew\n" + exif(6).hex().encode()) == 1
    assert turned(b"") == turned(b"\nexif") == turned(b"\nexif\n 26") == turned(b"\nexif\n 26\n") == 1


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iCCP", b"a name\0\0"),
    ],
)
def test_of_many_texts_or_profiles_that_are_damaged_one_is_inflated(
    kind: bytes, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = chunk(kind, head + b"no stream of zlib")
    inflated = []

    def counted(packed: memoryview, most: int, *, whole: bool = False) -> bytes | None:
        inflated.append(len(packed))
        return unpacked(packed, most, whole=whole)

    unpacked = png_chunks.unpacked
    monkeypatch.setattr(png_chunks, "unpacked", counted)
    assert same(written(PICTURE, RGB, 8, before=[damaged] * 10_000))
    assert len(inflated) == 1


def test_exif_goes_before_xmp() -> None:
    first, second = ORIENTED["XMP"], chunk(b"eXIf", exif(3)[6:])
    for before in ([first, second], [second, first]):
        assert read(written(PICTURE, RGB, 8, before=before)).orientation == 3
    silent = chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    assert read(written(PICTURE, RGB, 8, before=[silent, first])).orientation == 6


def test_the_profile_is_handed_on_unless_it_is_too_large_damaged_or_outranked() -> None:
    profile = np.random.default_rng(1).bytes(3000)

    def kept(*before: bytes) -> bytes | None:
        return read(written(PICTURE, RGB, 8, before=before)).profile

    packed = chunk(b"iCCP", b"some name\0\0" + zlib.compress(profile))
    assert kept(packed) == profile
    assert kept(packed, packed) == profile
    assert kept(chunk(b"sRGB", b"\0"), chunk(b"gAMA", b"\0\0\xb1\x8f"), packed) == profile
    # cICP stands above iCCP: it says Display P3 here; then sRGB; then PQ, which no profile can say.
    assert (
        kept(packed, chunk(b"cICP", b"\x0c\x0d\0\1")) == kept(chunk(b"cICP", b"\x0c\x0d\0\1")) == cicp.profile(12, 13)
    )
    assert kept(packed, chunk(b"cICP", b"\1\x0d\0\1")) is None
    assert kept(packed, chunk(b"cICP", b"\x09\x10\0\1")) == profile
    assert kept(packed, chunk(b"cICP", b"\x0c\x0d")) == profile
    assert kept(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(4 << 20)))) == bytes(4 << 20)
    for wrong in (
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes((4 << 20) + 1))),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(profile)[:-6]),
        chunk(b"iCCP", b"p\0\1" + zlib.compress(profile)),
        chunk(b"iCCP", b"p" * 90 + b"\0\0" + zlib.compress(profile)),
        chunk(b"iCCP", b"p\0\0"),
    ):
        assert kept(wrong) is None


def test_what_pillow_reads_is_read_the_same() -> None:
    chance = np.random.default_rng(3)
    image = Image.fromarray(chance.integers(0, 256, (31, 23, 4), np.uint8))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "for readers")
        data = in_format(image.convert(mode), "PNG", pnginfo=info, optimize=True)
        stored = read(data).image
        by_pillow = Image.open(io.BytesIO(data))
        assert (stored.mode, stored.tobytes()) == (by_pillow.mode, by_pillow.tobytes())
        assert stored.convert("RGBA").tobytes() == by_pillow.convert("RGBA").tobytes()


def test_grey_with_alpha_of_16_bits_is_converted_by_its_profile_as_that_of_8_bits() -> None:
    levels = np.tile(np.arange(0, 256, 4), (8, 1))
    alphas = np.full_like(levels, 255)
    alphas[:4] = 90
    eight = np.stack([levels, alphas], axis=-1)
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(grey_profile("gamma", 1.8)))
    found = []
    for samples, bits in ((eight, 8), (eight * 257, 16)):
        data = written(samples, GREY_ALPHA, bits, before=[profile])
        stored = read(data)
        assert stored.image.mode == "LA"
        np.testing.assert_array_equal(np.asarray(stored.image), eight)
        found.append(np.asarray(media.decode(data, max_pixels=MOST).in_srgb()))
    np.testing.assert_array_equal(found[0], found[1])
    # sRGB's curve of the light that a gamma of 1.8 means; on white, where it is opaque.
    light = (levels[4:] / 255.0) ** 1.8
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
    assert np.abs(found[1][4:] - np.rint(255 * encoded)[..., None]).max() <= 2
