"""The samples of a TIFF's picture, as numbers: fetched, decompressed, their prediction undone, unpacked.

In pieces of a few megabytes, so that what is held beside the picture itself stays small. A file may keep its blocks
anywhere, several in one place, and give them any length: all of it is checked before anything is decompressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing import tiff_directory as tags
from server.preprocessing.libtiff import Block, decompress, samples_of
from server.preprocessing.tiff_bits import unpacked_bits
from server.preprocessing.tiff_colours import ycbcr_to_rgb
from server.preprocessing.tiff_directory import Directory, Numbers
from server.preprocessing.tiff_layout import CCITT, JPEG, PLAIN, Layout

# Bytes of a piece, decompressed and compressed, where its blocks are not larger.
_PIECE, _MOST_COMPRESSED = 4 << 20, 32 << 20
# Equal blocks may lie in one place, as blank tiles do; but not so often that a small file asks for endless work.
_MOST_SHARED = 32 << 20
_LONGEST_TABLES = 1 << 16
# Pillow's modes for so many bytes a pixel, of whatever meaning.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "CMYK"}
_FAX_OPTIONS = (tags.T4_OPTIONS, tags.T6_OPTIONS)
_END_OF_FAX = 0x001001
# Noise, always the same: of those that were tried it shows the most ends, all of them but within a few last rows.
_NO_FAX = np.random.default_rng(0).integers(0, 256, 256, dtype=np.uint8).tobytes()
_END_OF_JPEG = b"\xff\xd9"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of strips, or some tiles that follow each other, one upon another."""

    at: int
    """Of strips, the row of the picture that it begins with; of tiles, its first one, counted row by row."""
    plane: int
    """Which of the samples in use, where each has blocks of its own; else 0."""
    samples: NDArray[Any]
    """[rows, block width, samples], unsigned, signed or floating point as the layout says; YCbCr has become RGB."""


def pieces(page: Directory, layout: Layout) -> Iterator[Piece]:
    """Raises UnreadablePicture for what lies outside of the file or cannot be decompressed, UnsupportedPicture where
    a library is missing or bounded."""
    blocks = layout.across * layout.down
    planes = layout.used if layout.planar else [0]
    wanted = np.concatenate([np.arange(plane * blocks, (plane + 1) * blocks) for plane in planes])
    offsets = layout.offsets[wanted]
    counts = _checked_counts(page.data, layout, offsets, None if layout.counts is None else layout.counts[wanted])
    step = max(1, _PIECE // _block_bytes(layout, layout.block_height))
    if layout.block_height % layout.subsampling[1]:
        step = 1  # the last rows of a block have no others to share Cb and Cr with
    for plane in range(len(planes)):
        start = 0
        while start < blocks:
            stop = min(start + step, blocks)
            here = plane * blocks
            while stop > start + 1 and counts[here + start : here + stop].sum() > _MOST_COMPRESSED:
                stop = start + (stop - start) // 2
            places, lengths = offsets[here + start : here + stop], counts[here + start : here + stop]
            at = start if layout.tiled else start * layout.block_height
            for samples in _samples(page, layout, places, lengths, _rows(layout, start, stop)):
                yield Piece(at, plane, samples)
                at += len(samples)  # of tiles, there is one piece alone
            start = stop


def _rows(layout: Layout, start: int, stop: int) -> int:
    """Rows of pixels in these blocks, one upon another: tiles are always whole, the last strip may be shorter."""
    if layout.tiled:
        return (stop - start) * layout.block_height
    return min(layout.height, stop * layout.block_height) - start * layout.block_height


def _row_bytes(layout: Layout) -> int:
    """Bytes of a row; of YCbCr, of a row of those units that share their Cb and Cr."""
    across, down = layout.subsampling
    if layout.colours == "ycbcr" and (across, down) != (1, 1):
        return -(-layout.block_width // across) * (across * down + 2)
    stored = 1 if layout.planar else layout.samples
    return -(-layout.block_width * stored * layout.bits // 8)


def _block_bytes(layout: Layout, rows: int) -> int:
    return _row_bytes(layout) * -(-rows // layout.subsampling[1])


def _checked_counts(data: bytes, layout: Layout, offsets: Numbers, given: Numbers | None) -> Numbers:
    """How many bytes of the file each block has; where the file does not say, up to the next block."""
    blocks, size = len(offsets), len(data)
    if offsets.min() < 8 or offsets.max() >= size:
        raise UnreadablePicture()
    if layout.compression == PLAIN:
        counts = np.full(blocks, _block_bytes(layout, layout.block_height), np.int64)
        if not layout.tiled:
            per_plane = layout.across * layout.down
            last = _rows(layout, per_plane - 1, per_plane)
            counts[per_plane - 1 :: per_plane] = _block_bytes(layout, last)
        if (offsets + counts).max() > size:
            raise UnreadablePicture()
        return counts
    ends = np.append(np.unique(offsets), size)
    to_next = ends[np.searchsorted(ends, offsets, side="right")] - offsets
    counts = to_next if given is None else np.where(given > 0, given, to_next)
    # Decoders of bytes miss what is not there. These fill it with grey or white.
    if layout.compression in (*CCITT, JPEG) and (counts > size - offsets).any():
        raise UnreadablePicture()
    counts = np.minimum(counts, size - offsets)
    if counts.sum() > size + _MOST_SHARED:
        raise UnreadablePicture()
    return counts


def _samples(page: Directory, layout: Layout, offsets: Numbers, counts: Numbers, rows: int) -> Iterator[NDArray[Any]]:
    """Blocks to samples: of tiles all at once, of strips some rows at a time, for a strip may be the whole picture."""
    blocks = _fetched(page.data, layout, offsets, counts)
    stored = 1 if layout.planar else layout.samples
    size = (layout.block_width, rows)
    step = rows if layout.tiled else max(1, _PIECE // _row_bytes(layout))
    simple = layout.bits == 8 and stored in _MODES and layout.numbering == "unsigned" and layout.colours != "ycbcr"
    picture = None
    if layout.compression in CCITT:
        options = {tag: [page.number(tag, 0) & 0xFFFF] for tag in _FAX_OPTIONS if tag in page.entries}
        picture = _of_fax(blocks, layout, size, options)
    elif layout.compression == JPEG or (layout.predictor == 2 and simple):
        picture = _as_picture(page, layout, blocks, size, stored)
    if picture is not None:
        for top in range(0, rows, step):
            yield samples_of(picture, top, top + step)
        return
    down = layout.subsampling[1]
    wide, units = _row_bytes(layout), -(-rows // down)
    if layout.compression == PLAIN:
        plain = np.frombuffer(blocks[0] if len(blocks) == 1 else b"".join(blocks), np.uint8).reshape(units, wide)
    else:
        unit_height = -(-layout.block_height // down)
        packed = decompress(blocks, layout.compression, "L", (wide, units), unit_height)
    step = -(-step // down)
    for top in range(0, units, step):
        compressed = layout.compression != PLAIN
        raw = samples_of(packed, top, top + step)[..., 0] if compressed else plain[top : top + step]
        if layout.colours == "ycbcr":
            if layout.predictor == 2:  # only where each pixel has a Cb and a Cr of its own
                raw = add_up(raw.reshape(len(raw), -1, stored).copy()).reshape(raw.shape)
            yield ycbcr_to_rgb(page, layout, raw, min(rows - top * down, step * down))
        else:
            yield unpacked(raw, layout.block_width, stored, layout)


def _fetched(data: bytes, layout: Layout, offsets: Numbers, counts: Numbers) -> list[Block]:
    view = memoryview(data)
    if layout.compression == PLAIN and not layout.bits_reversed and (offsets[1:] == (offsets + counts)[:-1]).all():
        return [view[int(offsets[0]) : int(offsets[-1] + counts[-1])]]
    blocks: list[Block] = [
        view[start : start + count] for start, count in zip(offsets.tolist(), counts.tolist(), strict=True)
    ]
    if layout.bits_reversed and layout.compression != JPEG:
        return [bytes(block).translate(_REVERSED) for block in blocks]
    return blocks


def _of_fax(blocks: list[Block], layout: Layout, size: tuple[int, int], options: dict[int, Any]) -> Image.Image:
    """Blocks of CCITT compression. Raises UnreadablePicture where one ends before its rows do.

    libtiff does not tell: it leaves the rows that are missing as they are. But then what follows the data is decoded
    too, and nearly always makes another picture. A mark of the end, with which nearly all of group 4 ends, spares the
    second look.
    """
    if not all(map(_is_marked_as_ended, blocks)):
        followed: list[Block] = [bytes(block) + _NO_FAX for block in blocks]
        other = decompress(followed, layout.compression, "1", size, layout.block_height, options).tobytes()
        picture = decompress(blocks, layout.compression, "1", size, layout.block_height, options)
        if picture.tobytes() != other:
            raise UnreadablePicture()
        return picture
    return decompress(blocks, layout.compression, "1", size, layout.block_height, options)


def _is_marked_as_ended(block: Block) -> bool:
    """Whether nothing but noughts follows group 4's mark of the end (EOFB)."""
    last = int.from_bytes(block[-5:], "big")
    return last != 0 and last // (last & -last) & 0xFFFFFF == _END_OF_FAX


def _as_picture(
    page: Directory, layout: Layout, blocks: list[Block], size: tuple[int, int], stored: int
) -> Image.Image:
    """Blocks that are pictures themselves, or whose prediction libtiff can undo, and faster."""
    mode = _MODES[stored]
    further: dict[int, Any] = {tags.PREDICTOR: [layout.predictor]} if layout.predictor != 1 else {}
    if layout.compression == JPEG:
        if any(bytes(block).rfind(_END_OF_JPEG) < 0 for block in blocks):
            raise UnreadablePicture()
        tables = page.raw(tags.JPEG_TABLES, most=_LONGEST_TABLES)
        if tables:
            further[tags.JPEG_TABLES] = tables
        if layout.colours == "ycbcr":
            mode = "YCbCr"
            if tags.SUBSAMPLING in page.entries:
                further[tags.SUBSAMPLING] = layout.subsampling
    return decompress(blocks, layout.compression, mode, size, layout.block_height, further)


def unpacked(raw: NDArray[np.uint8], width: int, samples: int, layout: Layout) -> NDArray[Any]:
    """Rows of bytes to numbers: [rows, width, samples]. Those of odd depths that are not used are 0."""
    bits, shape = layout.bits, (len(raw), width, samples)
    if layout.predictor == 3:
        return _undo_float_prediction(raw, samples, bits).reshape(shape)
    if bits in (8, 16, 32, 64):
        kind = {"unsigned": "u", "signed": "i", "float": "f"}[layout.numbering]
        if layout.predictor == 2:
            # Whole numbers are added up whatever they mean.
            whole = np.ascontiguousarray(raw).view(f"{layout.order}u{bits // 8}").reshape(shape)
            native = whole.astype(whole.dtype.newbyteorder("="))
            return add_up(native).view(f"{kind}{bits // 8}")
        return np.ascontiguousarray(raw).view(f"{layout.order}{kind}{bits // 8}").reshape(shape)
    used = [0] if layout.planar else layout.used
    return unpacked_bits(raw, width, samples, bits, used)


def add_up(differences: NDArray[Any]) -> NDArray[Any]:
    """Undo TIFF's predictor 2 in place: every sample holds its difference to the one on its left, of the same kind."""
    for sample in range(differences.shape[2]):
        np.add.accumulate(differences[..., sample], axis=1, dtype=differences.dtype, out=differences[..., sample])
    return differences


def _undo_float_prediction(raw: NDArray[np.uint8], samples: int, bits: int) -> NDArray[Any]:
    """TIFF's predictor 3: the bytes of a row's numbers, all highest ones first, as differences. Any byte order."""
    rows, size = len(raw), bits // 8
    added = add_up(raw.reshape(rows, -1, samples).copy()).reshape(rows, size, -1)
    return np.ascontiguousarray(added.transpose(0, 2, 1)).view(f">f{size}")
