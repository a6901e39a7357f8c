"""What is often sent and is no picture that is read here: its name, and what to send instead."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

_SAVE = "save the picture as JPEG or PNG"
_EXPORT = "export it as JPEG or PNG"
_STILL = "send a single frame as JPEG or PNG"
_INSIDE = "send the pictures that are in it, each by itself"
_NO_PICTURE = "not a picture"


class _Kind(NamedTuple):
    """A kind of file that is not read: what it is, with its article; what to do; and how it begins."""

    name: str
    instead: str
    begins: tuple[bytes, ...] = ()
    matches: Callable[[bytes], object] | None = None


_KINDS = (
    _Kind("a JPEG XL picture", _SAVE, (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")),
    _Kind("a JPEG 2000 picture", _SAVE, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    _Kind("a JPEG XR picture", _SAVE, (b"II\xbc",)),
    _Kind("a Photoshop document (PSD)", _EXPORT, (b"8BPS",)),
    _Kind("a GIMP document (XCF)", _EXPORT, (b"gimp xcf",)),
    _Kind("an icon (ICO)", _SAVE, (), lambda data: _is_icon(data, 1)),
    _Kind("a mouse pointer (CUR)", _SAVE, (), lambda data: _is_icon(data, 2)),
    _Kind("an icon of macOS (ICNS)", _SAVE, (b"icns",)),
    _Kind("a camera's raw file", "send the JPEG that the camera or its program makes of it",
          (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")),
    _Kind("an EPS or PostScript file", _EXPORT, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    _Kind("a Windows metafile (WMF or EMF)", _EXPORT, (b"\xd7\xcd\xc6\x9a",),
          lambda data: data.startswith(b"\1\0\0\0") and data[40:44] == b" EMF"),
    _Kind("an OpenEXR picture", _EXPORT, (b"\x76\x2f\x31\x01",)),
    _Kind("a Radiance HDR picture", _EXPORT, (b"#?RADIANCE", b"#?RGBE")),
    _Kind("a DDS texture", _EXPORT, (b"DDS ",)),
    _Kind("a KTX texture", _EXPORT, (b"\xabKTX ",)),
    _Kind("a TGA picture", _SAVE, (), lambda data: data[-18:-2] == b"TRUEVISION-XFILE"),
    _Kind("a Netpbm picture (PBM, PGM, PPM or PAM)", _SAVE, (), lambda data: re.match(rb"P[1-7]\s", data)),
    _Kind("a QOI picture", _SAVE, (b"qoif",)),
    _Kind("a FLIF picture", _SAVE, (b"FLIF",)),
    _Kind("a BPG picture", _SAVE, (b"BPG\xfb",)),
    _Kind("an MNG or JNG picture", _SAVE, (b"\x8aMNG\r\n\x1a\n", b"\x8bJNG\r\n\x1a\n")),
    _Kind("a PCX picture", _SAVE, (), lambda data: re.match(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", data)),
    _Kind("a Sun raster picture", _SAVE, (b"\x59\xa6\x6a\x95",)),
    _Kind("a FITS file", _EXPORT, (b"SIMPLE  =",)),
    _Kind("a DICOM file", _EXPORT, (), lambda data: data[128:132] == b"DICM"),
    _Kind("a DjVu document", "send the page as JPEG or PNG", (b"AT&TFORM",)),
    _Kind("a PDF, not a picture", "send the page as JPEG or PNG", (), lambda data: b"%PDF-" in data[:1024]),
    _Kind("an Office document, not a picture", _INSIDE, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"{\\rtf"),
          lambda data: data.startswith(b"PK\3\4") and re.search(
              rb"\[Content_Types\]\.xml|_rels/\.rels|mimetypeapplication/vnd\.oasis", data[:4096])),
    _Kind("an archive, not a picture", _INSIDE,
          (b"PK\3\4", b"PK\5\6", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"),
          lambda data: data[257:262] == b"ustar"),
    _Kind("a film, not a picture", _STILL,
          (b"\x1aE\xdf\xa3", b"FLV\1", b"\0\0\1\xba", b"\0\0\1\xb3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
          lambda data: (data[:4] == b"RIFF" and data[8:12] == b"AVI ")
          or data[4:8] in (b"moov", b"mdat", b"wide", b"skip", b"free")
          or (data[:1] == data[188:189] == data[376:377] == b"G")),
    _Kind("a sound file, not a picture", "send a picture", (b"ID3", b"fLaC", b"OggS"),
          lambda data: data[:4] == b"RIFF" and data[8:12] == b"WAVE"),
    _Kind("text in base64, not a picture", "decode it first, and send the bytes themselves",
          (b"data:image/", b"/9j/", b"iVBORw0KGgo", b"UklGR", b"R0lGOD")),
)  # fmt: skip

_SVG = _Kind("an SVG drawing", _EXPORT)
_PAGE = _Kind("a web page, not a picture", "send the bytes of the picture itself")
_TEXT = _Kind("text (XML or JSON), not a picture", "send the bytes of the picture itself")
_GZIP = _Kind("an archive (gzip), not a picture", _INSIDE)
_RAW = _Kind("a camera's raw file (CR3)", "send the JPEG that the camera or its program makes of it")
_FILM = _Kind("a film, not a picture", _STILL)

# A drawing has two or three; a file of nothing else should not keep us.
_MOST_DECLARATIONS = 100
# Characters: a drawing may have a licence as a comment before its first element.
_LONGEST_PROLOGUE = 65536
_ELEMENT = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[\s/>]")
_JSON = re.compile(r"[\[{]\s*[\[{\]}\"\dtfn-]")


def refusal(data: bytes, brands: list[bytes]) -> str | None:
    """A sentence on what these bytes are, for the person who sent them; None where we do not know.

    `brands`: those of an ISO base media file.
    """
    kind = _by_brand(brands) or _by_signature(data) or _by_text(data)
    if kind is None:
        return None
    named = kind.name if kind.name.endswith(_NO_PICTURE) else f"{kind.name}, which is not read here"
    return f"This is {named}: {kind.instead}."


def _by_brand(brands: list[bytes]) -> _Kind | None:
    if not brands:
        return None
    return _RAW if b"crx " in brands else _FILM


def _by_signature(data: bytes) -> _Kind | None:
    for kind in _KINDS:
        if data.startswith(kind.begins) or (kind.matches is not None and kind.matches(data)):
            return kind
    return None


def _is_icon(data: bytes, kind: int) -> bool:
    """A directory of one to 255 pictures. Without a picture it would be the header of a TGA."""
    return data[:5] == bytes((0, 0, kind, 0)) + data[4:5] and data[4:5] > b"\0" and data[5:6] == b"\0"


def _by_text(data: bytes) -> _Kind | None:
    if data.startswith(b"\x1f\x8b"):
        return _SVG if _first_element(_unpacked(data)) == "svg" else _GZIP
    element = _first_element(data)
    if element in ("svg", "html"):
        return _SVG if element == "svg" else _PAGE
    return _TEXT if element or _JSON.match(_text(data)) else None


def _unpacked(data: bytes) -> bytes:
    """The beginning of what gzip holds."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _LONGEST_PROLOGUE)
    except zlib.error:
        return b""


def _text(data: bytes) -> str:
    utf16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(data[:2])
    text = data[:_LONGEST_PROLOGUE].decode(utf16 or "utf-8", "replace")
    return text.lstrip("\ufeff \t\r\n\f")


def _first_element(data: bytes) -> str | None:
    """The name of a document's first element, in lower case and without prefix; None for what is not XML or HTML."""
    text = _text(data)
    for _ in range(_MOST_DECLARATIONS):
        if not text.startswith(("<?", "<!")):
            break
        if text[:14].lower() == "<!doctype html":
            return "html"
        text = _after_declaration(text)
    found = _ELEMENT.match(text)
    return found[1].lower() if found else None


def _after_declaration(text: str) -> str:
    """What follows a processing instruction, a comment or a document type; nothing where it does not end."""
    end = "?>" if text.startswith("<?") else "-->" if text.startswith("<!--") else ">"
    if end == ">" and 0 <= text.find("[") < text.find(">"):  # a document type with declarations of its own
        end = "]>"
    _, found, rest = text.partition(end)
    return rest.lstrip() if found else ""
