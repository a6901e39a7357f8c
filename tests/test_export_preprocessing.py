"""The checkpoint's image processor and our spec: one policy, to the last bit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from export.errors import ExportRefused
from export.preprocessing import processor_of, read_preprocessing, reference_pixels
from server.media import decode, to_pixels

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


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"width": 224, "height": 200}},
        {"size": {"shortest_edge": 224, "longest_edge": 300}},
        {"size": SQUARE, "crop_size": 200},
        {"crop_size": {"height": 224, "width": 200}},
        {"size": 200},
        {"do_center_crop": False},
        {"do_resize": False},
        {"resample": 6},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0, 0, 0]},
        {"size": "large"},
        {"image_processor_type": "ViTImageProcessor"},
    ],
    ids=str,
)
def test_what_the_spec_cannot_say_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ExportRefused, match=r"the model|The preprocessing|The preprocessor"):
        read_preprocessing(config, "the model")
