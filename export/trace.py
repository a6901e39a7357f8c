"""A tower to an ONNX graph: optimum traces it, and what could drift around it is composed onto it.

    pixels uint8[N, S, S, 3] -> layout -> scale and shift -> tower and projection -> L2 -> embedding float32[N, D]

The graph is portable and reproducible: no node of one machine's optimiser, and none of the names, dates and paths that
a tracer leaves behind.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from optimum.exporters.onnx import export

from export.checkpoint import Checkpoint
from export.errors import ExportRefused, is_out_of_memory
from server.artifact import PreprocessingSpec

OPSET = 17
"""LayerNormalization is one node from here on; newer ones bring nothing to a tower and ask for newer runtimes."""

# protobuf cannot hold more than 2 GB; what is not weights is small.
_INLINE_LIMIT = 1_900_000_000
# Weights beside the graph start on pages, so that runtimes can map them.
_PAGE = 4096
# Casting a bias costs more in nodes than it saves in bytes.
_WORTH_A_CAST = 1024

_NUMBERED = re.compile(r"onnx::\w+|\d+")


def trace(checkpoint: Checkpoint, scratch: Path) -> onnx.ModelProto:
    """The tower alone, `pixel_values` -> `image_embeds`, as optimum traces it (N dynamic). `scratch` is a folder.

    Raises ExportRefused for a tower that cannot be traced.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _quiet():
        path = Path(folder) / "traced.onnx"
        size = checkpoint.spec.size
        try:
            export(
                checkpoint.tower,
                checkpoint.onnx_config,
                path,
                opset=OPSET,
                input_shapes={"batch_size": 2, "num_channels": 3, "height": size, "width": size},
            )
            return onnx.load(path)
        except OSError:
            raise
        except Exception as exc:  # torch, optimum and protobuf each have their own
            if is_out_of_memory(exc):
                raise
            raise ExportRefused(f"The tower of {checkpoint.model} cannot be traced to a graph: {exc!r}.") from exc


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracers warn of every Python branch that they freeze; the parity gate is what judges them."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def compose(traced: onnx.ModelProto, spec: PreprocessingSpec, dimensions: int) -> onnx.ModelProto:
    """The whole graph: what precedes and follows the tower, with everything that varies between traces removed."""
    tower = traced.graph
    scale, shift = _affine(spec)
    constants = [
        numpy_helper.from_array(scale, "pixels.scale"),
        numpy_helper.from_array(shift, "pixels.shift"),
        numpy_helper.from_array(np.array([-1], np.int64), "norm.axis"),
    ]
    before = [
        # The layout changes first, while a sample is one byte.
        helper.make_node("Transpose", ["pixels"], ["pixels.planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixels.planes"], ["pixels.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels.float", "pixels.scale"], ["pixels.scaled"]),
        helper.make_node("Add", ["pixels.scaled", "pixels.shift"], [tower.input[0].name]),
    ]
    features = tower.output[0].name
    after = [
        helper.make_node("Mul", [features, features], ["norm.squares"]),
        helper.make_node("ReduceSum", ["norm.squares", "norm.axis"], ["norm.square"], keepdims=1),
        helper.make_node("Sqrt", ["norm.square"], ["norm.length"]),
        helper.make_node("Div", [features, "norm.length"], ["embedding"]),
    ]
    weights, widen = _stored_small([*tower.initializer, *constants])
    size = spec.size
    graph = helper.make_graph(
        [*widen, *before, *tower.node, *after],
        "image",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimensions])],
        weights,
    )
    _scrub(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=traced.ir_version)
    if _weight_bytes(model) <= _INLINE_LIMIT:  # the checker serialises what it checks
        onnx.checker.check_model(model)
    return model


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(weight.raw_data) for weight in model.graph.initializer)


def _affine(spec: PreprocessingSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(x * rescale - mean) / std as x * scale + shift: float32[3, 1, 1] each, rounded once from float64."""
    mean, std = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    scale = (spec.rescale / std).astype(np.float32).reshape(3, 1, 1)
    shift = (-mean / std).astype(np.float32).reshape(3, 1, 1)
    return scale, shift


def _stored_small(weights: list[TensorProto]) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """Keep in half precision what loses nothing by it, widened by a Cast that runtimes fold away when they load.

    A checkpoint that was published in half precision stays as small as it was.
    """
    stored, casts = [], []
    for weight in weights:
        array = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and array.size >= _WORTH_A_CAST:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.array_equal(half.astype(np.float32), array):
                stored.append(numpy_helper.from_array(half, f"{weight.name}.half"))
                casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=TensorProto.FLOAT))
                continue
        # Again from the array: one encoding (raw, little-endian) whatever the tracer chose.
        stored.append(numpy_helper.from_array(array, weight.name))
    return stored, casts


def _scrub(graph: onnx.GraphProto) -> None:
    """Names that number the tracer's values count anew in the order they are met; notes and node names go."""
    renamed: dict[str, str] = {}

    def name(old: str) -> str:
        if not _NUMBERED.match(old):
            return old
        return renamed.setdefault(old, f"value.{len(renamed)}{'.half' if old.endswith('.half') else ''}")

    for node in graph.node:
        node.name = ""
        node.doc_string = ""
        del node.metadata_props[:]
        for names in (node.input, node.output):
            for at, old in enumerate(names):
                names[at] = name(old)
    for weight in graph.initializer:
        weight.name = name(weight.name)
        weight.doc_string = ""
        del weight.metadata_props[:]


def write_graph(model: onnx.ModelProto, path: Path, *, inline_limit: int = _INLINE_LIMIT) -> list[Path]:
    """Write a graph, its weights beside it in `<path>.data` where protobuf could not hold them; the files written."""
    if _weight_bytes(model) <= inline_limit:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(f"{path.name}.data")
    with beside.open("wb") as file:
        for weight in model.graph.initializer:
            if len(weight.raw_data) < _PAGE:
                continue
            file.write(b"\0" * (-file.tell() % _PAGE))
            place = {"location": beside.name, "offset": str(file.tell()), "length": str(len(weight.raw_data))}
            file.write(weight.raw_data)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.extend(onnx.StringStringEntryProto(key=key, value=place[key]) for key in place)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return [path, beside]
