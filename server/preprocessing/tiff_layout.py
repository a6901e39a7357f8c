"""How the picture of a TIFF directory is laid out, as far as it is read here, and a refusal by name of the rest.

What is accepted here is proved right by the tests, each kind against a second decoder or by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing import tiff_directory as tags
from server.preprocessing.tiff_directory import Directory, Numbers

Colours = Literal["grey", "rgb", "palette", "cmyk", "ycbcr", "lab", "icclab"]
Alpha = Literal["straight", "associated"]
Numbering = Literal["unsigned", "signed", "float"]

PLAIN, CCITT, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, (2, 3, 4), 5, 7, 8, 32773, 32946
LZMA, ZSTD = 34925, 50000
COMPRESSIONS = {
    PLAIN: "no",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    LZW: "LZW",
    JPEG: "JPEG",
    DEFLATE: "Deflate",
    PACKBITS: "PackBits",
    OLD_DEFLATE: "Deflate",
    LZMA: "LZMA",
    ZSTD: "Zstandard",
}
# Those that a predictor goes with.
_PREDICTED = (LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD)
_NOT_READ = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32771: "word-aligned CCITT",
    32809: "ThunderScan",
    32908: "PixarFilm",
    32909: "PixarLog",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_COLOURS: dict[int, Colours] = {
    0: "grey",
    1: "grey",
    2: "rgb",
    3: "palette",
    4: "grey",
    5: "cmyk",
    6: "ycbcr",
    8: "lab",
    9: "icclab",
}
_NAMES = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "a mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32844: "LogL",
    32845: "LogLuv",
}
_COUNTS = {"grey": 1, "rgb": 3, "palette": 1, "cmyk": 4, "ycbcr": 3, "lab": 3, "icclab": 3}
_NUMBERINGS: dict[int, Numbering] = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned"}
# Each takes time of its own, however small it is. With tiles of 32 x 32 they suffice for 64 million pixels.
_MOST_BLOCKS = 1 << 16
# Beside the colours: alpha and what painting programs keep as selections.
_MOST_EXTRA = 12
_INSTEAD = "save it as 8-bit grey or RGB, or as PNG"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples of a picture lie, and what they mean. A block is a strip or a tile."""

    width: int
    height: int
    colours: Colours
    bits: int
    numbering: Numbering
    samples: int
    """A pixel: those of the colours, and extra ones."""
    alpha: Alpha | None
    """What it is; None where no extra sample is one."""
    alpha_at: int
    """Which of the samples it is, if any is."""
    white_is_zero: bool
    planar: bool
    """Every sample has blocks of its own."""
    compression: int
    predictor: int
    order: str
    bits_reversed: bool
    """The first bit of a byte is its lowest one."""
    tiled: bool
    block_width: int
    block_height: int
    subsampling: tuple[int, int]
    """YCbCr: pixels that share their Cb and Cr, across and down."""
    offsets: Numbers
    counts: Numbers | None

    @property
    def colour_count(self) -> int:
        return _COUNTS[self.colours]

    @property
    def used(self) -> list[int]:
        """Which samples make the picture: those of the colours, and alpha after them; the rest is left out."""
        return [*range(self.colour_count), *([self.alpha_at] if self.alpha else [])]

    @property
    def across(self) -> int:
        """Blocks in a row of blocks."""
        return -(-self.width // self.block_width)

    @property
    def down(self) -> int:
        return -(-self.height // self.block_height)


def layout_of(page: Directory) -> Layout:
    """Raises UnsupportedPicture for what is not read here, UnreadablePicture for what cannot be."""
    compression = page.number(tags.COMPRESSION, PLAIN)
    if compression not in COMPRESSIONS:
        name = _NOT_READ.get(compression, f"a kind numbered {compression}")
        raise UnsupportedPicture(
            f"This TIFF is compressed by {name}, which is not read here; save it with LZW or Deflate compression."
        )
    width, height = page.number(tags.WIDTH, 0), page.number(tags.HEIGHT, 0)
    samples = page.number(tags.SAMPLES, 1)
    if width <= 0 or height <= 0 or samples <= 0:
        raise UnreadablePicture()
    photometric = page.number(tags.PHOTOMETRIC, _usual_photometric(compression, samples))
    colours = _COLOURS.get(photometric)
    if colours is None:
        raise _refused(_NAMES.get(photometric, f"colours of a kind numbered {photometric}"))
    name = _NAMES[photometric]
    extra = samples - _COUNTS[colours]
    if extra < 0:
        if colours == "cmyk":
            raise _refused(f"{samples} inks, other than cyan, magenta, yellow and black")
        if colours in ("lab", "icclab"):  # L alone, by the standard
            raise _refused(f"{name} of {samples} samples")
        raise UnreadablePicture()
    if extra > _MOST_EXTRA:
        raise _refused(f"{samples} samples a pixel")
    bits = _bits(page, samples, name)
    if colours == "cmyk" and page.number(tags.INK_SET, 1) != 1:
        raise _refused("inks other than cyan, magenta, yellow and black")
    numbering = _numbering(page, samples, name)
    planar = samples > 1 and page.number(tags.PLANAR, 1) == 2
    predictor = page.number(tags.PREDICTOR, 1) if compression in _PREDICTED else 1
    subsampling = _subsampling(page) if colours == "ycbcr" else (1, 1)
    tiled = tags.TILE_OFFSETS in page.entries
    block_width = page.number(tags.TILE_WIDTH, 0) if tiled else width
    block_height = page.number(tags.TILE_HEIGHT, 0) if tiled else page.number(tags.ROWS_PER_STRIP, height)
    if not tiled and not 0 < block_height <= height:  # 2^32 - 1 means all rows, and 0 is taken for it
        block_height = height
    if block_width <= 0 or block_height <= 0:
        raise UnreadablePicture()
    in_plane = -(-width // block_width) * -(-height // block_height)
    read_here = in_plane * (min(samples, _COUNTS[colours] + 1) if planar else 1)
    if read_here > _MOST_BLOCKS:
        raise UnsupportedPicture(
            f"This TIFF is cut into {read_here:,} strips or tiles, and at most {_MOST_BLOCKS:,} are read here; "
            "save it with larger ones."
        )
    blocks = in_plane * (samples if planar else 1)
    offsets = page.numbers(tags.TILE_OFFSETS if tiled else tags.STRIP_OFFSETS, most=blocks)
    counts = page.numbers(tags.TILE_COUNTS if tiled else tags.STRIP_COUNTS, most=blocks)
    if offsets is None:
        raise UnreadablePicture()
    alpha, which = _alpha(page, extra)
    layout = Layout(
        width=width,
        height=height,
        colours=colours,
        bits=bits,
        numbering=numbering,
        samples=samples,
        alpha=alpha,
        alpha_at=_COUNTS[colours] + which,
        white_is_zero=photometric == 0,
        planar=planar,
        compression=compression,
        predictor=predictor,
        order=page.order,
        bits_reversed=page.number(tags.FILL_ORDER, 1) == 2,
        tiled=tiled,
        block_width=block_width,
        block_height=block_height,
        subsampling=subsampling,
        offsets=offsets,
        counts=counts,
    )
    _check_depth(layout, name)
    _check_compression(layout, name)
    if len(offsets) < blocks or (counts is not None and len(counts) < blocks):
        raise UnreadablePicture()
    return layout


def _refused(what: str) -> UnsupportedPicture:
    return UnsupportedPicture(f"This TIFF holds {what}, which is not read here; {_INSTEAD}.")


def _usual_photometric(compression: int, samples: int) -> int:
    """What a file means that does not say: as libtiff takes it."""
    if samples >= 3:
        return 2
    return 0 if compression in CCITT else 1


def _bits(page: Directory, samples: int, name: str) -> int:
    found = page.numbers(tags.BITS, most=samples)
    if found is None or not len(found):
        return 1
    depths = set(found.tolist())
    if len(depths) > 1:
        raise _refused(f"{name} with samples of different depths")
    return int(depths.pop())


def _numbering(page: Directory, samples: int, name: str) -> Numbering:
    found = page.numbers(tags.SAMPLE_FORMAT, most=samples)
    kinds = {1} if found is None or not len(found) else set(found.tolist())
    numbering = _NUMBERINGS.get(kinds.pop()) if len(kinds) == 1 else None
    if numbering is None:
        raise _refused(f"{name} with complex numbers, or with samples of different kinds")
    # CIELab's a and b are signed in any case, and its L is not, whatever the file calls them.
    return "unsigned" if numbering == "signed" and name == "CIELab" else numbering


def _alpha(page: Directory, extra: int) -> tuple[Alpha | None, int]:
    """What alpha there is among the samples beyond the colours, and which of them it is, from 0.

    1 is associated, 2 not; 0, unspecified, is left out. The first extra sample counts as 2 where no tag describes it,
    and so does Corel Draw's 999.
    """
    found = page.numbers(tags.EXTRA_SAMPLES, most=extra) if extra else None
    kinds = [2] if found is None or not len(found) else found.tolist()
    for which, kind in enumerate(kinds[:extra]):
        if kind:
            return ("associated" if kind == 1 else "straight"), which
    return None, 0


def _subsampling(page: Directory) -> tuple[int, int]:
    found = page.numbers(tags.SUBSAMPLING, most=2)
    across, down = (2, 2) if found is None or len(found) < 2 else found.tolist()
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        raise UnreadablePicture()
    return int(across), int(down)


def _check_depth(layout: Layout, name: str) -> None:
    """Raises UnsupportedPicture for numbers that have no agreed meaning as a picture, or none here."""
    bits, numbering = layout.bits, layout.numbering
    plain_grey = layout.colours == "grey" and layout.samples == 1 and not layout.white_is_zero
    if numbering == "float":
        right = plain_grey and bits in (16, 32, 64)
        name += " in floating point"
    elif numbering == "signed":
        right = plain_grey and bits in (16, 32)
        name += " in signed numbers"
    elif layout.colours == "palette":
        right = 1 <= bits <= 16
    elif layout.colours in ("ycbcr", "icclab"):
        right = bits == 8
    elif layout.colours == "lab":
        right = bits in (8, 16)
    else:
        right = 1 <= bits <= 16 or (plain_grey and bits == 32)
    if not right:
        what = f"{bits}-bit {name}"
        if layout.white_is_zero:
            what += ", white as zero"
        raise _refused(what + (" and extra samples" if layout.samples > layout.colour_count else ""))


def _check_compression(layout: Layout, name: str) -> None:
    """Raises UnsupportedPicture for a compression together with what it is not read with."""
    compression, bits, samples = layout.compression, layout.bits, layout.samples
    if layout.colours == "ycbcr" and (layout.planar or samples > 3):
        raise _refused("YCbCr in separate planes or with extra samples")
    if layout.predictor not in (1, 2, 3):
        raise _refused(f"samples that are predicted in a way numbered {layout.predictor}")
    if layout.predictor == 2:
        right = bits in (8, 16, 32, 64) and layout.subsampling == (1, 1)
    elif layout.predictor == 3:
        right = layout.numbering == "float"
    else:
        right = True
    if not right:
        raise _refused(f"{bits}-bit {name} that was compressed with predictor {layout.predictor}")
    stored = 1 if layout.planar else samples
    if compression in CCITT:
        right = bits == 1 and stored == 1
    elif compression == JPEG:
        right = bits == 8 and stored <= 4 and layout.numbering == "unsigned" and layout.colours != "palette"
    if not right:
        raise _refused(f"{bits}-bit {name} of {samples} samples in {COMPRESSIONS[compression]} compression")
