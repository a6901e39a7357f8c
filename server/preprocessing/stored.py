"""What a format's reader gives: a picture as its file holds it, and the bounds that the reader keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from server.errors import PictureTooLarge
from server.preprocessing.region import Region

MOST_PROFILE_BYTES = 4 << 20
"""What an ICC profile may have, unpacked; a larger one counts as absent. A press's, with large tables, has up to about
3 MB, a camera's or a screen's a few kilobytes."""

ReadJpeg = Callable[[bytes], Image.Image]
"""A decoder in place of Pillow's, for a JPEG of three colours that is decoded in full: RGB, not turned."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture as its file holds it: decoded, but not yet turned, laid on a ground or brought to RGB."""

    image: Image.Image
    """8 bits a sample, or a mode of wide samples (I, I;16, F) that `media` brings to 8 bits. Loaded, so that it needs
    its file no more; alpha, where there is any, is straight (not multiplied into the colours)."""
    size: tuple[int, int]
    """Width and height in full, whatever scale `image` was decoded at."""
    orientation: int = 1
    """As EXIF counts, 1 to 8; 1 where nothing is to be turned, or the decoder has turned it already."""
    scale: int = 1
    """1, or for a JPEG that was decoded at a scale 2, 4 or 8."""
    profile: bytes | None = None
    """The ICC profile that the file holds, as bytes that nobody has looked into yet; None without."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a reader may spend, and how it decodes."""

    max_pixels: int
    """Width x height of what is decoded, at most."""
    jpeg_at_least: int = 0
    """Decode a JPEG at the smallest of 1/2, 1/4 and 1/8 that leaves neither side below so many pixels; 0: in full."""
    read_jpeg: ReadJpeg | None = None
    region: Region | None = None
    """What of the upright picture is wanted: a JPEG is then decoded at a scale that fits the region. It is cut out by
    `media`; a reader gives all of the picture."""

    def check(self, width: int, height: int) -> None:
        """Call it before any pixel is decoded. Raises PictureTooLarge."""
        if width * height > self.max_pixels:
            raise PictureTooLarge(width, height, self.max_pixels)
