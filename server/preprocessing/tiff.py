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
from server.preprocessing.stored import MOST_PROFILE_BYTES, Bounds, Stored
from server.preprocessing.tiff_colours import eight_bits, lab_to_rgb, palette, straight
from server.preprocessing.tiff_cost import check_work
from server.preprocessing.tiff_directory import Directory, find_picture
from server.preprocessing.tiff_layout import Layout, layout_of
from server.preprocessing.tiff_samples import Piece, pieces

# What tiles may reach beyond the picture, in pixels: they are decompressed as a whole.
_MOST_BEYOND = 1 << 24
_ROWS_AT_ONCE = 64

# Unsigned numbers beyond 65535 are scaled from their whole range, 32 bits. Others are for `media` to bring to 8 bits.
_FULL = 2**32 - 1


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored. Raises as `read` does for a layout that is not read here."""
    layout = layout_of(find_picture(data))
    check_work(layout)
    return layout.width, layout.height


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """The first picture in full. Raises PictureTooLarge and UnsupportedPicture before it decodes, UnreadablePicture."""
    page = find_picture(data)
    layout = layout_of(page)
    size = layout.width, layout.height
    check_work(layout)
    bounds.check(*size)
    padded = layout.across * layout.block_width, layout.down * layout.block_height
    if layout.tiled and padded[0] * padded[1] > bounds.max_pixels + _MOST_BEYOND:
        raise PictureTooLarge(*padded, bounds.max_pixels)
    image = _image(page, layout)
    managed = image.mode != "RGBA" if layout.colours == "cmyk" else layout.colours not in ("lab", "icclab")
    profile = page.raw(tags.PROFILE, most=MOST_PROFILE_BYTES) if managed else None
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
    colour_map = palette(page, layout) if layout.colours == "palette" else None
    if layout.planar:
        kind = np.uint16 if layout.colours == "palette" and layout.bits > 8 else np.uint8
        out = np.empty((layout.height, layout.width, len(layout.used)), kind)
        for piece in pieces(page, layout):
            plane = out[..., piece.plane : piece.plane + 1]
            _place(plane, layout, piece, eight_bits(piece.samples, layout, piece.plane))
        return _coloured(out, layout, colour_map)
    # Straight into the image, which alone takes four bytes a pixel.
    image = None
    for piece in pieces(page, layout):
        part = _coloured(eight_bits(_used(piece.samples, layout), layout, None), layout, colour_map)
        if image is None:
            image = Image.new(part.mode, (layout.width, layout.height))
        if not layout.tiled:
            image.paste(part, (0, piece.at))
            continue
        for index in range(part.height // layout.block_height):
            down, across = divmod(piece.at + index, layout.across)
            top = index * layout.block_height
            tile = part.crop((0, top, layout.block_width, top + layout.block_height))
            image.paste(tile, (across * layout.block_width, down * layout.block_height))
    if image is None:
        raise UnreadablePicture()
    return image


def _used(samples: NDArray[Any], layout: Layout) -> NDArray[Any]:
    used = layout.used
    if used[-1] == len(used) - 1:  # no other sample is between them, and nothing needs to be copied
        return samples[..., : len(used)]
    return samples[..., used]


def _coloured(eight: NDArray[Any], layout: Layout, colour_map: NDArray[np.uint8] | None) -> Image.Image:
    """Colours of 8 bits, and alpha where there is any, as an image in Pillow's mode for them."""
    if colour_map is not None:
        eight = np.concatenate((colour_map[eight[..., 0]], eight[..., 1:].astype(np.uint8, copy=False)), axis=2)
    if layout.alpha == "associated":
        eight = straight(eight)
    if layout.colours in ("lab", "icclab"):
        image = lab_to_rgb(eight[..., :3], signed=layout.colours == "lab")
    elif layout.colours == "cmyk":
        image = Image.frombytes("CMYK", eight.shape[1::-1], eight[..., :4].tobytes())
        if layout.alpha:  # Pillow has no CMYK with alpha
            image = image.convert("RGB")
    else:
        return Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight)
    if layout.alpha:
        image.putalpha(Image.fromarray(np.ascontiguousarray(eight[..., -1])))
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


def _place(out: NDArray[Any], layout: Layout, piece: Piece, samples: NDArray[Any]) -> None:
    """Copy a piece to where it belongs."""
    height, width = layout.block_height, layout.block_width
    if not layout.tiled:
        out[piece.at : piece.at + len(samples)] = samples
        return
    for index in range(len(samples) // height):
        down, across = divmod(piece.at + index, layout.across)
        there = out[down * height : (down + 1) * height, across * width : (across + 1) * width]
        there[:] = samples[index * height : index * height + len(there), : there.shape[1]]
