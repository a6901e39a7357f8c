"""The one thing that is read from a picture's metadata: which way up it is.

Pillow's own readers raise for metadata that is damaged, odd or large, and would refuse a sound picture for what nobody
sees. Here what cannot be read counts as absent: None.
"""

from __future__ import annotations

import re
import struct

EXIF_PREFIX = b"Exif\0\0"

_ORIENTATION = 0x0112
# By the type of an entry: how its number is stored. A SHORT is what the standard asks for; the others occur.
_NUMBERS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}
# EXIF's first directory has about a dozen entries; a broken count may claim 65,535.
_MOST_ENTRIES = 1000

# As an attribute (tiff:Orientation="6") or an element (<tiff:Orientation>6</tiff:Orientation>).
_IN_XMP = re.compile(rb""":Orientation(?:\s*=\s*["']|\s*>)\s*([1-8])\s*["'<]""")
# Other namespaces have an Orientation of their own. This one's prefix is free, and usually tiff.
_NAMESPACE, _USUAL_PREFIX = b"http://ns.adobe.com/tiff/1.0/", b"tiff"
_DECLARED = re.compile(rb"""\sxmlns:([^\s=:"'<>]{1,64})\s*=\s*["']([^"'<>]{0,64})["']""")
_LONGEST_PREFIX = 64
_BEFORE_A_NAME = b" \t\r\n<"
# An XMP packet in a picture has a few kilobytes; the orientation stands near its beginning.
_LONGEST_XMP = 1 << 20


def exif_orientation(exif: bytes) -> int | None:
    """1 to 8, as the first directory of an EXIF block says; None where it says nothing that can be read.

    `exif` begins with the TIFF header, or with "Exif\\0\\0" before it.
    """
    if exif.startswith(EXIF_PREFIX):
        exif = exif[len(EXIF_PREFIX) :]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, _MOST_ENTRIES), 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION and kind in _NUMBERS:
                (value,) = struct.unpack_from(order + _NUMBERS[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else None
    except struct.error:  # it ends before what it promises
        pass
    return None


def xmp_orientation(xmp: bytes) -> int | None:
    """1 to 8, as an XMP packet says in `tiff:Orientation`; None where it says nothing that can be read."""
    xmp = xmp[:_LONGEST_XMP]
    if _IN_XMP.search(xmp) is None:
        return None
    declared = [(one[1], one[2]) for one in _DECLARED.finditer(xmp)]
    prefixes = {prefix for prefix, namespace in declared if namespace == _NAMESPACE}
    if not prefixes and _USUAL_PREFIX not in (prefix for prefix, _ in declared):
        prefixes = {_USUAL_PREFIX}
    for found in _IN_XMP.finditer(xmp):
        before = xmp[max(0, found.start() - _LONGEST_PREFIX - 1) : found.start()]
        begins = max(before.rfind(one) for one in _BEFORE_A_NAME)
        if begins >= 0 and before[begins + 1 :] in prefixes:
            return int(found[1])
    return None
