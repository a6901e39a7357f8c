"""The picture of a HEIF file: its size, and what it is put together from.

Only what is understood here goes to the decoder: each coded picture by itself, in a small file that is written for
it. So whatever else a file holds (EXIF, thumbnails, depth, gain maps, other pictures, things yet to be invented) can
neither spoil the picture nor cost anything, and a tile that cannot be decoded is noticed (libheif leaves it out of the
grid and says nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing import hevc
from server.preprocessing.heif_coded import Coded, CodedItems, extent
from server.preprocessing.heif_file import HeifFile, Item, Property
from server.preprocessing.heif_turns import TURNS, Size

Check = Callable[[int, int], None]
"""Given a width and a height; raises where they are too much."""

_COLOUR = b"colr"
# Those that whoever shows the picture may be told to understand; the others that are marked so are not understood here.
_UNDERSTOOD = {
    *TURNS,
    _COLOUR,
    b"hvcC",
    b"ispe",
    b"pixi",
    b"auxC",
    b"pasp",
    b"clli",
    b"mdcv",
    b"cclv",
    b"amve",
    b"ndwt",
}
_ALPHA = (b"urn:mpeg:hevc:2015:auxid:1\0", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
# Alpha is the brightness as it is coded, whatever range or colours the picture says it has.
_FULL_RANGE = bytes((0, 1, 0, 13, 0, 6, 0x80))
# Primaries, transfers and matrices that have a meaning.
_OPEN = 2
_DEFINED = ({1, 2, 22, *range(4, 13)}, {1, 2, *range(4, 19)}, {0, 1, 2, *range(4, 15)})
# A picture that is another one turned or cut, which is another one...
_MOST_DERIVATIONS = 4
# A picture has one of each at most, and so has one that is made from it.
_MOST_TURNS = 6

_ELSEWISE = {
    b"av01": "with AV1 (it is an AVIF without the mark of one)",
    b"avc1": "with H.264 (AVC)",
    b"vvc1": "with H.266 (VVC)",
    b"evc1": "with EVC",
    b"lhv1": "with layered HEVC",
    b"jpeg": "as JPEG inside of HEIF",
    b"mime": "as JPEG inside of HEIF",
    b"j2k1": "with JPEG 2000",
    b"unci": "without compression",
    b"mski": "as a mask",
    b"iovl": "as several pictures laid over each other",
    b"tmap": "as a base picture and a gain map that belong together",
    b"tili": "in tiles of an experimental kind",
}


@dataclass(frozen=True, slots=True)
class Still:
    """A picture, and the tiles it is put together from, by rows: one where it is no grid."""

    size: Size
    """As stored: before it is cut, turned and mirrored."""
    tiles: tuple[Coded, ...]
    columns: int
    turns: tuple[Property, ...]
    """Of the types `clap`, `irot` and `imir`, in the order in which they are done."""
    icc: bytes | None
    nclx: bytes | None
    """Of a `colr` box, behind its type."""
    alpha: Still | None = None
    premultiplied: bool = False


def size(file: HeifFile) -> Size:
    """Width and height as stored, from the file's boxes alone."""
    number, _ = _resolved(file)
    item = file.item(number)
    return _grid(file, number).size if item.kind == b"grid" else extent(item)


def find(file: HeifFile, check: Check) -> Still:
    """The primary picture. `check` is asked before anything of the picture is looked at."""
    check(*size(file))
    number, derived = _resolved(file)
    coded = CodedItems(file)
    still = _still(file, number, coded, derived)
    found = _alpha(file, number)
    if found is not None:
        alpha = replace(_still(file, found, coded, []), nclx=_FULL_RANGE)
        check(*alpha.size)
        return replace(still, alpha=alpha, premultiplied=found in file.refers(b"prem", number))
    return _with_alpha_of_tiles(file, number, still, coded)


def _alpha(file: HeifFile, number: int) -> int | None:
    """The item that holds the alpha of this one."""
    for one in file.referring(b"auxl", number):
        if (file.item(one).get(b"auxC") or b"").startswith(_ALPHA, 4):  # behind version and flags
            return one
    return None


def _with_alpha_of_tiles(file: HeifFile, number: int, still: Still, coded: CodedItems) -> Still:
    """libheif writes the alpha of a grid not beside the grid, but beside each of its tiles."""
    tiles = file.refers(b"dimg", number)
    alphas = {one: _alpha(file, one) for one in dict.fromkeys(tiles)}
    if not any(alphas.values()):
        return still
    made = {one: _tile(file, alpha, coded) for one, alpha in alphas.items() if alpha is not None}
    if len(made) < len(alphas) or {one.shown for one in made.values()} != {still.tiles[0].shown}:
        raise UnsupportedPicture("This HEIF has transparency for some of its tiles alone; save it as PNG.")
    alpha = Still(still.size, tuple(made[one] for one in tiles), still.columns, (), None, _FULL_RANGE)
    premultiplied = alphas[tiles[0]] in file.refers(b"prem", tiles[0])
    return replace(still, alpha=alpha, premultiplied=premultiplied)


def _resolved(file: HeifFile) -> tuple[int, list[Property]]:
    """The item that is decoded for the primary one, and the properties of those that only turn or cut it."""
    number, derived = file.primary, list[Property]()
    for _ in range(_MOST_DERIVATIONS):
        item = file.item(number)
        _require_understood(item)
        if item.kind != b"iden":
            return number, derived
        if file.referring(b"auxl", number):
            raise UnsupportedPicture(
                "This HEIF has transparency for a part of another picture, which is not read here; save it as PNG."
            )
        derived = item.properties + derived
        numbers = file.refers(b"dimg", number)
        if len(numbers) != 1:
            raise UnreadablePicture()
        number = numbers[0]
    raise UnreadablePicture()


def _require_understood(item: Item) -> None:
    if item.protected:
        raise UnsupportedPicture("This HEIF is encrypted: send the picture itself.")
    if item.kind not in (b"hvc1", b"grid", b"iden"):
        how = _ELSEWISE.get(item.kind, "in a way that is not known here")
        raise UnsupportedPicture(f"This HEIF holds its picture {how}, which is not read here; save it as JPEG or PNG.")
    if unknown := item.needed - _UNDERSTOOD:
        name = ascii(min(unknown).decode("latin-1"))
        raise UnsupportedPicture(f"This HEIF needs the property {name}, which is not read here; save it as JPEG.")


def _still(file: HeifFile, number: int, coded: CodedItems, derived: Sequence[Property]) -> Still:
    item = file.item(number)
    _require_understood(item)
    properties = [*item.properties, *derived]
    turns = _turns(properties)
    profiles = [content for kind, content in reversed(properties) if kind == _COLOUR]
    if item.kind == b"hvc1":
        one = coded.of(item)
        return Still(one.size, (one,), 1, turns, *_colours(profiles))
    if item.kind != b"grid":
        raise UnsupportedPicture("This HEIF has the transparency of another picture, which is not read here.")
    grid = _grid(file, number)
    made = {number: _tile(file, number, coded) for number in dict.fromkeys(grid.tiles)}
    tiles = tuple(made[one] for one in grid.tiles)
    (width, height), bits = tiles[0].shown, hevc.bits(tiles[0].configuration)
    if any((tile.shown, hevc.bits(tile.configuration)) != ((width, height), bits) for tile in set(made.values())):
        raise UnreadablePicture()
    # Each tile shows something, and together they show all. Else a thousand large ones would make a small picture.
    across, down = grid.columns * width - grid.size[0], len(tiles) // grid.columns * height - grid.size[1]
    if not (0 <= across < width and 0 <= down < height):
        raise UnreadablePicture()
    profiles += [content for kind, content in file.item(grid.tiles[0]).properties if kind == _COLOUR]
    return Still(grid.size, tiles, grid.columns, turns, *_colours(profiles))


def _turns(properties: Sequence[Property]) -> tuple[Property, ...]:
    turns = tuple(one for one in properties if one[0] in TURNS)
    if len(turns) > _MOST_TURNS:  # each goes over all pixels
        raise UnsupportedPicture("This HEIF is turned more often than any camera or program does.")
    return turns


def _tile(file: HeifFile, number: int, coded: CodedItems) -> Coded:
    item = file.item(number)
    _require_understood(item)
    if item.kind != b"hvc1":
        raise UnsupportedPicture("This HEIF has tiles of a kind that is not read here; save it as JPEG or PNG.")
    tile = coded.of(item, _turns(item.properties))
    # An encoder may fill a tile up to its blocks of 64 x 64, and no more: what is not shown costs as much.
    if any(whole > part + 64 for whole, part in zip(sorted(tile.size), sorted(tile.shown), strict=True)):
        raise UnreadablePicture()
    return tile


@dataclass(frozen=True, slots=True)
class _Grid:
    size: Size
    columns: int
    tiles: list[int]
    """Items, by rows."""


def _grid(file: HeifFile, number: int) -> _Grid:
    item = file.item(number)
    content = file.content(item)
    wide = 4 if content[1:2] and content[1] & 1 else 2
    if len(content) < 4 + 2 * wide or content[0]:
        raise UnreadablePicture()
    rows, columns = content[2] + 1, content[3] + 1
    found = int.from_bytes(content[4 : 4 + wide]), int.from_bytes(content[4 + wide : 4 + 2 * wide])
    tiles = file.refers(b"dimg", number)
    if not all(found) or len(tiles) != rows * columns:
        raise UnreadablePicture()
    if item.get(b"ispe") and extent(item) != found:
        raise UnreadablePicture("The HEIF gives two sizes for its picture.")
    return _Grid(found, columns, tiles)


def _colours(profiles: Sequence[bytes]) -> tuple[bytes | None, bytes | None]:
    """The first ICC profile and the first numbers."""
    icc = next((one[4:] for one in profiles if one[:4] in (b"prof", b"rICC")), None)
    return icc, next((_plausible(one[4:]) for one in profiles if one[:4] == b"nclx"), None)


def _plausible(nclx: bytes) -> bytes | None:
    """With what ITU-T H.273 does not know left open; the decoder would refuse the picture for it."""
    if len(nclx) < 7:
        return None
    numbers = (int.from_bytes(nclx[at : at + 2]) for at in (0, 2, 4))
    known = (one if one in defined else _OPEN for one, defined in zip(numbers, _DEFINED, strict=True))
    return b"".join(one.to_bytes(2) for one in known) + nclx[6:7]
