"""What the readers share that leave a whole file to Pillow."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from server.preprocessing.formats import Format

# Pillow's own bound is fixed and warns on standard error; ours is a setting, checked from the header before any pixel
# is decoded.
Image.MAX_IMAGE_PIXELS = None
# A damaged file is reported to its sender, not to the server's standard error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def opened(data: bytes, form: Format) -> Image.Image:
    """The picture with its header read; no pixel is decoded. Raises whatever Pillow raises for damage."""
    return Image.open(io.BytesIO(data), formats=(form.pillow,))


def profile(image: Image.Image) -> bytes | None:
    found = image.info.get("icc_profile")
    return found if isinstance(found, bytes) and found else None
