"""The checkpoint's image processor and our spec: one policy, to the last bit."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from export.checkpoints.preprocessing import processor_of, read_preprocessing, reference_pixels
from export.errors import ExportRefused
from server.preprocessing.media import decode, to_pixels

SIZES = [(224, 224), (225, 224), (300, 300), (299, 301), (640, 427), (427, 640), (37, 51), (5, 7), (2, 2)]
SIZES += [(33, 900), (900, 33), (1023, 767), (101, 100), (7, 400)]

SQUARE = {"height": 224, "width": 224}
POLICIES: dict[str, dict[str, Any]] = {
    "clip": {},
    "laion": {"size": {"shortest_edge": 224}, "crop_size": SQUARE, "resample": 3},
    "a margin": {"size": {"shortest_edge": 256}},
    "an odd margin": {"size": {"shortest_edge": 249}, "crop_size": {"height": 200, "width": 200}},
    "squashed": {"size": SQUARE, "do_center_crop": False},
    "squashed and cropped to the same": {"size": SQUARE},
    "bilinear": {"resample": 2},
    "lanczos": {"resample": 1},
    "nearest": {"resample": 0},
    "box": {"resample": 4},
    "hamming": {"resample": 5},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    "siglip with a crop that it ignores": {
        "image_processor_type": "SiglipImageProcessor",
        "size": SQUARE,
        "do_center_crop": True,
        "crop_size": {"height": 100, "width": 90},
    },
    "siglip 2": {"image_processor_type": "SiglipImageProcessorFast", "size": SQUARE, "resample": 2},
}


def noise(width: int, height: int) -> Image.Image:
    """A picture in which every sample counts."""
    samples = np.random.default_rng(width * 7919 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pixels_equal_the_processors_to_the_last_bit(policy: str, size: tuple[int, int]) -> None:
    processor, spec = read_preprocessing(POLICIES[policy], "it")
    picture = noise(*size)
    out = io.BytesIO()
    picture.save(out, "PNG")
    ours = to_pixels(decode(out.getvalue(), max_pixels=10**7).image, spec)
    assert np.array_equal(ours, reference_pixels(processor, picture))
    # What `verify` proves with, when the checkpoint is gone, is the same policy.
    assert np.array_equal(ours, reference_pixels(processor_of(spec), picture))


def test_old_spellings_mean_what_they_meant() -> None:
    old = {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": 224,
    }
    _, spec = read_preprocessing(old, "it")
    new = CLIPImageProcessor().to_dict()
    assert spec == read_preprocessing(new, "it")[1]
    assert (spec.size, spec.edge, spec.resize, spec.resample, spec.rescale) == (
        224,
        224,
        "shortest-edge",
        "bicubic",
        1 / 255,
    )


def test_what_is_switched_off_is_said_by_the_numbers() -> None:
    _, spec = read_preprocessing({"do_rescale": False, "do_normalize": False}, "it")
    assert (spec.rescale, spec.mean, spec.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_one_mean_for_all_channels_is_three() -> None:
    _, spec = read_preprocessing({"image_mean": 0, "image_std": 0.5}, "it")
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"size": {"width": 224, "height": 200}}, "its size is .*, not a square"),
    ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "neither a shortest_edge nor height and width"),
    ({"size": SQUARE, "crop_size": 200}, "it squashes to 224 x 224 and then crops to 200 x 200"),
    ({"crop_size": {"height": 224, "width": 200}}, "its crop_size is .*, not a square"),
    ({"size": 200}, "its crop of 224 is larger than the resized edge of 200"),
    ({"do_center_crop": False}, "keeps the aspect and does not crop"),
    ({"do_resize": False}, "does not resize"),
    ({"resample": 6}, "its resample is 6, none"),
    ({"resample": 3.0}, "its resample is 3.0, none"),
    ({"resample": True}, "its resample is True, none"),
    ({"image_mean": [0.5, 0.5]}, r"its image_mean is \[0.5, 0.5\], not one number for each"),
    ({"image_mean": "grey"}, "its image_mean is 'grey', not one number for each"),
    ({"image_mean": [0.5, "0.5", 0.5]}, "its image_mean is '0.5', not a finite number"),
    ({"image_mean": [0.5, True, 0.5]}, "its image_mean is True, not a finite number"),
    ({"image_mean": float("nan")}, "its image_mean is nan, not a finite number"),
    ({"image_std": [0.5, float("inf"), 0.5]}, "its image_std is inf, not a finite number"),
    ({"image_std": [0, 0, 0]}, "rescale and std must be positive"),
    ({"rescale_factor": float("nan")}, "its rescale_factor is nan, not a finite number"),
    ({"rescale_factor": float("-inf")}, "its rescale_factor is -inf, not a finite number"),
    ({"rescale_factor": 10**400}, "its rescale_factor is 10*, not a finite number"),
    ({"rescale_factor": 0}, "rescale and std must be positive"),
    ({"size": {"shortest_edge": 224.0}}, "its shortest_edge is 224.0, not a whole number"),
    ({"size": {"shortest_edge": 224.5}}, "its shortest_edge is 224.5, not a whole number"),
    ({"size": {"height": 224.0, "width": 224.0}}, "its size's height is 224.0, not a whole number"),
    ({"crop_size": {"height": 224.0, "width": 224}}, "its crop_size's height is 224.0, not a whole number"),
    ({"crop_size": {"height": 224, "width": 224.0}}, "its crop_size's width is 224.0, not a whole number"),
    ({"crop_size": {"height": True, "width": True}}, "its crop_size's height is True, not a whole number"),
    ({"size": {"shortest_edge": 5000}}, "at most 4096"),
    ({"size": "large"}, "makes no CLIPImageProcessor"),
    ({"image_processor_type": "ViTImageProcessor"}, "preprocessed by ViTImageProcessor"),
    ({"image_processor_type": ["CLIPImageProcessor"]}, "preprocessed by "),
    ({"image_processor_type": "SiglipImageProcessor", "size": 224}, r"\(SiglipImageProcessor\) cannot be expressed"),
    (
        {"image_processor_type": "SiglipImageProcessor", "size": {"shortest_edge": 224}, "do_center_crop": True},
        "keeps the aspect and does not crop",
    ),
    ({"image_processor_type": "Siglip2ImageProcessor"}, "preprocessed by Siglip2ImageProcessor"),
]


@pytest.mark.parametrize(("config", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_the_spec_cannot_say_is_refused_in_its_own_words(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ExportRefused, match=words) as refused:
        read_preprocessing(config, "the model")
    assert "the model" in refused.value.sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["rescale", "mean", "std"])
def test_a_spec_holds_finite_numbers_only(field: str, value: float) -> None:
    _, spec = read_preprocessing({}, "it")
    with pytest.raises(ValueError, match="must be finite numbers"):
        msgspec.structs.replace(spec, **{field: value if field == "rescale" else (0.5, value, 0.5)})
