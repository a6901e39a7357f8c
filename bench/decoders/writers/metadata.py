"""EXIF, XMP and ICC profiles, from bytes."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from export.proof.profiles import SPACES, grey_profile, linear, rgb_profile, to_xyz

EXIF_PREFIX = b"Exif\0\0"
BROKEN_PROFILE = b"\0\0\2\0this is no profile" + bytes(range(200))


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block, from its TIFF header on; `kind`: 3 SHORT as it should be, 4 LONG, 8 SSHORT, 9 SLONG."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    code = {3: "H2x", 4: "I", 8: "h2x", 9: "i"}[kind]
    entry = struct.pack(order + "HHI" + code, 0x0112, kind, 1, orientation)
    return head + struct.pack(order + "H", 1) + entry + bytes(4)


def xmp(orientation: int) -> bytes:
    """An XMP packet with tiff:Orientation as an attribute."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


_GREY_GAMMA = 563 / 256


def to_srgb(space: str, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[..., 3] of such a space in sRGB, by its profile's arithmetic: what lies outside sRGB is clipped."""
    wide, srgb = SPACES[space], SPACES["sRGB"]
    light = np.clip(linear(colours / 255, wide.gamma) @ (np.linalg.inv(to_xyz(srgb)) @ to_xyz(wide)).T, 0, 1)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    converted: NDArray[np.uint8] = np.floor(encoded * 255 + 0.5).astype(np.uint8)
    return converted


def profile(space: str) -> bytes:
    """A small ICC profile (version 2): of one of SPACES, or `grey`."""
    return grey_profile(space, _GREY_GAMMA) if space == "grey" else rgb_profile(space, SPACES[space])
