"""JPEG bytes to RGB with NVIDIA's nvImageCodec, beside Pillow: on a GPU, or on its CPU backend.

It only decodes in full. Headers, bounds, orientation, other formats, grey and CMYK, JPEGs decoded at a scale, and all
steps after decoding stay in `media`. A decoder is not trusted: at its start it must give Pillow's samples, within the
tolerance that an artifact's goldens allow any decoder.

On the CPU backend (version 0.9) every sample was Pillow's own. On a GPU it has not been tried yet.
"""

from __future__ import annotations

import importlib
import io
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import LOSSY_TOLERANCE
from server.errors import BadSetting, UnreadablePicture

# nvImageCodec's NVIMGCODEC_DEVICE_CPU_ONLY.
_NO_GPU = -99999


class JpegDecoder:
    """Decodes one JPEG at a time for any number of threads, each with a decoder of its own."""

    def __init__(self, gpu: int | None) -> None:
        """`gpu`: None is the CPU. Raises BadSetting when nvImageCodec is missing or differs from Pillow."""
        try:
            self._library: Any = importlib.import_module("nvidia.nvimgcodec")
        except ImportError as exc:
            raise BadSetting(
                "TWINLENS_DECODER is nvimagecodec, and its package is not installed: pip install "
                "'nvidia-nvimgcodec-cu13[nvjpeg]', or set TWINLENS_DECODER=pillow."
            ) from exc
        self._gpu = gpu
        self._own = local()
        try:
            self._prove()
        except (RuntimeError, UnreadablePicture) as exc:
            why = str(exc).rstrip(".")
            raise BadSetting(
                f"TWINLENS_DECODER is nvimagecodec, and it does not decode here: {why}. Set TWINLENS_DECODER=pillow."
            ) from exc

    def __call__(self, data: bytes) -> Image.Image:
        """The first picture of a JPEG in three colours, in full and not turned: RGB. Raises UnreadablePicture.

        A picture that is cut short is refused, as by Pillow. One that is damaged in its middle may be decoded in part,
        where Pillow refuses it.
        """
        codec = self._library
        if not hasattr(self._own, "decoder"):
            self._own.decoder = self._decoder()
            self._own.wanted = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)
        decoded = self._own.decoder.decode(data, params=self._own.wanted)
        if decoded is None:  # nvImageCodec has written the reason to standard error
            raise UnreadablePicture()
        samples: NDArray[np.uint8] = np.asarray(decoded.cpu())
        return Image.fromarray(samples, "RGB")

    def _decoder(self) -> Any:
        codec = self._library
        # Chroma is interpolated, as in libjpeg; NVIDIA's own default repeats it.
        options = {"max_num_cpu_threads": 1, "options": ":fancy_upsampling=1"}
        if self._gpu is not None:
            return codec.Decoder(device_id=self._gpu, **options)
        return codec.Decoder(device_id=_NO_GPU, backends=[codec.Backend(codec.BackendKind.CPU_ONLY)], **options)

    def _prove(self) -> None:
        """Compare with Pillow. Raises BadSetting when a sample is too far off, and what decoding raises."""
        rough = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(rough, "RGB").resize((161, 117), Image.Resampling.BICUBIC)
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                out = io.BytesIO()
                picture.save(out, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
                ours = np.asarray(self(out.getvalue()), np.int16)
                with Image.open(out) as again:
                    drift = int(np.abs(ours - np.asarray(again, np.int16)).max())
                if drift > LOSSY_TOLERANCE:
                    raise BadSetting(
                        f"TWINLENS_DECODER is nvimagecodec, and it decodes a JPEG of {subsampling} with a sample that "
                        f"is {drift} of 255 from Pillow's; {LOSSY_TOLERANCE} is allowed. Set TWINLENS_DECODER=pillow."
                    )
