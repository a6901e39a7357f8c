"""A checkpoint's image processor and our preprocessing spec: one from the other, and the processor's pixels."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from export.errors import ExportRefused
from server.artifact.artifact import PreprocessingSpec

# Pillow's numbers for its filters, which a preprocessor_config.json uses.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

# The fast processor does the same with torchvision's resampling; the slow one is the reference for both.
_PROCESSORS = {
    "CLIPImageProcessor": CLIPImageProcessor,
    "CLIPImageProcessorFast": CLIPImageProcessor,
    "CLIPFeatureExtractor": CLIPImageProcessor,
    "SiglipImageProcessor": SiglipImageProcessor,
    "SiglipImageProcessorFast": SiglipImageProcessor,
}


def read_preprocessing(config: dict[str, Any], model: str) -> tuple[Any, PreprocessingSpec]:
    """The processor of a preprocessor_config.json, and the spec that describes the same.

    The processor reads its own config, so that older spellings (`"size": 224`) keep their meaning. Raises ExportRefused
    that names what a spec cannot express.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor"
    made_by = _PROCESSORS.get(kind) if isinstance(kind, str) else None
    if made_by is None:
        raise ExportRefused(
            f"{model} is preprocessed by {kind}, which cannot be expressed; CLIPImageProcessor and "
            "SiglipImageProcessor can."
        )
    try:
        processor = made_by.from_dict(config)
    except Exception as exc:  # a wrong type raises any error
        raise ExportRefused(f"The preprocessor_config.json of {model} makes no {made_by.__name__}: {exc!r}.") from exc
    try:
        return processor, _spec(processor)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ExportRefused(f"The preprocessing of {model} ({made_by.__name__}) cannot be expressed: {exc}.") from exc


def processor_of(spec: PreprocessingSpec) -> Any:
    """The CLIPImageProcessor that a spec describes."""
    square = {"height": spec.size, "width": spec.size}
    return CLIPImageProcessor(
        size=square if spec.resize == "squash" else {"shortest_edge": spec.edge},
        crop_size=square,
        resample=next(number for number, name in _RESAMPLE.items() if name == spec.resample),
        rescale_factor=spec.rescale,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )


def reference_pixels(processor: Any, picture: Image.Image) -> NDArray[Any]:
    """The processor's pixels, uint8[S, S, 3], before it scales and normalises.

    Colours are always converted to RGB, as by the server, even where a processor's config does not ask for it.
    """
    batch = processor(picture, do_convert_rgb=True, do_rescale=False, do_normalize=False, data_format="channels_last")
    pixels: NDArray[Any] = batch["pixel_values"][0]
    return pixels


def _spec(processor: Any) -> PreprocessingSpec:
    """Raises ValueError or TypeError, whose text is the part of a sentence that names what cannot be expressed."""
    if not processor.do_resize:
        raise ValueError("it does not resize (do_resize is false), but a tower takes pictures of one size")
    size = dict(processor.size)
    # SigLIP's processor never crops, even where its config has fields for cropping.
    crops = isinstance(processor, CLIPImageProcessor) and processor.do_center_crop
    square = _square(dict(processor.crop_size), "crop_size") if crops else None
    if set(size) == {"shortest_edge"}:
        if square is None:
            raise ValueError("it keeps the aspect and does not crop (do_center_crop is false), so nothing is square")
        edge, resize = _whole(size["shortest_edge"], "shortest_edge"), "shortest-edge"
    elif set(size) == {"height", "width"}:
        edge, resize = _square(size, "size"), "squash"
        if square is not None and square != edge:
            raise ValueError(f"it squashes to {edge} x {edge} and then crops to {square} x {square}")
    else:
        raise ValueError(f"its size is {size}, neither a shortest_edge nor height and width")
    resample = processor.resample
    # The processor's default is a member of Pillow's enumeration; a bool would pass for 0 or 1.
    if not isinstance(resample, int) or isinstance(resample, bool) or resample not in _RESAMPLE:
        raise ValueError(f"its resample is {resample!r}, none of Pillow's filters 0 to 5")
    side = edge if square is None else square
    if side > edge:
        raise ValueError(f"its crop of {side} is larger than the resized edge of {edge}, which pads with black")
    return PreprocessingSpec(
        size=side,
        resize=resize,  # type: ignore[arg-type]  # one of the two above
        edge=edge,
        resample=_RESAMPLE[int(resample)],  # type: ignore[arg-type]  # one of the table
        rescale=_number(processor.rescale_factor, "rescale_factor") if processor.do_rescale else 1.0,
        mean=_triple(processor.image_mean, "image_mean") if processor.do_normalize else (0.0, 0.0, 0.0),
        std=_triple(processor.image_std, "image_std") if processor.do_normalize else (1.0, 1.0, 1.0),
    )


def _square(size: dict[str, Any], what: str) -> int:
    if set(size) != {"height", "width"} or size["height"] != size["width"]:
        raise ValueError(f"its {what} is {size}, not a square")
    side = _whole(size["height"], f"{what}'s height")
    _whole(size["width"], f"{what}'s width")  # it may be 64.0, which equals 64
    return side


def _triple(value: Any, what: str) -> tuple[float, float, float]:
    values = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"its {what} is {value!r}, not one number for each of three channels")
    red, green, blue = (_number(one, what) for one in values)
    return red, green, blue


def _whole(value: Any, what: str) -> int:
    # Processors accept 64.0 and true as 64 and 1 in places; the manifest has integers only.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"its {what} is {value!r}, not a whole number")
    return value


def _number(value: Any, what: str) -> float:
    """Raises ValueError for anything but a finite number that float64 holds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer of 400 digits
            if math.isfinite(number := float(value)):
                return number
    raise ValueError(f"its {what} is {value!r}, not a finite number")
