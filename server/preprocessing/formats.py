"""The file formats that are read here, and which one some bytes are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.errors import MediaRejected, NoPicture, NotAPicture
from server.preprocessing.refused import refusal


@dataclass(frozen=True, slots=True)
class Format:
    """A file format that is read here: Pillow's name for it, its media type, and the usual file extension."""

    pillow: str
    content_type: str
    extension: str


JPEG = Format("JPEG", "image/jpeg", "jpg")
PNG = Format("PNG", "image/png", "png")
WEBP = Format("WEBP", "image/webp", "webp")
GIF = Format("GIF", "image/gif", "gif")
BMP = Format("BMP", "image/bmp", "bmp")
TIFF = Format("TIFF", "image/tiff", "tif")
AVIF = Format("AVIF", "image/avif", "avif")
# HEIC is what phones write: HEIF with HEVC inside, and a brand that says so. A file of the general brand alone is HEIF.
HEIC = Format("HEIF", "image/heic", "heic")
HEIF = Format("HEIF", "image/heif", "heif")

_BY_CONTENT_TYPE = {one.content_type: one for one in (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC, HEIF)}

_SIGNATURES: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    (JPEG, lambda head: head.startswith(b"\xff\xd8\xff")),
    (PNG, lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    (WEBP, lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    (GIF, lambda head: head[:6] in (b"GIF87a", b"GIF89a")),
    (BMP, lambda head: head.startswith(b"BM")),
    (TIFF, lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_HEIF_BRANDS = {b"mif1", b"mif2", b"msf1"}
# An honest file names about ten; libheif reads no more than this.
_MOST_BRANDS = 1000


CONTENT_TYPES = tuple(_BY_CONTENT_TYPE)
"""Of all formats."""


def of_content_type(content_type: str | None) -> Format | None:
    """The format of this media type; None where it is none that is read here."""
    return _BY_CONTENT_TYPE.get(content_type or "")


def sniff(data: bytes) -> Format:
    """The format, by the first bytes; file names and declared types are not trusted.

    Raises NoPicture for no bytes, NotAPicture for bytes of a format that is not read here.
    """
    if not data:
        raise NoPicture()
    head = data[:64]
    for form, matches in _SIGNATURES:
        if matches(head):
            return form
    brands = _brands(data)
    if found := _of_brands(brands):
        return found
    raise NotAPicture(refusal(data, brands))


def name_of(data: bytes) -> str:
    """The format's name, by the first bytes, as its media type has it: `jpeg`; `none` where it is none of ours."""
    try:
        return sniff(data).content_type.removeprefix("image/")
    except MediaRejected:
        return "none"


def _brands(data: bytes) -> list[bytes]:
    """What an ISO base media file says it is, the major brand first; nothing for other files."""
    if data[4:8] != b"ftyp":
        return []
    size, start = int.from_bytes(data[:4]), 8
    if size == 1:  # the size is too large for 32 bits, or claims to be
        size, start = int.from_bytes(data[8:16]), 16
    end = min(size or len(data), len(data), start + 8 + 4 * _MOST_BRANDS)
    # After the major brand stands its version, then the compatible ones.
    return [data[at : at + 4] for at in (start, *range(start + 8, end, 4)) if at + 4 <= end]


def _of_brands(brands: list[bytes]) -> Format | None:
    """The major brand decides between HEIC and AVIF; a general one leaves it to the compatible ones."""
    for named in (set(brands[:1]), set(brands)):
        if named & _AVIF_BRANDS:
            return AVIF
        if named & _HEIC_BRANDS:
            return HEIC
    return HEIF if set(brands) & _HEIF_BRANDS else None
