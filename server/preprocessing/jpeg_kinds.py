"""The kinds of JPEG that are not read here, each by its name, from the frame header alone."""

from __future__ import annotations

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.jpeg_segments import DHP, LOSSLESS_LS, Frame

# libjpeg's own bound (JPEG_MAX_DIMENSION).
_LONGEST_SIDE = 65_500

_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_HIERARCHICAL = (0xC5, 0xC6, 0xCD, 0xCE, DHP)
_ARITHMETIC = (0xC9, 0xCA)


def refuse_what_is_not_read(frame: Frame) -> None:
    """Raises UnsupportedPicture in a sentence that names the kind, UnreadablePicture for a header that is none."""
    marker, count = frame.marker, len(frame.components)
    if marker == LOSSLESS_LS:
        raise UnsupportedPicture("This is a JPEG-LS, which is not read here; save it as an ordinary JPEG or a PNG.")
    if marker in _HIERARCHICAL:
        raise UnsupportedPicture("This JPEG is hierarchical, which is not read here; save it as an ordinary JPEG.")
    if marker in _LOSSLESS:
        raise UnsupportedPicture("This JPEG is lossless, which is not read here; save it as an ordinary JPEG or a PNG.")
    if marker in _ARITHMETIC:
        # The decoder here could; browsers and most other programs cannot, and nobody could be shown the picture.
        raise UnsupportedPicture(
            "This JPEG is coded arithmetically, which is not read here; save it with Huffman coding, as usual."
        )
    if frame.precision != 8:
        if not 2 <= frame.precision <= 16:
            raise UnreadablePicture()
        raise UnsupportedPicture(
            f"This JPEG has {frame.precision} bits a sample, which is not read here; save it with 8 bits."
        )
    if count not in (1, 3, 4):
        if count == 0:
            raise UnreadablePicture()
        raise UnsupportedPicture(
            f"This JPEG has {count} colour components, which is not read here; save it in grey, RGB or CMYK."
        )
    if frame.height == 0 and frame.width:
        raise UnsupportedPicture(
            "This JPEG tells its height only behind the picture, which is not read here; save it anew with any program."
        )
    factors = [(one.across, one.down) for one in frame.components]
    if frame.width == 0 or not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in factors):
        raise UnreadablePicture()
    if max(frame.width, frame.height) > _LONGEST_SIDE:
        raise UnsupportedPicture(
            f"This JPEG is {frame.width} x {frame.height} pixels; its decoder reads at most {_LONGEST_SIDE:,} a side."
            " Send it smaller."
        )
    most_across, most_down = max(across for across, _ in factors), max(down for _, down in factors)
    if any(most_across % across or most_down % down for across, down in factors):
        raise UnsupportedPicture(
            "This JPEG has colours at a fraction of its size that is not read here (such as two thirds); save it with"
            " 4:4:4, 4:2:2 or 4:2:0."
        )
