"""What CUDA needs: the parts that need no GPU here, and on a machine that has one, the runners themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.artifact.artifact import Artifact
from server.errors import BadSetting
from server.inference.cuda import CudaUnusable, OnGpu, buckets, fingerprint, runners
from server.inference.gpus import gpu_of, present, visible
from server.inference.runner import PlainRunner
from tests import STARTER

GRAPH = Artifact.read(STARTER).graph("fp32")
SHAPE = (224, 224, 3)

without_cuda = pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="has CUDA")
with_a_gpu = pytest.mark.skipif(
    not present() or "CUDAExecutionProvider" not in ort.get_available_providers(), reason="has no GPU"
)


@pytest.mark.parametrize(
    ("most", "prepared"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (16, (1, 2, 4, 8, 16)), (48, (1, 2, 4, 8, 16, 32, 48))],
)
def test_buckets_are_powers_of_two_up_to_the_largest_batch(
    most: int, prepared: tuple[int, ...] | tuple[int, int, int] | tuple[int, int] | tuple[int]
) -> None:
    assert buckets(most) == prepared


@pytest.mark.parametrize(
    ("variable", "left"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("3, 1", 2),
        ("0,4,1", 1),
        ("0,x,1", 1),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,2", 2),
    ],
)
def test_gpus_named_before_the_first_that_is_none_are_visible(variable: str | None, left: int) -> None:
    assert visible(4, variable) == left


def test_no_gpu_is_counted_where_none_is_visible() -> None:
    assert present({"CUDA_VISIBLE_DEVICES": ""}) == 0


def test_workers_are_dealt_out_to_the_gpus_evenly() -> None:
    assert [gpu_of(worker, 2) for worker in range(5)] == [0, 1, 0, 1, 0]
    assert [gpu_of(worker, 1) for worker in range(3)] == [0, 0, 0]


def test_engines_of_other_weights_are_others(tmp_path: Path) -> None:
    graph = tmp_path / "image.fp32.onnx"
    shutil.copy(GRAPH, graph)
    seen = {fingerprint(graph)}
    (tmp_path / "image.fp32.onnx.data").write_bytes(b"one")
    seen.add(fingerprint(graph))
    (tmp_path / "image.fp32.onnx.data").write_bytes(b"another")
    seen.add(fingerprint(graph))
    assert len(seen) == 3
    (tmp_path / "text.fp32.onnx").write_bytes(b"not its own")
    assert fingerprint(graph) in seen


@without_cuda
def test_without_cuda_the_runners_say_so(tmp_path: Path) -> None:
    with pytest.raises(CudaUnusable, match="has no CUDA"):
        runners(GRAPH, most=2, shape=SHAPE)
    with pytest.raises(BadSetting, match=r"TWINLENS_TENSORRT is on, .* set TWINLENS_TENSORRT=off"):
        runners(GRAPH, most=2, shape=SHAPE, engines=tmp_path)
    with pytest.raises(RuntimeError, match=r"libcudart\.so\..* cannot be loaded"):
        OnGpu(0, (1, 2), np.float32)


def test_tensorrt_needs_to_know_the_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the shape"):
        runners(GRAPH, most=2, engines=tmp_path)


@with_a_gpu
def test_on_a_gpu_pictures_get_the_vectors_of_the_cpu() -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8))
    expected = PlainRunner(ort.InferenceSession(GRAPH, providers=["CPUExecutionProvider"]), 5)(pictures)
    for graphs in (True, False):
        made = runners(GRAPH, most=5, shape=SHAPE, graphs=graphs)
        assert len(made) == 2
        for runner in made:
            for count in (5, 1, 3, 2, 4):  # so that the rows behind a batch are another one's
                found = runner(pictures[:count])
                assert (np.sum(found * expected[:count], axis=1) > 0.99999).all()
        for runner in made:
            runner.close()


@with_a_gpu
def test_on_a_gpu_memory_comes_back_as_it_was_sent() -> None:
    memory = OnGpu(0, (4, 3), np.float32)
    memory.rows[...] = np.arange(12).reshape(4, 3)
    memory.send(3)
    memory.rows[...] = -1
    memory.fetch(4)
    np.testing.assert_array_equal(memory.rows, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 0, 0]])
    memory.close()
