"""The committed starter: whole, what the export makes, and good at finding a picture again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.near_duplicates import PICTURES, nearest_others, read_pictures, search
from export import parity
from export.__main__ import main
from export.starter import DIMENSIONS, SPEC, expected_features, open_starter, orthogonal_signs
from server.artifact import Artifact, space_id
from server.encoder import Encoder
from tests.export_fixtures import ROOT, files_of

STARTER = ROOT / "models" / "starter"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.read(STARTER)


@pytest.fixture(scope="module")
def encoder(artifact: Artifact) -> Encoder:
    encoder = Encoder(artifact, "fp32", "cpu")
    encoder.open()
    return encoder


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
    assert artifact.manifest.space.id == space_id(checkpoint.tensors, SPEC)
    assert {tensor.dtype for tensor in checkpoint.tensors} == {"float16", "text"}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_vector_is_bit_identical_alone_and_in_any_batch(artifact: Artifact, threads: int) -> None:
    pixels = np.stack([picture.pixels for picture in parity.gate_pictures(artifact.spec)])
    pixels = np.concatenate([pixels, pixels[:6, ::-1]])
    with Encoder(artifact, "fp32", "cpu", threads=1) as one, Encoder(artifact, "fp32", "cpu", threads=threads) as many:
        alone = np.concatenate([one.encode(pixels[at : at + 1]) for at in range(16)])
        for batch in range(1, 17):
            assert np.array_equal(many.encode(pixels[16 - batch :]), alone[16 - batch :]), batch


def test_every_demo_picture_finds_itself_and_the_next_is_strictly_worse(artifact: Artifact, encoder: Encoder) -> None:
    pictures = read_pictures(PICTURES)
    assert len(pictures) >= 200
    assert nearest_others(encoder, artifact.spec, pictures).max() < 0.99


def test_near_duplicates_of_the_demo_catalogue_find_their_original_first(artifact: Artifact, encoder: Encoder) -> None:
    for found in search(encoder, artifact.spec, read_pictures(PICTURES)):
        assert found.first >= 0.98, (found.alteration, found.missed)


def test_the_projection_is_exactly_orthogonal() -> None:
    matrix = orthogonal_signs()
    assert matrix.shape == (DIMENSIONS, 1280)
    assert np.array_equal(matrix @ matrix.T, np.eye(DIMENSIONS) * 1280 / 1024)
    assert np.array_equal(matrix, matrix.astype(np.float16))


def test_the_centre_is_the_mean_of_a_gaussian_after_relu6() -> None:
    import torch

    bias, weight = torch.tensor([-4.0, 0.0, 2.0, 7.0, 1.0]), torch.tensor([3.0, 1.0, -2.0, 4.0, 0.0])
    draws = np.random.default_rng(0).standard_normal((400_000, 5)) * weight.numpy() + bias.numpy()
    assert np.allclose(expected_features(bias, weight), np.clip(draws, 0, 6).mean(0), atol=0.01)
