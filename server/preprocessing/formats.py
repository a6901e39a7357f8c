"""The file formats that are read here, and which one some bytes are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.errors import NoPicture, NotAPicture


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

_AVIF_BRANDS = (b"avif", b"avis")
_SIGNATURES: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    (JPEG, lambda head: head.startswith(b"\xff\xd8\xff")),
    (PNG, lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    (WEBP, lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    (GIF, lambda head: head[:6] in (b"GIF87a", b"GIF89a")),
    (BMP, lambda head: head.startswith(b"BM")),
    (TIFF, lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (AVIF, lambda head: head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in _AVIF_BRANDS)),
)


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
    raise NotAPicture()
