"""Files of pictures, made on the spot."""

from __future__ import annotations

import io
import uuid
from typing import Any

from PIL import Image


def in_format(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def unseen(data: bytes) -> bytes:
    """The same picture in a file that no server has seen: what comes after its end belongs to no picture."""
    return data + uuid.uuid4().bytes
