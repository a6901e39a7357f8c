"""What a picture may be given as, and its bytes.

A file goes as it is. A PIL image and an array go as PNG, which loses nothing, so that a picture that is in the
catalogue finds itself. These two need the extra `images`.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image | NDArray[np.uint8]
    """A path, the bytes of a file, an open file, a PIL image, or uint8[H, W, 3] in RGB."""

# Of Pillow's modes those that PNG keeps as they are, and those that become RGB with the same colours.
_KEPT = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_TO_RGB = frozenset({"CMYK", "YCbCr", "LAB", "HSV", "RGBX"})
_TO_RGBA = frozenset({"PA", "RGBa"})


def bytes_of(picture: Picture) -> bytes:
    """The bytes to send.

    Raises OSError where a file cannot be read; TypeError for what is no picture, ValueError for an array or image that
    cannot be sent without loss, or a URL in place of a path; ModuleNotFoundError where the extra `images` is missing.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str) and picture.startswith(("http://", "https://")):
        raise ValueError("This is a URL, not a path: give it as url=.")
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if _is(picture, "PIL.Image", "Image"):
        return _png_of_image(picture)
    if _is(picture, "numpy", "ndarray"):
        return _png_of_array(picture)
    if hasattr(picture, "read"):
        data = picture.read()
        if isinstance(data, bytes):
            return data
        raise TypeError("The file is open as text; open it as bytes, with 'rb'.")
    kind = type(picture).__name__
    raise TypeError(f"A picture is a path, bytes, an open file, a PIL image or an array uint8[H, W, 3]; not {kind}.")


def _is(picture: object, module: str, name: str) -> bool:
    """Whether it is of this class or one derived from it, without loading the module of those who do not use it."""
    return any(one.__name__ == name and one.__module__ == module for one in type(picture).__mro__)


def _png_of_array(array: Any) -> bytes:
    if array.dtype != "uint8" or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        shape = ", ".join(map(str, array.shape))
        raise ValueError(f"An array must be uint8[H, W, 3] in RGB, not {array.dtype}[{shape}].")
    try:
        from PIL import Image
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError("Arrays need Pillow: pip install 'twinlens[images]'.", name=exc.name) from exc
    return _png(Image.fromarray(array))


def _png_of_image(image: Any) -> bytes:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)  # PNG is saved without the tag that says how to turn it
    if image.mode in _TO_RGB | _TO_RGBA:
        image = image.convert("RGB" if image.mode in _TO_RGB else "RGBA")
        image.info.pop("icc_profile", None)  # that of the colours as they were
    elif image.mode not in _KEPT:
        raise ValueError(f"An image of mode {image.mode} cannot be sent without loss; convert it to RGB first.")
    return _png(image)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # as exact as the highest, and several times as quick
    return file.getvalue()
