"""The chunks of a PNG: what decides its pixels, and of the rest what is read here.

A chunk that decides no pixel never costs the picture: one that is damaged, too large or out of place counts as absent.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from itertools import chain

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing import cicp
from server.preprocessing.metadata import exif_orientation, xmp_orientation
from server.preprocessing.stored import MOST_PROFILE_BYTES

_START = len(b"\x89PNG\r\n\x1a\n")
_KIND = re.compile(rb"[A-Za-z]{4}")
_HEADER_BYTES = 13

# Programs write an IDAT for every 8 KB or more, some for each row. Millions of empty ones would take seconds.
_MOST_CHUNKS = 100_000

# What a compressed text may unpack to.
_LONGEST_TEXT = 1 << 20

_LONGEST_PALETTE = 3 * 256
_LONGEST_KEYWORD = 80

_XMP = b"XML:com.adobe.xmp"
# How ImageMagick, and programs of before 2017, store metadata: as hexadecimal digits in a text.
_RAW_XMP = b"Raw profile type xmp"
_RAW = (b"Raw profile type exif", b"Raw profile type APP1", _RAW_XMP)
# Their name and their length, each on a line, have some 20 bytes.
_LONGEST_RAW_HEAD = 200
_XMP_IN_APP1 = b"http://ns.adobe.com/xap/1.0/\0"

# Primaries, transfer, matrix and full range, as H.273 counts them.
_SRGB_BY_CICP = bytes((1, 13, 0, 1))


@dataclass(slots=True)
class Chunks:
    """The chunks of one PNG that are read here, as raw bytes; of those that should come once, the first."""

    header: bytes
    """IHDR: 13 bytes."""
    palette: bytes | None = None
    """PLTE of a picture that needs one: up to 256 times red, green, blue."""
    transparency: bytes | None = None
    """tRNS, where it stands in its place: before the pixels, and behind a palette that it is for."""
    data: bytearray = field(default_factory=bytearray)
    """The contents of all IDAT, one after the other, as far as the file goes: a zlib stream."""
    vouched: bool = True
    """Whether the CRC of each IDAT was right; one that is cut off with the end of the file does not count."""
    exif: bytes | None = None
    xmp: bytes | None = None
    """Empty where it cannot be read: it counts as the first all the same, as every other of these does."""
    raw: dict[bytes, bytes] = field(default_factory=dict)
    """By keyword, the texts that hold metadata in hexadecimal digits."""
    icc: memoryview | None = None
    """iCCP, still compressed."""
    cicp: bytes | None = None

    def orientation(self) -> int:
        """1 to 8, by EXIF, or by XMP where EXIF says nothing; 1 without either."""
        exif, xmp = [self.exif], [self.xmp]
        for keyword, text in self.raw.items():
            block = _from_digits(text)
            if block.startswith(_XMP_IN_APP1) or keyword == _RAW_XMP:
                xmp.append(block)
            else:
                exif.append(block)
        found = (exif_orientation(block) for block in exif if block)
        else_found = (xmp_orientation(block) for block in xmp if block)
        return next(filter(None, chain(found, else_found)), 1)

    def profile(self) -> bytes | None:
        """The ICC profile, unpacked, or one made by what cICP says; None without either, or where cICP says sRGB.

        The PNG specification ranks cICP above iCCP, and iCCP above sRGB, gAMA and cHRM. Where cICP says what no profile
        can (PQ, HLG), a profile beside it describes the colours for readers that do not know cICP.
        """
        if self.cicp == _SRGB_BY_CICP:
            return None
        if self.cicp is not None and len(self.cicp) == 4 and (named := cicp.profile(self.cicp[0], self.cicp[1])):
            return named
        if self.icc is None:
            return None
        name, _, packed = bytes(self.icc[:80]).partition(b"\0")
        if not packed or packed[0] != 0:  # the one compression method that there is
            return None
        return unpacked(self.icc[len(name) + 2 :], MOST_PROFILE_BYTES, whole=True) or None


def walk(data: bytes, *, header_only: bool = False) -> Chunks:
    """All chunks up to IEND, or to the end of the file or the first thing behind the pixels that is no chunk.

    Raises UnreadablePicture where the header, or a palette that is needed, is damaged; UnsupportedPicture for Apple's
    own variant, for a chunk without which the picture must not be shown, and for chunks without number. `header_only`:
    IHDR alone.
    """
    chunks = Chunks(b"")
    pixels = chunks.data
    view, size, at = memoryview(data), len(data), _START
    read = struct.Struct(">I4s").unpack_from
    for _ in range(_MOST_CHUNKS):
        if at + 8 > size:
            break
        length, kind = read(data, at)
        start, end = at + 8, at + 8 + length
        if kind == b"IDAT":
            pixels += view[start:end]
            if end + 4 <= size and data[end : end + 4] != zlib.crc32(view[at + 4 : end]).to_bytes(4):
                chunks.vouched = False
        elif kind == b"IEND" or end > size or not _KIND.fullmatch(kind):
            break
        elif kind in _KEPT:
            right = data[end : end + 4] == zlib.crc32(view[at + 4 : end]).to_bytes(4)
            _keep(chunks, kind, view[start:end], right)
            if header_only and kind == b"IHDR":
                break
        elif not pixels and kind[0] < ord("a"):
            # An upper-case first letter means: do not show the picture without knowing this.
            raise _unknown(kind.decode())
        at = end + 4
    else:
        raise UnsupportedPicture(f"This PNG has more than {_MOST_CHUNKS:,} chunks; save it anew.")
    if not chunks.header:
        raise UnreadablePicture("This PNG has no header.")
    return chunks


def _unknown(kind: str) -> UnsupportedPicture:
    if kind == "CgBI":
        return UnsupportedPicture(
            "This PNG was rewritten by Xcode for an app (CgBI), which is not read here; send the PNG that it was "
            "made of."
        )
    return UnsupportedPicture(
        f"This PNG has a chunk {kind} that is not known here, and that it says it cannot be shown without; "
        "save it as a plain PNG."
    )


_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"cICP", b"iTXt", b"zTXt", b"tEXt"))


def _keep(chunks: Chunks, kind: bytes, content: memoryview, right: bool) -> None:
    """`right`: the chunk's CRC."""
    if kind == b"IHDR":
        if chunks.data and chunks.header:
            return
        if chunks.header or not right or len(content) != _HEADER_BYTES:
            raise UnreadablePicture("The header of this PNG is damaged.")
        chunks.header = bytes(content)
    elif kind == b"PLTE":
        # Elsewhere it is a suggestion for screens of few colours.
        if chunks.header[9:10] == b"\3" and not chunks.data:
            if not right or chunks.palette is not None or len(content) > _LONGEST_PALETTE:
                raise UnreadablePicture("The palette of this PNG is damaged.")
            chunks.palette = bytes(content)
    elif not right:
        return
    elif kind == b"tRNS":
        in_place = not chunks.data and (chunks.palette is not None or chunks.header[9:10] != b"\3")
        if in_place and chunks.transparency is None:
            chunks.transparency = bytes(content[:_LONGEST_PALETTE])
    elif kind == b"eXIf":
        if chunks.exif is None:
            chunks.exif = bytes(content)
    elif kind == b"iCCP":
        if chunks.icc is None:
            chunks.icc = content
    elif kind == b"cICP":
        if chunks.cicp is None:
            chunks.cicp = bytes(content[:8])
    else:
        _keep_text(chunks, kind, content)


def _keep_text(chunks: Chunks, kind: bytes, content: memoryview) -> None:
    keyword = bytes(content[:_LONGEST_KEYWORD]).partition(b"\0")[0]
    rest = content[len(keyword) + 1 :]
    if kind == b"iTXt":
        if keyword == _XMP and chunks.xmp is None:
            chunks.xmp = _international(rest) or b""
    elif keyword in _RAW and keyword not in chunks.raw:
        if kind == b"tEXt":
            chunks.raw[keyword] = bytes(rest[:_LONGEST_TEXT])
        elif bytes(rest[:1]) == b"\0":
            chunks.raw[keyword] = unpacked(rest[1:], _LONGEST_TEXT) or b""


def _international(rest: memoryview) -> bytes | None:
    """The text of an iTXt, from behind its keyword; None where it cannot be read."""
    compressed, method = bytes(rest[:2]).ljust(2, b"\0")
    # Behind its language and its translated keyword, which are short.
    head = bytes(rest[2 : 2 + 2 * _LONGEST_KEYWORD])
    language = head.find(b"\0")
    translated = head.find(b"\0", language + 1)
    if language < 0 or translated < 0 or method:
        return None
    text = rest[2 + translated + 1 :]
    return unpacked(text, _LONGEST_TEXT) if compressed else bytes(text[:_LONGEST_TEXT])


def _from_digits(text: bytes) -> bytes:
    """What a "Raw profile" holds: lines with its name and its length, then hexadecimal digits."""
    head = text[:_LONGEST_RAW_HEAD].lstrip()
    _, _, rest = head.partition(b"\n")
    length, ended, _ = rest.lstrip().partition(b"\n")
    if not ended or not length.strip().isdigit():
        return b""
    at = min(len(text), _LONGEST_RAW_HEAD) - len(rest.lstrip()) + len(length) + 1
    try:
        return bytes.fromhex(text[at:].decode("ascii"))
    except ValueError:
        return b""


def unpacked(packed: memoryview, most: int, *, whole: bool = False) -> bytes | None:
    """Inflated, `most` bytes of it; `whole`: or None where there are more or the end is missing. None for damage."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(packed, most)
    except zlib.error:
        return None
    return found if inflate.eof or not whole else None
