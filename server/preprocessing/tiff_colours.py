"""Samples of a TIFF to colours of 8 bits: depths, palettes, YCbCr, CIELab, alpha that was multiplied in."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from server.errors import UnreadablePicture
from server.preprocessing import tiff_directory as tags
from server.preprocessing.tiff_directory import Directory
from server.preprocessing.tiff_layout import Layout

# What is in between stays in the processor's cache.
_SAMPLES_AT_ONCE = 1 << 15
# With coefficients beyond this, colours may overflow on the way to infinity, and be no numbers in the end.
_WILD = 1e6

# What TIFF says where a file does not: the luminance of red, green and blue by ITU-R BT.601, and black and white of Y,
# nought and full of Cb and of Cr.
_COEFFICIENTS = ((299, 1000), (587, 1000), (114, 1000))
_REFERENCE = ((0, 1), (255, 1), (128, 1), (255, 1), (128, 1), (255, 1))


def eight_bits(samples: NDArray[Any], layout: Layout, plane: int | None) -> NDArray[Any]:
    """Whole numbers of 1 to 16 bits to 8, rounded, uint8. `plane`: which sample, of one.

    The places in a palette stay as they are; of more than 8 bits, all are uint16, what is beside them too.

    But 16-bit colours keep their upper byte, as Pillow reads them, so that vectors of such files stay valid.
    """
    first = samples[..., : plane in (None, 0)]
    if layout.colours == "palette":
        return np.concatenate((first, _scaled(samples[..., first.shape[2] :], layout.bits)), axis=2)
    if layout.colours == "lab" and layout.bits == 16:
        return _eight_bit_lab(samples, plane)
    if layout.colours in ("rgb", "cmyk") and layout.bits == 16:
        return (samples >> 8).astype(np.uint8)
    eight = _scaled(samples, layout.bits)
    if layout.white_is_zero and first.shape[2]:
        eight = np.concatenate((255 - eight[..., :1], eight[..., 1:]), axis=2)
    return eight


def _scaled(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """v * 255 / (2^bits - 1), rounded."""
    most = (1 << bits) - 1
    if bits == 8:
        return samples
    if 255 % most == 0:
        few: NDArray[np.uint8] = samples * np.uint8(255 // most)
        return few
    if bits < 8:
        levels = np.arange(256, dtype=np.uint32)
        table = np.minimum((levels * 510 + most) // (2 * most), 255).astype(np.uint8).tobytes()
        return np.frombuffer(samples.tobytes().translate(table), np.uint8).reshape(samples.shape)
    eight = np.empty(samples.shape, np.uint8)
    step = max(1, _SAMPLES_AT_ONCE // max(1, samples[0].size))
    for top in range(0, len(samples), step):
        band = samples[top : top + step].astype(np.uint32)
        band *= 510
        band += most
        band //= 2 * most
        eight[top : top + step] = band
    return eight


def _eight_bit_lab(samples: NDArray[Any], plane: int | None) -> NDArray[np.uint8]:
    """L of 16 bits fills them; a and b are signed, in 256ths."""
    eight = np.empty(samples.shape, np.uint8)
    for index in range(samples.shape[2]):
        one, sample = samples[..., index].astype(np.int32), index if plane is None else plane
        if sample in (1, 2):
            signed = np.where(one > 32767, one - 65536, one)
            eight[..., index] = np.clip((signed + 128) >> 8, -128, 127).astype(np.int8).view(np.uint8)
        else:
            eight[..., index] = (one + 128) // 257
    return eight


def palette(page: Directory, layout: Layout) -> NDArray[np.uint8]:
    """uint8[colours, 3]. By the standard colours have 16 bits; where none needs more than 8, they count as 8 bits."""
    count = 1 << layout.bits
    found = page.numbers(tags.COLOUR_MAP, most=3 * count)
    if found is None or len(found) < 3 * count:
        raise UnreadablePicture()
    colours = found.reshape(3, count).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def straight(eight: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours divided by the alpha in the last channel that they were multiplied with; rounded down, as Pillow
    does it."""
    out = np.empty(eight.shape, np.uint8)
    step = max(1, _SAMPLES_AT_ONCE // eight.shape[1])
    for top in range(0, len(out), step):
        band, there = eight[top : top + step], out[top : top + step]
        # Whole numbers of 16 bits are exact in single precision, and so is what is rounded down of their quotients.
        alpha = band[..., -1].astype(np.float32)
        alpha[alpha == 0] = np.inf
        for index in range(eight.shape[2] - 1):
            colour = band[..., index].astype(np.float32)
            colour *= 255
            colour /= alpha
            there[..., index] = np.minimum(colour, 255, out=colour)
        there[..., -1] = band[..., -1]
    return out


def ycbcr_to_rgb(page: Directory, layout: Layout, raw: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """uint8[rows, block width, 3] from rows of units: so many Y as share a Cb and a Cr, and those two."""
    across, down = layout.subsampling
    units = raw[:, : raw.shape[1] // (across * down + 2) * (across * down + 2)].reshape(len(raw), -1, across * down + 2)
    light = units[..., :-2].reshape(len(raw), -1, down, across).swapaxes(1, 2).reshape(len(raw) * down, -1)
    light = light[:rows, : layout.block_width]
    reference = _fractions(page, tags.REFERENCE, _REFERENCE)
    red, green, blue = _fractions(page, tags.COEFFICIENTS, _COEFFICIENTS)
    if not green or any(white == black for black, white in zip(reference[::2], reference[1::2], strict=True)):
        raise UnreadablePicture()
    y_black, y_white, *chroma = reference
    factors = 255 / (y_white - y_black), *(127 / (chroma[k + 1] - chroma[k]) for k in (0, 2))
    # A damaged reference may ask for any range.
    wild = not all(abs(number) < _WILD for number in (*reference, red, green, blue, 1 / green, *factors))
    out = np.empty((*light.shape, 3), np.uint8)
    step = max(1, _SAMPLES_AT_ONCE // (light.shape[1] * down)) * down
    with np.errstate(all="ignore"):
        for top in range(0, rows, step):
            y = light[top : top + step].astype(np.float32)
            y -= y_black
            y *= factors[0]
            shared = units[top // down : (top + step) // down, :, -2:]
            cb, cr = (
                ((shared[..., k].astype(np.float32) - chroma[2 * k]) * factors[k + 1])
                .repeat(down, axis=0)
                .repeat(across, axis=1)[: len(y), : y.shape[1]]
                for k in (0, 1)
            )
            r = cr * (2 - 2 * red)
            r += y
            b = cb * (2 - 2 * blue)
            b += y
            y -= red * r
            y -= blue * b
            y /= green
            for index, colour in enumerate((r, y, b)):
                if wild:
                    np.nan_to_num(colour, copy=False)
                np.clip(colour, 0, 255, out=colour)
                out[top : top + step, :, index] = np.rint(colour, out=colour)
    return out


def _fractions(page: Directory, tag: int, default: tuple[tuple[int, int], ...]) -> list[float]:
    found = page.rationals(tag) or default
    if len(found) != len(default) or any(below == 0 for _, below in found):
        raise UnreadablePicture()
    return [above / below for above, below in found]


def lab_to_rgb(lab: NDArray[np.uint8], *, signed: bool) -> Image.Image:
    """CIELab of 8 bits, under D50, to sRGB. `signed`: a and b are, as TIFF has them; else 128 is their nought."""
    if not signed:  # Pillow takes them as TIFF has them
        lab = lab ^ np.array([0, 0x80, 0x80], np.uint8)
    image = Image.frombytes("LAB", lab.shape[1::-1], lab.tobytes())
    converted = ImageCms.applyTransform(image, _lab_transform())
    if converted is None:
        raise UnreadablePicture()
    return converted


@cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    """Not optimised: the table that LittleCMS would make of it is off by up to 22 of 255 in dark saturated colours."""
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        "LAB",
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.NOOPTIMIZE,
    )
