"""TIFF: the first picture in full, whatever its layout, as 8 bits a sample, or wide grey.

We read the directory and the samples ourselves, and let libtiff only decompress. Pillow reads the common layouts
rightly, and of others some as a negative, nearly black or scrambled, without a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import PictureTooLarge, UnreadablePicture
from server.preprocessing import tiff_directory as tags
from server.preprocessing.formats import Format
from server.preprocessing.stored import Bounds, Stored
from server.preprocessing.tiff_directory import Directory, find_picture
from server.preprocessing.tiff_layout import Layout, layout_of
from server.preprocessing.tiff_samples import Piece, pieces

_LARGEST_PROFILE = 4 << 20
# What tiles may reach beyond the picture, in pixels: they are decompressed as a whole.
_MOST_BEYOND = 1 << 24
_ROWS_AT_ONCE = 64

# Unsigned numbers beyond 65535 are scaled from their whole range, 32 bits. Others are for `media` to bring to 8 bits.
_FULL = 2**32 - 1


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored. Raises as `read` does for a layout that is not read here."""
    layout = layout_of(find_picture(data))
    return layout.width, layout.height


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """The first picture in full. Raises PictureTooLarge and UnsupportedPicture before it decodes, UnreadablePicture."""
    page = find_picture(data)
    layout = layout_of(page)
    size = layout.width, layout.height
    bounds.check(*size)
    padded = layout.across * layout.block_width, layout.down * layout.block_height
    if layout.tiled and padded[0] * padded[1] > 2 * bounds.max_pixels + _MOST_BEYOND:
        raise PictureTooLarge(*padded, bounds.max_pixels)
    image = _image(page, layout)
    managed = image.mode != "RGBA" if layout.colours == "cmyk" else layout.colours not in ("lab", "icclab")
    profile = page.raw(tags.PROFILE, most=_LARGEST_PROFILE) if managed else None
    return Stored(image, size, _orientation(page), profile=profile)


def _orientation(page: Directory) -> int:
    try:
        found = page.number(tags.ORIENTATION, 1)
    except UnreadablePicture:  # the tag is damaged, and the pixels are fine
        return 1
    return found if 1 <= found <= 8 else 1


def _image(page: Directory, layout: Layout) -> Image.Image:
    if layout.bits > 16 or layout.numbering != "unsigned":
        return _wide(page, layout)
    colours = 3 if layout.colours == "palette" else layout.colour_count
    channels = colours + (layout.alpha is not None)
    out = np.empty((layout.height, layout.width, channels), np.uint8)
    palette = _palette(page, layout) if layout.colours == "palette" else None
    for piece in pieces(page, layout):
        samples = piece.samples[..., : layout.colour_count + (layout.alpha is not None)]
        if palette is None:
            _place(out, layout, piece, _eight_bits(samples, layout, piece.plane))
        elif piece.plane is None:
            alpha = _eight_bits(samples[..., 1:], layout, 1)
            _place(out, layout, piece, np.concatenate((palette[samples[..., 0]], alpha), axis=2))
        elif piece.plane == 0:
            _place(out[..., :3], layout, piece, palette[samples[..., 0]], every=True)
        else:
            _place(out[..., 3:], layout, piece, _eight_bits(samples, layout, 1), every=True)
    if layout.alpha == "associated":
        _straighten(out)
    return _named(out, layout)


def _named(out: NDArray[np.uint8], layout: Layout) -> Image.Image:
    """The image in Pillow's mode for it."""
    if layout.colours in ("lab", "icclab"):
        # Pillow's a and b have no sign, as ICC's; but it takes TIFF's from bytes.
        lab = out[..., :3] ^ np.array([0, 0x80, 0x80] if layout.colours == "icclab" else [0, 0, 0], np.uint8)
        image = Image.frombytes("LAB", (layout.width, layout.height), lab.tobytes()).convert("RGB")
    elif layout.colours == "cmyk":
        image = Image.fromarray(np.ascontiguousarray(out[..., :4]), "CMYK")
        if layout.alpha:  # Pillow has no CMYK with alpha
            image = image.convert("RGB")
    else:
        if out.shape[2] == 1:
            out = out[..., 0]
        return Image.fromarray(out)
    if layout.alpha:
        image.putalpha(Image.fromarray(np.ascontiguousarray(out[..., -1])))
    return image


def _wide(page: Directory, layout: Layout) -> Image.Image:
    """Grey in whole numbers of more than 16 bits, with a sign, or in floating point: mode I or F, or L."""
    kind = {"unsigned": np.uint32, "signed": np.int32, "float": np.float32}[layout.numbering]
    out = np.empty((layout.height, layout.width, 1), kind)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the range is infinite, and white
        for piece in pieces(page, layout):
            _place(out, layout, piece, piece.samples.astype(kind))
    grey = out[..., 0]
    if layout.numbering == "float":
        return Image.fromarray(grey)
    if layout.numbering == "signed" or grey.max() <= 65535:
        return Image.fromarray(grey.astype(np.int32, copy=False))
    eight = np.empty(grey.shape, np.uint8)
    for top in range(0, len(grey), _ROWS_AT_ONCE):
        eight[top : top + _ROWS_AT_ONCE] = np.rint(grey[top : top + _ROWS_AT_ONCE] * (255 / _FULL))
    return Image.fromarray(eight)


def _place(out: NDArray[Any], layout: Layout, piece: Piece, samples: NDArray[Any], *, every: bool = False) -> None:
    """Copy a piece to where it belongs; `every`: to every channel of `out`, although the piece is of one plane."""
    if piece.plane is not None and not every:
        out = out[..., piece.plane : piece.plane + 1]
    height = layout.block_height
    if not layout.tiled:
        top = piece.first * height
        out[top : top + len(samples)] = samples
        return
    for index in range(len(samples) // height):
        down, across = divmod(piece.first + index, layout.across)
        there = out[
            down * height : (down + 1) * height, across * layout.block_width : (across + 1) * layout.block_width
        ]
        there[:] = samples[index * height : index * height + len(there), : there.shape[1]]


def _eight_bits(samples: NDArray[Any], layout: Layout, plane: int | None) -> NDArray[np.uint8]:
    """Whole numbers of 1 to 16 bits to 8, rounded.

    But 16-bit colours keep their upper byte, as Pillow reads them, so that vectors of such files stay valid.
    """
    bits, most = layout.bits, (1 << layout.bits) - 1
    if layout.colours == "lab" and bits == 16:
        return _eight_bit_lab(samples, plane)
    if bits == 8:
        eight = samples
    elif bits == 16 and layout.colours in ("rgb", "cmyk"):
        eight = (samples >> 8).astype(np.uint8)
    elif 255 % most == 0:
        eight = samples * np.uint8(255 // most)
    else:
        levels = np.arange(most + 1, dtype=np.uint32)
        eight = ((levels * 510 + most) // (2 * most)).astype(np.uint8)[samples]
    if layout.white_is_zero and plane in (None, 0):
        eight = np.concatenate((255 - eight[..., :1], eight[..., 1:]), axis=2)
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


def _palette(page: Directory, layout: Layout) -> NDArray[np.uint8]:
    """uint8[colours, 3]. By the standard colours have 16 bits; where none needs more than 8, they count as 8 bits."""
    count = 1 << layout.bits
    found = page.numbers(tags.COLOUR_MAP)
    if found is None or len(found) < 3 * count:
        raise UnreadablePicture()
    colours = found[: 3 * count].reshape(3, count).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _straighten(out: NDArray[np.uint8]) -> None:
    """Divide the colours by the alpha in the last channel that they were multiplied with; as Pillow rounds it, down."""
    for top in range(0, len(out), _ROWS_AT_ONCE):
        band = out[top : top + _ROWS_AT_ONCE].astype(np.uint16)
        alpha = band[..., -1:]
        straight = np.minimum(band[..., :-1] * 255 // np.maximum(alpha, 1), 255)
        out[top : top + _ROWS_AT_ONCE, :, :-1] = np.where(alpha == 0, 0, straight)
