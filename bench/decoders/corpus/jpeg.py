"""JPEG: colours, sampling, what stands in its segments, and how it ends."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import metadata

NEAR = 12
"""How far coding with loss may move a sample of `soft`; a turn or swapped colours move it by far more."""


def saved(picture: Samples | Image.Image, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def cases() -> Iterator[Case]:
    yield from _colours()
    yield from _metadata()
    yield from _segments()
    yield from _ends()
    yield from _kinds()


def _case(group: str, name: str, data: bytes, expected: Samples | None = None) -> Case:
    return Case("JPEG", group, name, data, art.soft() if expected is None else expected, NEAR)


def _colours() -> Iterator[Case]:
    soft, grey = art.soft(), art.grey_of(art.soft())
    for name, sampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
        for progressive in (False, True):
            kind = "progressive" if progressive else "baseline"
            data = saved(soft, subsampling=sampling, progressive=progressive)
            yield _case("depth and colour", f"{name}, {kind}", data)
    yield _case("depth and colour", "16-bit tables", _wide_tables(saved(soft)))
    yield _case("depth and colour", "grey that says 2 x 2", _sampled(saved(grey), 0x22), art.rgb(grey))
    yield _case("depth and colour", "quality 30", saved(soft, quality=30))
    yield _case("depth and colour", "thin", saved(soft[:, :3]), soft[:, :3])
    yield _case("depth and colour", "grey", saved(grey), art.rgb(grey))
    yield _case("depth and colour", "grey, progressive", saved(grey, progressive=True), art.rgb(grey))
    yield _case("depth and colour", "RGB as it is", saved(soft, keep_rgb=True))
    yield _case("depth and colour", "restart markers", saved(soft, restart_marker_blocks=1))
    yield _case("depth and colour", "one pixel", saved(soft[:1, :1]), soft[:1, :1])
    inks = Image.fromarray(np.dstack([255 - soft, np.zeros_like(grey)]), "CMYK")
    yield _case("depth and colour", "CMYK, as Adobe inverts it", saved(inks))
    # Pillow writes four samples a pixel as they are, inverted: here of such colours that the picture is `soft`.
    luma = np.asarray(Image.fromarray(255 - soft).convert("YCbCr"))
    four = saved(Image.fromarray(np.dstack([255 - luma, np.zeros_like(grey)]), "CMYK"))
    yield _case("depth and colour", "YCCK, as Adobe inverts it", _transformed(four, 2))
    # Nothing says what four samples are, then: all take them for inks, and for inverted ones, as Adobe has them.
    for name, data in (("CMYK", saved(inks)), ("YCCK", four)):
        bare = _without_adobe(data)
        yield Case("JPEG", "four colours without Adobe's segment", name, bare, None, NEAR, Should.BE_NAMED)


def _adobe(data: bytes) -> int:
    return data.index(b"\xff\xee\0\x0eAdobe")


def _transformed(data: bytes, transform: int) -> bytes:
    at = _adobe(data) + 15
    return data[:at] + bytes([transform]) + data[at + 1 :]


def _without_adobe(data: bytes) -> bytes:
    at = _adobe(data)
    return data[:at] + data[at + 16 :]


def _wide_tables(data: bytes) -> bytes:
    """Quantisation tables of 16 bits an entry, which baseline readers take as well."""
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if data[at + 1] == 0xDB:
            wide = b"".join(
                bytes([0x10 | body[k]]) + b"".join(struct.pack(">H", one) for one in body[k + 1 : k + 65])
                for k in range(0, len(body), 65)
            )
            out += segment(0xDB, wide)
        else:
            out += data[at : at + 2 + length]
        at += 2 + length
    return bytes(out) + data[at:]


def _sampled(data: bytes, sampling: int) -> bytes:
    """A grey JPEG whose one component says another sampling, which means nothing for one component alone."""
    at = data.index(b"\xff\xc0") + 11
    return data[:at] + bytes([sampling]) + data[at + 1 :]


def _metadata() -> Iterator[Case]:
    soft, plain = art.soft(), saved(art.soft())
    for way in range(1, 9):
        block = segment(0xE1, metadata.EXIF_PREFIX + metadata.exif(way))
        yield _case("orientation", f"{way} by EXIF", plain[:2] + block + plain[2:], art.turned(soft, way))
    for way in (3, 6):
        big = segment(0xE1, metadata.EXIF_PREFIX + metadata.exif(way, ">"))
        xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp(way))
        shown = art.turned(soft, way)
        yield _case("orientation", f"{way} by big-endian EXIF", plain[:2] + big + plain[2:], shown)
        for name, kind in (("LONG", 4), ("SSHORT", 8), ("SLONG", 9)):
            typed = segment(0xE1, metadata.EXIF_PREFIX + metadata.exif(way, kind=kind))
            yield _case("orientation of another type", f"{way} as {name}", plain[:2] + typed + plain[2:], shown)
        yield _case("orientation in XMP or text", f"{way} by XMP", plain[:2] + xmp + plain[2:], shown)
    for name in ("sRGB", "Display P3", "Adobe RGB (1998)"):
        yield _case("profile", name, plain[:2] + _icc(metadata.profile(name)) + plain[2:])
        # A conversion enlarges what was lost in coding: only others can say.
        data = plain[:2] + _icc(metadata.profile(name)) + plain[2:]
        yield Case("JPEG", "profile applied", name, data, None, NEAR, managed=True)
    grey = art.grey_of(soft)
    data = saved(grey)
    yield _case("profile", "grey", data[:2] + _icc(metadata.profile("grey")) + data[2:], art.rgb(grey))
    yield _case("profile", "grey, beside colours", plain[:2] + _icc(metadata.profile("grey")) + plain[2:])
    yield _case("profile", "broken", plain[:2] + _icc(metadata.BROKEN_PROFILE) + plain[2:])


def _icc(data: bytes, number: int = 1, count: int = 1) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes((number, count)) + data)


def _segments() -> Iterator[Case]:
    plain = saved(art.soft())
    bare = plain[:2] + plain[20:]  # without JFIF
    odd = {
        "no JFIF": b"",
        "short JFIF": segment(0xE0, b"JFIF"),
        "empty APP0": segment(0xE0, b""),
        "JFXX": segment(0xE0, b"JFXX\0\x13\1\1\0\0\0"),
        "JFIF with a large thumbnail": segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\xff\xff"),
        "short EXIF": segment(0xE1, b"Exif\0\0II"),
        "EXIF of nonsense": segment(0xE1, b"Exif\0\0" + bytes(range(100))),
        "EXIF that points outside": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "EXIF that points at itself": segment(
            0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"
        ),
        "XMP of nonsense": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(range(100))),
        "short ICC": segment(0xE2, b"ICC_PROFILE\0"),
        "second half of an ICC": _icc(bytes(100), 2, 2),
        "ICC out of order": _icc(bytes(100), 2, 2) + _icc(metadata.profile("sRGB"), 1, 2),
        "ICC part 0": _icc(bytes(100), 0, 0),
        "short MPF": segment(0xE2, b"MPF\0"),
        "MPF of nonsense": segment(0xE2, b"MPF\0" + bytes(range(60))),
        "MPF that points outside": segment(
            0xE2,
            b"MPF\0II*\0\x08\0\0\0\3\0\0\xb0\7\0\4\0\0\0" + b"0100" + b"\1\xb0\4\0\1\0\0\0\2\0\0\0"
            b"\2\xb0\7\0\x20\0\0\0\xff\xff\xff\0" + bytes(4),
        ),
        "short Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM"),
        "Photoshop with a wrong length": segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
        "Photoshop with a short resolution": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\2\0\0"),
        "Photoshop of nonsense": segment(0xED, b"Photoshop 3.0\0" + bytes(range(40))),
        "short Adobe": segment(0xEE, b"Adobe"),
        "Adobe without its transform": segment(0xEE, b"Adobe\0\x64\0\0\0\0"),
        "empty APP14": segment(0xEE, b""),
        "comment": segment(0xFE, b"hello"),
        "empty comment": segment(0xFE, b""),
        "comment of 64 KB": segment(0xFE, b"a" * 65533),
        "200 comments": segment(0xFE, b"a" * 20) * 200,
        "APP15": segment(0xEF, b"whatever"),
        "fill bytes": b"\xff" * 9,
        "C2PA": segment(0xEB, b"JP\0\1\0\0\0\1" + bytes(30)),
    }
    for name, data in odd.items():
        yield _case("segments", name, bare[:2] + data + bare[2:])
        if name not in ("no JFIF", "fill bytes") and not name.startswith(("short JFIF", "empty APP0", "JF")):
            yield _case("segments after JFIF", name, plain[:20] + data + plain[20:])


def _ends() -> Iterator[Case]:
    plain, late = saved(art.soft()), saved(art.soft(), progressive=True)
    for kind, whole in (("baseline", plain), ("progressive", late), ("4:2:0", saved(art.soft(), subsampling=2))):
        yield _case("end", f"{kind}, without its end mark", whole[:-2])
        yield _case("end", f"{kind}, half an end mark", whole[:-1])
        yield _case("end", f"{kind}, end mark twice", whole + b"\xff\xd9")
        yield _case("end", f"{kind}, a film behind the end", whole + b"\0\0\0\x18ftypmp42" + bytes(300))
        yield _case("end", f"{kind}, bytes behind the end", whole + b"trailer" * 20)
        yield _case("end", f"{kind}, zeros behind the end", whole + bytes(500))
        yield _case("end", f"{kind}, zeros in place of the end", whole[:-2] + bytes(200))
        yield _case("end", f"{kind}, another JPEG in place of the end", whole[:-2] + saved(255 - art.soft()))
    grey = art.grey_of(art.soft())
    yield _case("end", "grey, without its end mark", saved(grey)[:-2], art.rgb(grey))
    restarts = saved(art.soft(), restart_marker_blocks=2)
    yield _case("end", "restart markers, without its end mark", restarts[:-2])
    at = plain.index(b"\xff\xc0")
    late_exif = segment(0xE1, metadata.EXIF_PREFIX + metadata.exif(6))
    turned = art.turned(art.soft(), 6)
    yield _case("segments", "EXIF right before the frame", plain[:at] + late_exif + plain[at:], turned)
    scan = plain.index(b"\xff\xda")
    yield _case("segments", "comment right before the scan", plain[:scan] + segment(0xFE, b"a") + plain[scan:])
    twice = segment(0xE1, metadata.EXIF_PREFIX + metadata.exif(6)) + segment(0xE1, metadata.EXIF_PREFIX + bytes(30))
    yield _case("segments", "a second EXIF, broken", plain[:2] + twice + plain[2:], turned)
    phone = io.BytesIO()
    first, second = Image.fromarray(art.soft()), Image.fromarray(255 - art.soft())
    first.save(phone, "MPO", save_all=True, append_images=[second], quality=95)
    yield _case("end", "multi-picture (MPO)", phone.getvalue())
    yield _case("end", "multi-picture (MPO), second one cut", phone.getvalue()[:-100])
    start = plain.index(b"\xff\xda")
    for share in (0.1, 0.5, 0.9):
        data = plain[: start + int((len(plain) - start) * share)]
        yield Case("JPEG", "cut short", f"after {share:.0%} of its pixels", data, should=Should.BE_REFUSED)
        # With an end mark no reader misses anything: what is not there is grey, or what was there before.
        name = f"after {share:.0%} of its pixels"
        yield Case("JPEG", "cut short, and closed", name, data + b"\xff\xd9", should=Should.BE_NAMED)
    late_start = late.index(b"\xff\xda")
    # The whole of the first scan: something of every pixel is there, but not its detail.
    second_scan = late.index(b"\xff\xda", late_start + 2)
    yield Case(
        "JPEG", "cut short", "progressive, in its second scan", late[: second_scan + 12], should=Should.BE_REFUSED
    )


def _kinds() -> Iterator[Case]:
    """Of a kind that is rarely read. Only the header says so: there is no encoder for them here."""
    plain = saved(art.soft(), subsampling=0)
    frame = plain.index(b"\xff\xc0")

    def marked(marker: int, bits: int = 8) -> bytes:
        return plain[:frame] + bytes((0xFF, marker)) + plain[frame + 2 : frame + 4] + bytes([bits]) + plain[frame + 5 :]

    for name, data in (
        ("12 bit", marked(0xC1, 12)),
        ("lossless", marked(0xC3)),
        ("arithmetic", marked(0xC9)),
        ("arithmetic, progressive", marked(0xCA)),
        ("hierarchical", marked(0xC5)),
    ):
        yield Case("JPEG", "rare kinds, by their header", name, data, None, should=Should.BE_NAMED)
