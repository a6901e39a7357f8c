"""Every layout of samples that is read: against the numbers that were written, and against libvips.

libvips is the second decoder wherever it reads the file: it proves that the file is what its tags say. What it refuses
(samples that fill no bytes, but for 1-, 2- and 4-bit grey) or is known to misread is proved by arithmetic alone.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnsupportedPicture
from server.preprocessing import tiff, tiff_bits, tiff_samples
from server.preprocessing.formats import TIFF
from server.preprocessing.stored import Bounds
from tests.support import tiffs
from tests.support.tiffs import (
    CMYK,
    DEFLATE,
    GREY,
    GREY_WHITE_ZERO,
    LAB,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    PALETTE,
    RGB,
    YCBCR,
)

Array = NDArray[Any]

COLOURS = {GREY_WHITE_ZERO: 1, GREY: 1, RGB: 3, CMYK: 4}
HEIGHT, WIDTH = 21, 27
# One of each compression, and of each way to cut a picture; sides that divide evenly by none of them.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"rows": 7},
    {"compression": LZW, "rows": 5},
    {"compression": PACKBITS, "rows": 1},
    {"compression": DEFLATE, "tile": (16, 16)},
    {"compression": OLD_DEFLATE, "tile": (48, 32)},
    {"bits_reversed": True},
    {"bits_reversed": True, "compression": LZW},
)
PREDICTED: tuple[dict[str, Any], ...] = (
    {"compression": DEFLATE, "predictor": 2, "rows": 6},
    {"compression": LZW, "predictor": 2, "tile": (16, 16)},
)


def noise(bits: int, samples: int) -> Array:
    """Seeded by its shape; black, white and what lies beside them are among it."""
    numbers = np.random.default_rng(bits * 16 + samples).integers(0, 1 << bits, (HEIGHT, WIDTH, samples))
    most = (1 << bits) - 1
    for sample in range(samples):
        numbers[0, :4, sample] = np.roll([0, most, 1 if most > 1 else 0, most - 1], sample)
    return numbers.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def read(data: bytes) -> Array:
    """[height, width, samples] of the image that the reader gives."""
    image = tiff.read(data, TIFF, Bounds(10**6)).image
    return np.asarray(image).reshape(image.height, image.width, -1)


def by_vips(data: bytes) -> Array | None:
    """The samples as libvips reads them; None where it refuses the file."""
    pyvips = pytest.importorskip("pyvips")
    try:
        found: Array = pyvips.Image.new_from_buffer(data, "", fail_on="error").numpy()
    except pyvips.Error:
        return None
    return found.reshape(*found.shape[:2], -1)


def expected(samples: Array, bits: int, photometric: int, extra: Sequence[int] | None) -> Array:
    """8 bits by arithmetic: v * 255 / (2^bits - 1), rounded; 16-bit colours keep their upper byte."""
    most = (1 << bits) - 1
    wide = samples.astype(np.float64)
    eight = np.floor(wide * 255 / most + 0.5).astype(int)
    if bits == 16 and photometric in (RGB, CMYK):
        eight = samples.astype(int) // 256
    if photometric == GREY_WHITE_ZERO:
        eight[..., 0] = 255 - eight[..., 0]
    colours = COLOURS[photometric]
    colour, kinds = eight[..., :colours], [kind for kind in extra or () if kind]
    if not extra or not kinds:
        return colour
    at = colours + list(extra).index(kinds[0])
    alpha = eight[..., at : at + 1]
    if kinds[0] == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            colour = np.where(alpha == 0, 0, np.minimum(np.floor(colour * 255 / alpha), 255)).astype(int)
    if photometric == CMYK:
        colour = np.asarray(Image.fromarray(colour.astype(np.uint8), "CMYK").convert("RGB"))
    return np.concatenate((colour, alpha), axis=2)


def layouts(photometric: int, bits: int) -> Iterator[tuple[dict[str, Any], str]]:
    """All of them for the usual depths; for the others, those in which they could differ."""
    ways = WAYS + PREDICTED if bits in (8, 16) else WAYS if bits in (1, 4, 12) else WAYS[3:5]
    extras = (None, (0,), (1,), (2,), (2, 0), (0, 2), (0, 1), (0, 0, 2))
    orders = "<>" if bits in (12, 16) else "<"
    for extra, planar, order, way in itertools.product(extras, (False, True), orders, ways):
        if len(extra or ()) > 1 and way not in ways[-2:]:
            continue
        if not planar or COLOURS[photometric] + len(extra or ()) > 1:
            yield {"bits": bits, "photometric": photometric, "extra": extra, "planar": planar, **way}, order


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("photometric", COLOURS, ids=["white is zero", "grey", "RGB", "CMYK"])
def test_every_layout_of_whole_numbers_is_read(photometric: int, bits: int) -> None:
    for layout, order in layouts(photometric, bits):
        samples = noise(bits, COLOURS[photometric] + len(layout["extra"] or ()))
        data = tiffs.written(tiffs.page(samples, order=order, **layout), order=order)
        right = expected(samples, bits, photometric, layout["extra"])
        np.testing.assert_array_equal(read(data), right, err_msg=f"{layout} {order}")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", COLOURS, ids=["white is zero", "grey", "RGB", "CMYK"])
def test_libvips_finds_the_same_samples_in_the_same_files(photometric: int, bits: int) -> None:
    """So the files of these tests are what they say. Alpha that is associated, libvips divides out in its own way."""
    agreed = 0
    for layout, order in layouts(photometric, bits):
        extra, planar = layout["extra"], layout["planar"]
        if (extra and 1 in extra) or (planar and COLOURS[photometric] == 1):
            continue  # libvips reads a grey plane with another one beside it as one row over and over
        samples = noise(bits, COLOURS[photometric] + len(extra or ()))
        found = by_vips(tiffs.written(tiffs.page(samples, order=order, **layout), order=order))
        if found is None:
            continue
        full = 255 if bits <= 8 else 65535
        right = samples.astype(int) * (full // ((1 << bits) - 1))
        if photometric == GREY_WHITE_ZERO:
            right[..., 0] = full - right[..., 0]
        np.testing.assert_array_equal(found, right, err_msg=f"{layout} {order}")
        agreed += 1
    assert agreed or (bits < 8 and photometric in (RGB, CMYK))


@pytest.mark.parametrize("photometric", [GREY, RGB])
@pytest.mark.parametrize("bits", [8, 16])
def test_associated_alpha_is_divided_out_as_libvips_does_it(photometric: int, bits: int) -> None:
    """Seen through their alpha: under little of it, rounding of 16 bits to 8 moves the colours themselves further."""
    samples = noise(bits, COLOURS[photometric] + 1)
    data = tiffs.written(tiffs.page(samples, bits=bits, photometric=photometric, extra=(1,)))
    found = by_vips(data)
    assert found is not None
    mine, theirs = read(data) / 255, found / (255 if bits == 8 else 65535)
    assert np.abs(mine[..., :-1] * mine[..., -1:] - theirs[..., :-1] * theirs[..., -1:]).max() <= 2 / 255


def test_every_colour_is_divided_by_every_alpha_and_rounded_down() -> None:
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint32), np.arange(256, dtype=np.uint32))
    samples = np.stack((colour, 255 - colour, alpha // 2, alpha), axis=-1).astype(np.uint8)
    got = read(tiffs.written(tiffs.page(samples, bits=8, photometric=RGB, extra=[1])))
    for index, stored in enumerate((colour, 255 - colour, alpha // 2)):
        right = np.where(alpha == 0, 0, np.minimum(stored * 255 // np.maximum(alpha, 1), 255))
        assert np.array_equal(got[..., index], right)
    assert np.array_equal(got[..., 3], alpha)


@pytest.mark.parametrize("bits", [1, 3, 4, 5, 7, 9, 11, 12, 13, 15])
@pytest.mark.parametrize(("samples", "used"), [(5, [0, 1, 2]), (15, [0, 1, 2, 7]), (1, [0])])
@pytest.mark.parametrize("width", [1, 2, 7, 9, 33])
def test_numbers_of_any_depth_are_unpacked(width: int, samples: int, used: list[int], bits: int) -> None:
    numbers = np.random.default_rng(bits).integers(0, 1 << bits, (6, width * samples))
    single = (numbers[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    raw = np.packbits(single.reshape(6, -1).astype(np.uint8), axis=1)
    got = tiff_bits.unpacked_bits(raw, width, samples, bits, used)
    right = np.zeros((6, width, samples), int)
    right[..., used] = numbers.reshape(right.shape)[..., used]
    assert np.array_equal(got, right)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_classic_and_big_files_of_both_byte_orders_are_read(order: str, big: bool) -> None:
    samples = noise(16, 3)
    for way in WAYS:
        data = tiffs.written(tiffs.page(samples, bits=16, photometric=RGB, order=order, **way), order=order, big=big)
        np.testing.assert_array_equal(read(data), samples >> 8)
        found = by_vips(data)
        assert found is not None
        np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("size", [1, 200, 2000])
@pytest.mark.parametrize("bits", [8, 12])
def test_pictures_of_many_pieces_are_put_together(bits: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large ones are: of several strips or tiles, or of one strip in parts."""
    monkeypatch.setattr(tiff_samples, "_PIECE", size)
    monkeypatch.setattr(tiff_samples, "_MOST_COMPRESSED", size)
    samples = noise(bits, 4)
    for planar, way in itertools.product((False, True), WAYS + (PREDICTED if bits == 8 else ())):
        data = tiffs.written(tiffs.page(samples, bits=bits, photometric=RGB, planar=planar, extra=(2,), **way))
        np.testing.assert_array_equal(read(data), expected(samples, bits, RGB, (2,)), err_msg=f"{planar} {way}")


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("extra", [None, (0,), (1,), (2,)])
def test_palettes_are_read(bits: int, extra: tuple[int, ...] | None) -> None:
    rng = np.random.default_rng(bits)
    full = rng.integers(0, 256, (1 << bits, 3))
    full[0] = 255, 128, 7
    samples = noise(bits, 1 if extra is None else 2)
    right = full[samples[..., 0]]
    if extra and extra[0]:
        alpha = np.floor(samples[..., 1:].astype(int) * 255 / ((1 << bits) - 1) + 0.5).astype(int)
        if extra[0] == 1:
            right = np.where(alpha == 0, 0, np.minimum(right * 255 // np.maximum(alpha, 1), 255))
        right = np.concatenate((right, alpha), axis=2)
    # Colours of 16 bits, as the standard has them; and of 8 bits, as some programs write them.
    for scale, planar, way in itertools.product((257, 256, 1), (False, True), WAYS):
        if planar and extra is None:
            continue
        further = {320: (full * scale).T.reshape(-1).tolist()}
        one = tiffs.page(samples, bits=bits, photometric=PALETTE, extra=extra, planar=planar, further=further, **way)
        data = tiffs.written(one)
        np.testing.assert_array_equal(read(data), right, err_msg=f"{scale} {planar} {way}")
        found = by_vips(data) if scale == 257 and extra is None else None
        assert found is not None or bits not in (8, 16) or scale != 257 or extra is not None
        if found is not None:
            np.testing.assert_array_equal(found, right * (257 if found.dtype == np.uint16 else 1))


def test_no_photometric_interpretation_means_black_is_zero_or_rgb() -> None:
    for count in (1, 3):
        one = tiffs.page(noise(8, count), bits=8, photometric=GREY)
        tags = {tag: value for tag, value in one.tags.items() if tag != 262}
        np.testing.assert_array_equal(read(tiffs.written(tiffs.Page(tags, one.blocks))), noise(8, count))


def test_an_extra_sample_that_no_tag_describes_is_alpha() -> None:
    samples = noise(8, 4)
    np.testing.assert_array_equal(read(tiffs.written(tiffs.page(samples, bits=8, photometric=RGB))), samples)


def test_rows_per_strip_of_none_or_endlessly_many_mean_all_rows() -> None:
    samples = noise(8, 3)
    for rows in (0, 2**32 - 1):
        data = tiffs.written(tiffs.page(samples, bits=8, photometric=RGB, further={278: [rows]}))
        np.testing.assert_array_equal(read(data), samples)


def test_strips_without_their_lengths_end_where_the_next_begins() -> None:
    samples = noise(8, 3)
    one = tiffs.page(samples, bits=8, photometric=RGB, compression=DEFLATE, rows=4)
    data = tiffs.written(tiffs.Page({**one.tags, 279: [0] * len(one.blocks)}, one.blocks))
    np.testing.assert_array_equal(read(data), samples)


@pytest.mark.parametrize(("bits", "predictor"), [(16, 1), (32, 1), (64, 1), (16, 3), (32, 3), (64, 3)])
@pytest.mark.parametrize("order", "<>")
def test_grey_in_floating_point_is_read(bits: int, predictor: int, order: str) -> None:
    right = noise(8, 1).astype(f"f{bits // 8}") / 255
    for way in ({"rows": 3}, {"tile": (16, 16)}):
        one = tiffs.page(
            right,
            bits=bits,
            photometric=GREY,
            order=order,
            numbering=3,
            compression=DEFLATE,
            predictor=predictor,
            **way,
        )
        data = tiffs.written(one, order=order)
        assert tiff.read(data, TIFF, Bounds(10**6)).image.mode == "F"
        np.testing.assert_array_equal(read(data), right.astype(np.float32))
        found = by_vips(data) if bits == 32 else None
        assert bits != 32 or found is not None
        if found is not None:
            np.testing.assert_array_equal(found, right)


def test_whole_numbers_of_32_bits_count_as_16_or_as_what_they_are() -> None:
    """Up to 65535 they are left to be read as 16 bits; beyond, the whole range is theirs."""
    wide = noise(32, 1)
    for order, predictor in itertools.product("<>", (1, 2)):
        way = {"bits": 32, "photometric": GREY, "order": order, "compression": DEFLATE, "predictor": predictor}
        data = tiffs.written(tiffs.page(wide, **way), order=order)  # type: ignore[arg-type]
        np.testing.assert_array_equal(read(data), np.rint(wide * (255 / (2**32 - 1))))
        few = tiffs.written(tiffs.page(wide >> 16, **way), order=order)  # type: ignore[arg-type]
        assert tiff.read(few, TIFF, Bounds(10**6)).image.mode == "I"
        np.testing.assert_array_equal(read(few), wide >> 16)
        found = by_vips(data)
        assert found is not None
        np.testing.assert_array_equal(found, wide)


@pytest.mark.parametrize("bits", [16, 32])
def test_signed_grey_is_read_as_it_stands(bits: int) -> None:
    signed = noise(bits, 1).view(f"i{bits // 8}")
    data = tiffs.written(tiffs.page(signed, bits=bits, photometric=GREY, numbering=2))
    np.testing.assert_array_equal(read(data), signed)
    found = by_vips(data)
    assert found is not None
    np.testing.assert_array_equal(found, signed)


def rgb_of_lab(lab: Array) -> Array:
    """CIELab under D50 to sRGB: by CIE's formulas, Bradford's adaptation to D65 within the matrix, sRGB's curve."""
    light, a, b = np.moveaxis(lab, -1, 0)
    y = (light + 16) / 116
    spread = np.stack((y + a / 500, y, y - b / 200), axis=-1)
    xyz = np.where(spread > 6 / 29, spread**3, 3 * (6 / 29) ** 2 * (spread - 4 / 29)) * [0.9642, 1, 0.8249]
    to_linear = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540]]
    to_linear.append([0.0719453, -0.2289914, 1.4052427])
    linear = np.clip(xyz @ np.array(to_linear).T, 0, 1)
    curve = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    found: Array = np.rint(curve * 255)
    return found


@pytest.mark.parametrize(("photometric", "bits", "numbering"), [(LAB, 8, 1), (LAB, 16, 1), (LAB, 16, 2), (9, 8, 1)])
def test_cielab_becomes_srgb(photometric: int, bits: int, numbering: int) -> None:
    light, a, b = np.meshgrid(np.linspace(40, 75, 8), np.linspace(-20, 20, 7), np.linspace(-20, 20, 7), indexing="ij")
    lab = np.rint(np.stack((light, a, b), axis=-1).reshape(14, 28, 3) * [255 / 100, 1, 1])
    right = rgb_of_lab(lab / [255 / 100, 1, 1])
    if bits == 16:
        stored = (lab * [257, 256, 256]).astype(np.int64).astype(np.uint16)
    else:
        stored = (lab + ([0, 128, 128] if photometric == 9 else 0)).astype(np.int64).astype(np.uint8)
    for planar in (False, True):
        one = tiffs.page(stored, bits=bits, photometric=photometric, planar=planar, compression=DEFLATE)
        data = tiffs.written(tiffs.Page({**one.tags, 339: [numbering] * 3}, one.blocks))
        assert np.abs(read(data) - right).max() <= 2
    if bits == 16:
        found = by_vips(tiffs.written(tiffs.page(stored, bits=16, photometric=LAB)))
        assert found is not None  # L from 0 to 32767, a and b in 256ths
        assert np.abs(found / [32767 / 100, 256, 256] - lab / [255 / 100, 1, 1]).max() < 0.01


@pytest.mark.parametrize("down", [1, 2, 4])
@pytest.mark.parametrize("across", [1, 2, 4])
@pytest.mark.parametrize(("compression", "piece"), [(NONE, 1), (NONE, 4 << 20), (LZW, 4 << 20), (DEFLATE, 60)])
def test_ycbcr_becomes_rgb(
    across: int, down: int, compression: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units of `across` x `down` of Y, then one Cb and one Cr; by the formulas of ITU-R BT.601."""
    monkeypatch.setattr(tiff_samples, "_PIECE", piece)
    rng = np.random.default_rng(across * 8 + down)
    height, width = 8 * down + 1, 6 * across + 1
    high, wide = -(-height // down), -(-width // across)
    y = rng.integers(60, 190, (high * down, wide * across))
    cb, cr = rng.integers(100, 156, (2, high, wide))
    units = y.reshape(high, down, wide, across).swapaxes(1, 2).reshape(high, wide, -1)
    stored = np.concatenate((units, cb[..., None], cr[..., None]), axis=2).reshape(high, -1, 1).astype(np.uint8)
    all_cb, all_cr = ((one - 128).repeat(down, 0).repeat(across, 1) for one in (cb, cr))
    right = np.stack((y + 1.402 * all_cr, y - 0.344136 * all_cb - 0.714136 * all_cr, y + 1.772 * all_cb), axis=-1)
    packed = tiffs.page(stored, bits=8, photometric=YCBCR, compression=compression, rows=2)
    tags = {256: [width], 257: [height], 258: [8, 8, 8], 277: [3], 278: [2 * down], 530: [across, down]}
    data = tiffs.written(tiffs.Page({**packed.tags, **tags}, packed.blocks))
    assert np.abs(read(data) - right[:height, :width]).max() <= 1


@pytest.mark.parametrize("tile", [{}, {"tile": (16, 16)}, {"rows": 4}], ids=["strip", "tiles", "strips"])
@pytest.mark.parametrize("compression", [LZW, DEFLATE, OLD_DEFLATE])
def test_ycbcr_whose_samples_are_predicted_is_read(compression: int, tile: dict[str, Any]) -> None:
    y, cb, cr = noise(8, 3).astype(int).transpose(2, 0, 1)
    cb, cr = cb // 4 + 96, cr // 4 + 96
    right = np.stack((y + 1.402 * (cr - 128), np.zeros(y.shape), y + 1.772 * (cb - 128)), axis=-1)
    right[..., 1] = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    stored = np.stack((y, cb, cr), axis=-1).astype(np.uint8)
    way: dict[str, Any] = {"compression": compression, "further": {530: [1, 1]}, **tile}
    data = tiffs.written(tiffs.page(stored, bits=8, photometric=YCBCR, predictor=2, **way))
    assert np.abs(read(data) - np.clip(right, 0, 255)).max() <= 1
    np.testing.assert_array_equal(by_vips(data), stored)  # libvips leaves them as they are


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma"])
def test_predicted_ycbcr_of_pillow_is_read(compression: str) -> None:
    out = io.BytesIO()
    try:
        smooth().convert("YCbCr").save(out, "TIFF", compression=compression, tiffinfo={317: 2})
    except OSError:
        pytest.skip("this libtiff was built without it")
    assert np.abs(read(out.getvalue()).astype(int) - np.asarray(smooth())).max() <= 3


def with_alpha(mode: str) -> Image.Image:
    """`smooth`, with alpha that varies where the mode has any."""
    image = smooth().convert(mode)
    if image.mode in ("LA", "RGBA"):
        image.putalpha(smooth().getchannel("B").transpose(Image.Transpose.ROTATE_180))
    return image


def smooth() -> Image.Image:
    small = np.random.default_rng(4).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((83, 61), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("tile", [{}, {"tile": True, "tile_width": 32, "tile_height": 16}], ids=["strips", "tiles"])
@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jpeg_within_a_tiff_is_read_as_libvips_reads_it(mode: str, quality: int, tile: dict[str, Any]) -> None:
    pyvips = pytest.importorskip("pyvips")
    image = pyvips.Image.new_from_array(np.asarray(with_alpha(mode)))
    data = image.tiffsave_buffer(compression="jpeg", Q=quality, **tile)
    found = by_vips(data)
    assert found is not None
    np.testing.assert_array_equal(read(data), found)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("photometric", [GREY, GREY_WHITE_ZERO])
def test_grey_with_alpha_in_jpeg_compression_is_taken_as_its_tags_say(photometric: int, kind: int) -> None:
    out = io.BytesIO()
    with_alpha("LA").save(out, "TIFF", compression="jpeg")
    found = by_vips(out.getvalue())
    assert found is not None
    data = out.getvalue()
    for tag, before, now in ((262, GREY, photometric), (338, 2, kind)):
        entry = struct.pack("<HHIHH", tag, 3, 1, before, 0)
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHIHH", tag, 3, 1, now, 0))
    np.testing.assert_array_equal(read(data), expected(found, 8, photometric, (kind,)))


def test_cmyk_in_jpeg_compression_is_read_as_libvips_reads_it() -> None:
    out = io.BytesIO()
    smooth().convert("CMYK").save(out, "TIFF", compression="jpeg")
    found = by_vips(out.getvalue())
    assert found is not None
    np.testing.assert_array_equal(read(out.getvalue()), found)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fax_compression_is_read(compression: str, photometric: int) -> None:
    image = smooth().convert("1")
    out = io.BytesIO()
    image.save(out, "TIFF", compression=compression, tiffinfo={262: photometric})
    right = np.asarray(image.convert("L"))[..., None]
    np.testing.assert_array_equal(read(out.getvalue()), right)
    found = by_vips(out.getvalue())
    assert found is not None
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
def test_what_pillow_can_compress_is_read(compression: str, mode: str) -> None:
    image = Image.fromarray(noise(16, 1)[..., 0]) if mode == "I;16" else smooth().convert(mode)
    out = io.BytesIO()
    try:
        image.save(out, "TIFF", compression=compression)
    except OSError:
        pytest.skip("this libtiff was built without it")
    plain = np.asarray(image).reshape(image.height, image.width, -1)
    right = expected(plain, 16, GREY, None) if mode == "I;16" else plain
    np.testing.assert_array_equal(read(out.getvalue()), right)


@pytest.mark.parametrize(
    ("bits", "photometric", "samples", "more", "says"),
    [
        (32, LAB, 3, {}, "32-bit CIELab"),
        (16, 9, 3, {}, "16-bit ICCLab"),
        (8, 10, 3, {}, "ITULab"),
        (32, 32845, 3, {}, "LogLuv"),
        (32, RGB, 3, {}, "32-bit RGB"),
        (32, RGB, 3, {"numbering": 3}, "32-bit RGB in floating point"),
        (32, GREY_WHITE_ZERO, 1, {"numbering": 3}, "white as zero"),
        (8, GREY, 1, {"numbering": 2}, "8-bit grey in signed numbers"),
        (64, GREY, 1, {}, "64-bit grey"),
        (16, GREY, 1, {"numbering": 6}, "complex"),
        (32, PALETTE, 1, {}, "32-bit palette"),
        (8, CMYK, 4, {"further": {332: [2]}}, "inks"),
        (8, CMYK, 3, {}, "3 inks"),
        (8, CMYK, 1, {"further": {332: [2]}}, "1 inks"),
        (8, LAB, 1, {}, "CIELab of 1 samples"),
        (8, YCBCR, 3, {"planar": True}, "YCbCr in separate planes"),
        (8, RGB, 16, {}, "16 samples a pixel"),
        (8, RGB, 3, {"further": {258: [5, 6, 5]}}, "different depths"),
        (12, GREY, 1, {"compression": DEFLATE, "further": {317: [2]}}, "predictor 2"),
        (8, GREY, 1, {"compression": DEFLATE, "further": {317: [7]}}, "numbered 7"),
        (8, GREY, 1, {"further": {259: [4]}}, "CCITT group 4"),
        (8, GREY, 1, {"further": {259: [6]}}, "old-style JPEG"),
        (8, GREY, 1, {"further": {259: [34712]}}, "JPEG 2000"),
        (8, GREY, 1, {"further": {259: [34887]}}, "LERC"),
        (8, RGB, 3, {"further": {259: [50001]}}, "WebP"),
        (8, GREY, 1, {"further": {259: [777]}}, "numbered 777"),
        (12, RGB, 3, {"further": {259: [7]}}, "12-bit RGB of 3 samples in JPEG"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    bits: int, photometric: int, samples: int, more: dict[str, Any], says: str
) -> None:
    numbers = np.zeros((4, 4, samples), np.float32 if more.get("numbering") == 3 else np.uint8)
    data = tiffs.written(tiffs.page(numbers, bits=bits, photometric=photometric, **more))
    with pytest.raises(UnsupportedPicture, match=says) as refused:
        read(data)
    assert "save it" in refused.value.sentence
    with pytest.raises(UnsupportedPicture, match=says):
        tiff.measure(data, TIFF)
