"""ICC profiles: what the numbers of a picture's colours mean, and the same colours in sRGB.

A picture's pixels are converted once it has been resized, so that a profile costs a small picture's conversion
whatever the size of the upload. Relative colorimetric, since white stays white; with black point compensation, as
image programs have it by default, since otherwise the black of a press, which is no deep one, is a dark grey.

Profiles come from strangers. One that is broken, too large or made for other colours than the picture's is as good as
none: such a picture counts as sRGB. So does one whose profile is sRGB in all but name, which most are: its pixels stay
as they are to the last bit.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from server.preprocessing.stored import MOST_PROFILE_BYTES

SAME = 2
"""A profile that moves no sample of a grid of colours by more than this, of 255, is sRGB in all but name. Profiles of
sRGB round its curve in different ways; the next kin of it, Display P3, moves some by more than 100."""

LEAST_RANGE = 64
"""A profile in which black and white, and all between, lie closer than this, of 255, says nothing that can be meant: a
damaged one can make any picture a black one."""

# A transform of a press's profile keeps a table of up to half a megabyte.
_KEPT = 32

# As littleCMS itself; the bytes of the header, and of one tag's entry in the table after it.
_MOST_TAGS = 100
_HEADER, _ENTRY = 128, 12

# Profiles of devices, and of colour spaces; not links between two devices, effects, or lists of named colours.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_CONNECTED_BY = (b"XYZ ", b"Lab ")
_SIGNATURES = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}

# The mode whose numbers a profile speaks of, for each mode of a picture.
_COLOURS_OF = {
    "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB", "P": "RGB", "PA": "RGB", "CMYK": "CMYK",
    "1": "L", "L": "L", "LA": "L", "I": "L", "F": "L",
}  # fmt: skip

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True, slots=True)
class Colours:
    """A profile that can be applied. Threads may share it."""

    mode: str
    """What its pixels are in: RGB, L or CMYK."""
    _transform: Any

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """A picture in `mode`, or in that with straight alpha (LA, RGBA), in sRGB: RGB, or RGBA with its alpha."""
        has_alpha = image.mode in ("LA", "RGBA")
        converted = Image.new("RGB", image.size)
        colours = image.convert(self.mode) if has_alpha else image
        self._transform.apply(colours.getim(), converted.getim())
        if has_alpha:
            converted.putalpha(image.getchannel("A"))
        return converted


class _Kept:
    """The profiles of late, so that a shop's thousand pictures with one profile have it read once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[bytes, str], Colours | None] = OrderedDict()
        self._lock = threading.Lock()

    def colours_of(self, profile: bytes, mode: str) -> Colours | None:
        key = (hashlib.sha256(profile).digest(), mode)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Beside the lock: reading a press's profile takes milliseconds. Two threads may both do it, to the same end.
        made = _read(profile, mode)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made


_KEPT_HERE = _Kept(_KEPT)


def colours_of(profile: bytes | None, mode: str) -> Colours | None:
    """What brings the colours of a picture in this mode of Pillow's to sRGB; None where they count as sRGB."""
    if not profile or len(profile) > MOST_PROFILE_BYTES:
        return None
    colours = "L" if mode.startswith("I;16") else _COLOURS_OF.get(mode)
    if colours is None or (sound := _sound(profile, _SIGNATURES[colours])) is None:
        return None
    return _KEPT_HERE.colours_of(sound, colours)


def _sound(profile: bytes, colours: bytes) -> bytes | None:
    """The profile as it is handed to littleCMS; None where its header says that it is no use here.

    Without the tags that hold chains of processing elements: nobody writes them, others are there in their place, and
    a chain may be as long as the file, to be walked for each colour.
    """
    if len(profile) < max(_HEADER + 4, int.from_bytes(profile[:4])) or profile[36:40] != b"acsp":
        return None
    if profile[12:16] not in _CLASSES or profile[16:20] != colours or profile[20:24] not in _CONNECTED_BY:
        return None
    count = int.from_bytes(profile[128:132])
    if count > _MOST_TAGS or len(profile) < _HEADER + 4 + count * _ENTRY:
        return None
    kept = bytearray(profile)
    for at in range(_HEADER + 4, _HEADER + 4 + count * _ENTRY, _ENTRY):
        if bytes(kept[at : at + 3]) in (b"D2B", b"B2D"):
            kept[at : at + 4] = b"none"
    return bytes(kept)


def _read(profile: bytes, mode: str) -> Colours | None:
    try:
        transform: Any = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        ).transform
    except (OSError, ImageCms.PyCMSError, ValueError):  # what Pillow raises where littleCMS gives up
        return None
    colours = Colours(mode, transform)
    grid = _GRID.convert(mode)
    before, after = (np.asarray(one, np.int16) for one in (grid.convert("RGB"), colours.to_srgb(grid)))
    is_srgb = mode != "CMYK" and np.abs(after - before).max() <= SAME
    return None if is_srgb or np.ptp(after) < LEAST_RANGE else colours


def _grid() -> Image.Image:
    """Every grey, and nine steps of each of red, green and blue in all their mixtures: 985 colours."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    mixtures = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    return Image.fromarray(np.concatenate([mixtures, greys])[None])


_GRID = _grid()
