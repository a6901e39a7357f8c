"""Graphs: composed, portable, written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export.checkpoint import Checkpoint
from export.sources import open_source
from export.trace import compose, trace, write_graph
from tests.export_fixtures import DIMENSIONS, SIZE, tiny_clip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(tiny_clip(tmp_path_factory.mktemp("checkpoints") / "tiny")))


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return trace(checkpoint, tmp_path_factory.mktemp("scratch"))


def run(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {"pixels": pixels})[0]


def test_the_graph_takes_bytes_of_any_batch_and_gives_embeddings(
    checkpoint: Checkpoint, traced: onnx.ModelProto
) -> None:
    graph = compose(traced, checkpoint.spec, DIMENSIONS).graph
    assert [one.name for one in graph.input] == ["pixels"]
    assert [one.name for one in graph.output] == ["embedding"]
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", SIZE, SIZE, 3]
    dims = [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    assert dims == ["N", DIMENSIONS]


def test_the_graph_is_portable_and_anonymous(checkpoint: Checkpoint, traced: onnx.ModelProto) -> None:
    model = compose(traced, checkpoint.spec, DIMENSIONS)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert not model.producer_name
    assert not model.producer_version
    assert not model.metadata_props
    assert not any(node.doc_string or node.name or node.metadata_props for node in model.graph.node)
    names = {name for node in model.graph.node for name in [*node.input, *node.output]}
    assert not any(name.startswith("onnx::") or name.isdigit() for name in names)


def test_weights_beside_the_graph_give_the_same_vectors(
    checkpoint: Checkpoint, traced: onnx.ModelProto, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    inside, beside = tmp_path / "inside.onnx", tmp_path / "image.fp32.onnx"
    assert write_graph(compose(traced, checkpoint.spec, DIMENSIONS), inside) == [inside]
    written = write_graph(compose(traced, checkpoint.spec, DIMENSIONS), beside, inline_limit=1000)
    assert [path.name for path in written] == ["image.fp32.onnx", "image.fp32.onnx.data"]
    assert beside.stat().st_size < 0.5 * inside.stat().st_size
    assert np.array_equal(run(inside, pixels), run(beside, pixels))


def test_only_what_loses_nothing_is_stored_in_half_precision(
    checkpoint: Checkpoint, traced: onnx.ModelProto, tmp_path: Path
) -> None:
    rounded = onnx.ModelProto()
    rounded.CopyFrom(traced)
    large = [one for one in rounded.graph.initializer if np.prod(one.dims) >= 1024]
    exact = large[0]
    exact.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(exact).astype(np.float16).astype(np.float32), exact.name)
    )
    model = compose(rounded, checkpoint.spec, DIMENSIONS)
    stored = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert [list(one.dims) for one in stored] == [list(exact.dims)]
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    assert np.isfinite(run(write_graph(whole, tmp_path / "a.onnx")[0], np.zeros((1, SIZE, SIZE, 3), np.uint8))).all()
