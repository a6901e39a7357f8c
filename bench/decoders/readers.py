"""The readers that are compared: each turns a file into RGB or RGBA, upright, its profile applied only where asked.

What each is asked for is what an application would ask for that wants the picture as it is seen. The functions run in
a `Worker`; what a reader needs is imported only there.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.decoders.case import Samples
from bench.decoders.worker import Refused

if TYPE_CHECKING:
    from server.preprocessing.media import Picture

MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Reader:
    """One of those compared."""

    name: str
    target: str
    """As `Worker` takes it."""
    needs: str = ""
    """The module that it cannot do without."""
    managed: str = ""
    """As `target`, with profiles applied; empty where the reader applies none."""

    @property
    def there(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None


def twinlens(data: bytes) -> Samples:
    """As the server decodes an upload, its profile not applied yet."""
    picture = _decoded(data)
    return np.asarray(picture.image.convert("RGBA" if picture.image.has_transparency_data else "RGB"))


def twinlens_managed(data: bytes) -> Samples:
    """The same with its colours converted to sRGB."""
    return np.asarray(_decoded(data).in_srgb())


def _decoded(data: bytes) -> Picture:
    from server.errors import MediaRejected, NotAPicture, UnsupportedPicture
    from server.preprocessing.media import decode

    try:
        return decode(data, max_pixels=MAX_PIXELS)
    except MediaRejected as exc:
        raise Refused(exc.sentence, named=isinstance(exc, NotAPicture | UnsupportedPicture)) from exc


def pillow(data: bytes) -> Samples:
    """As most Python programs read a picture: open, turn, convert."""
    from PIL import Image, ImageOps

    for plugin in ("pillow_jxl", "pi_heif"):
        if find_spec(plugin):
            module = __import__(plugin)
            if plugin == "pi_heif":
                module.register_heif_opener()
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except Exception as exc:
        raise Refused(f"{type(exc).__name__}: {exc}") from exc


def libvips(data: bytes) -> Samples:
    """new_from_buffer, autorot, and to sRGB's layout; profiles are not applied, CMYK goes by libvips' own."""
    import pyvips

    try:
        image = pyvips.Image.new_from_buffer(data, "").autorot()
        if image.interpretation not in ("srgb", "b-w"):
            image = image.colourspace("srgb")
        samples = image.cast("uchar").numpy()
    except pyvips.Error as exc:
        raise Refused(" ".join(str(exc).split())) from exc
    return _coloured(samples)


def libvips_managed(data: bytes) -> Samples:
    """icc_transform by the embedded profile, relative colorimetric with black point compensation."""
    import pyvips

    try:
        image = pyvips.Image.new_from_buffer(data, "").autorot()
        if image.get_typeof("icc-profile-data"):
            image = image.icc_transform(
                "srgb", embedded=True, intent="relative", black_point_compensation=True, input_profile="srgb"
            )
        return _coloured(image.cast("uchar").numpy())
    except pyvips.Error as exc:
        raise Refused(" ".join(str(exc).split())) from exc


def opencv(data: bytes) -> Samples:
    """imdecode: turned by EXIF, 8 bits, three colours; where there is alpha, the whole, which OpenCV does not turn."""
    import cv2

    try:
        whole: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
            eight = whole if whole.dtype == np.uint8 else ((whole.astype(np.uint32) + 128) // 257).astype(np.uint8)
            return np.ascontiguousarray(eight[..., [2, 1, 0, 3]])
        seen: Samples | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        raise Refused(" ".join(str(exc).split())) from exc
    if seen is None:
        raise Refused("imdecode gives nothing")
    return seen[..., ::-1]


def _coloured(samples: Samples) -> Samples:
    """One or two samples a pixel to three or four."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] in (1, 2):
        return samples[..., [0, 0, 0, 1] if samples.shape[2] == 2 else [0, 0, 0]]
    return samples[..., :4]


_HERE = "bench.decoders.readers"
OURS = Reader("Twinlens", f"{_HERE}:twinlens", managed=f"{_HERE}:twinlens_managed")
OTHERS = (
    Reader("libvips", f"{_HERE}:libvips", "pyvips", f"{_HERE}:libvips_managed"),
    Reader("OpenCV", f"{_HERE}:opencv", "cv2"),
    Reader("Pillow", f"{_HERE}:pillow"),
)
