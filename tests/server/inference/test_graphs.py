"""Optimised copies of graphs: equal vectors, made once, and never in the way."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.artifact.artifact import Artifact
from server.errors import ArtifactInvalid
from server.inference import graphs
from server.inference.cores import Layout
from server.inference.encoder import Encoder, Serving
from tests import STARTER
from tests.support.process import KEYBOARD
from tests.support.serving import serving


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (5, 224, 224, 3), dtype=np.uint8)


def encoded(cache: Path | None, pixels: NDArray[np.uint8], layout: Layout | None = None) -> NDArray[np.float32]:
    with Encoder(Artifact.read(STARTER), "fp32", "cpu", threads=2, serving=Serving(cache=cache)) as encoder:
        if layout is None:
            return encoder.encode(pixels)
        encoder.lay_out(layout)
        assert encoder.alone is not None
        assert encoder.for_bulk_alone is not None
        wide = [encoder.alone([pixels[0]]), encoder.for_bulk_alone([pixels[0]])]
        return np.concatenate([runner(list(pixels)) for runner in (*encoder.runners, *encoder.for_bulk)] + wide)


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "graphs").iterdir())


def test_a_copy_gives_the_very_same_vectors_and_is_made_once(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    plain = encoded(None, pixels)
    np.testing.assert_array_equal(encoded(tmp_path, pixels), plain)
    (copy,) = copies(tmp_path)
    made = (copy / "graph.onnx").stat().st_mtime_ns
    np.testing.assert_array_equal(encoded(tmp_path, pixels), plain)
    assert copies(tmp_path) == [copy]
    assert (copy / "graph.onnx").stat().st_mtime_ns == made


def test_runners_side_by_side_those_for_bulk_work_and_those_that_run_alone_give_the_very_same_vectors(
    tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    plain = encoded(None, pixels)
    np.testing.assert_array_equal(
        encoded(tmp_path, pixels, Layout(2, 1, 8, 2)), [*plain, *plain, *plain, *plain, plain[0], plain[0]]
    )


def test_sessions_share_the_weights_of_a_copy(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """The weights are mapped, not read: the process maps the file, as often as it has sessions."""
    with Encoder(Artifact.read(STARTER), "fp32", "cpu", threads=2, serving=Serving(cache=tmp_path)) as encoder:
        encoder.lay_out(Layout(2, 1, 8, 2))
        mapped = Path("/proc/self/maps").read_text()
    assert str(tmp_path) in mapped


def test_a_copy_that_does_not_load_is_made_again_at_the_next_start(
    tmp_path: Path, pixels: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    plain = encoded(tmp_path, pixels)
    (copy,) = copies(tmp_path)
    (copy / "graph.onnx").write_bytes(b"not a graph")
    np.testing.assert_array_equal(encoded(tmp_path, pixels), plain)
    assert "does not load" in caplog.text
    assert copies(tmp_path) == []
    np.testing.assert_array_equal(encoded(tmp_path, pixels), plain)
    assert copies(tmp_path) == [copy]


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, pixels: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "graphs").write_text("in the way")
    np.testing.assert_array_equal(encoded(tmp_path, pixels), encoded(None, pixels))
    assert "cannot be kept" in caplog.text


def test_a_copy_with_other_weights_is_dropped_and_the_artifacts_own_graph_serves(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(database_url, tmp_path) as client:
        expected = client.post("/embed-image", files={"file": KEYBOARD}).json()["embedding"]
    for copy in copies(tmp_path / "cache"):
        size = (copy / "weights.bin").stat().st_size
        with (copy / "weights.bin").open("r+b") as weights:
            weights.seek(size // 3)
            weights.write(b"\xff" * (size // 2))
    with serving(database_url, tmp_path) as client:
        assert client.post("/embed-image", files={"file": KEYBOARD}).json()["embedding"] == expected
    assert "The optimised graphs are not used" in caplog.text
    assert copies(tmp_path / "cache") == []


def test_a_graph_that_is_not_the_manifests_is_not_copied(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(STARTER, folder)
    with (folder / "image.fp32.onnx").open("ab") as graph:
        graph.write(b"\0")
    encoder = Encoder(Artifact.read(folder), "fp32", "cpu", serving=Serving(cache=tmp_path))
    with pytest.raises(ArtifactInvalid):
        encoder.open()
    assert not (tmp_path / "graphs").exists()


def test_old_copies_go_and_what_another_process_is_making_stays(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    folder = tmp_path / "graphs"
    for name, age in (("new.abc", 0), ("left.abc", 4000)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    for age in range(10):
        (folder / f"old{age}").mkdir(parents=True)
        os.utime(folder / f"old{age}", (age, age))
    encoded(tmp_path, pixels)
    left = {one.name for one in copies(tmp_path)}
    artifact = Artifact.read(STARTER)
    assert graphs.key(artifact.digest_of("image.fp32.onnx")) in left
    assert left - {graphs.key(artifact.digest_of("image.fp32.onnx"))} == {
        "new.abc",
        *(f"old{age}" for age in range(5, 10)),
    }
