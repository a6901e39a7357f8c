"""A graph to the same graph in another precision: half for CUDA, int8 for CPUs.

pixels uint8[N, S, S, 3] or tokens int64[N, L] -> embedding float32[N, D]: inputs and outputs stay what they were
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportRefused, is_out_of_memory
from export.graphs.folding import Constants, fold, with_graph
from export.graphs.int8 import INT8_RECIPE, to_int8_image, to_int8_text
from export.graphs.trace import write_graph

__all__ = ["INT8_RECIPE", "to_fp16", "to_int8_image", "to_int8_text"]

# Operations that sum many values, or overflow half precision early. LayerNormalization is not among them: by its
# definition (stash_type 1) its mean and variance are computed in float32 for any input.
_WIDE = {"GlobalAveragePool", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Softmax", "Sqrt"}
# The tower lies between the first and the last of these; before it pixels are scaled, after it vectors normalised.
_WEIGHTED = {"Conv", "Gather", "Gemm", "LayerNormalization", "MatMul"}
_LARGEST = float(np.finfo(np.float16).max)
# Values that come within this factor of the largest on some inputs may exceed it on others.
_ROOM = 4
# A number this large is a mask's: it masks as well when it is clamped.
_HIDES = 1e30
# Weights beyond this many bytes are left out when types are inferred: protobuf cannot hold 2 GB in one message.
_LARGE = 1 << 16


def to_fp16(model: onnx.ModelProto, inputs: Sequence[NDArray[Any]] = ()) -> onnx.ModelProto:
    """Weights and most arithmetic in half precision, for CUDA; it also runs, without gain, on CPUs.

    These stay in float32: pixels until they are scaled, softmax, means, powers and roots, the L2 normalisation at the
    end, and every node with a value that half precision cannot hold, be it a weight or an activation of the real
    `inputs` (batches of pixels or tokens). CPUs do not show such an overflow, since ONNX Runtime computes in float32
    there. Raises ExportRefused when the graph cannot be converted.

    ONNX Runtime's own converter was tried: between two nodes that both stay in float32 it goes through half precision,
    even before the embedding itself, and it writes nodes in an order that ONNX's checker refuses.
    """
    try:
        folded = fold(model)
        types = _types(folded)
        return _halved(folded, types, _too_large(folded, types, inputs))
    except ExportRefused:
        raise
    except Exception as exc:  # an unusual graph raises any error in ONNX and protobuf
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"The graph cannot be converted to half precision: {exc!r}.") from exc


def _halved(model: onnx.ModelProto, types: dict[str, int], too_large: set[str]) -> onnx.ModelProto:
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    wide = _in_float(graph, too_large)
    nodes: list[onnx.NodeProto] = []
    have = dict(types)
    """The type that each value has in the new graph."""
    converted: dict[tuple[str, int], str] = {}
    constants: Constants = {}

    def as_type(name: str, wanted: int) -> str:
        if types.get(name) != TensorProto.FLOAT or have[name] == wanted:
            return name
        if (name, wanted) not in converted:
            made = f"{name}.{'wide' if wanted == TensorProto.FLOAT else 'half'}"
            converted[name, wanted] = made
            if name in weights:
                constants[made] = _half(numpy_helper.to_array(weights[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [made], to=wanted))
        return converted[name, wanted]

    for at, node in enumerate(graph.node):
        wanted = TensorProto.FLOAT if at in wide else TensorProto.FLOAT16
        node.input[:] = [as_type(name, wanted) for name in node.input]
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = wanted
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                value = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(numpy_helper.from_array(_half(value) if wanted == TensorProto.FLOAT16 else value))
        have.update((name, wanted) for name in node.output if types.get(name) == TensorProto.FLOAT)
        nodes.append(node)

    used = {name for node in nodes for name in node.input}
    constants.update((name, numpy_helper.to_array(weight)) for name, weight in weights.items() if name in used)
    return with_graph(model, nodes, constants)


def _half(value: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(value, -_LARGEST, _LARGEST).astype(np.float16)


def _too_large(model: onnx.ModelProto, types: dict[str, int], inputs: Sequence[NDArray[Any]]) -> set[str]:
    """The values that half precision cannot hold: weights, and activations of these inputs."""
    graph = model.graph
    too_large = set()
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            sizes = np.abs(numpy_helper.to_array(weight))
            if ((sizes > _LARGEST) & (sizes < _HIDES)).any():
                too_large.add(weight.name)
    if inputs:
        names = [name for node in graph.node for name in node.output if types[name] == TensorProto.FLOAT]
        sizes = _largest(model, names, inputs)
        too_large.update(name for name, size in zip(names, sizes, strict=True) if _LARGEST / _ROOM < size < _HIDES)
    return too_large


def _largest(model: onnx.ModelProto, names: list[str], inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The size of the largest number in each of these values, over all inputs: float32[names]."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    for name in names:
        observed.graph.node.append(helper.make_node("Abs", [name], [f"{name}.size"]))
        observed.graph.node.append(helper.make_node("ReduceMax", [f"{name}.size"], [f"{name}.largest"], keepdims=0))
    del observed.graph.output[:]
    observed.graph.output.extend(
        helper.make_tensor_value_info(f"{name}.largest", TensorProto.FLOAT, []) for name in names
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        write_graph(observed, path, inline_limit=0)
        del observed
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [session.run(None, {model.graph.input[0].name: one}) for one in inputs]
    largest: NDArray[np.float32] = np.abs(np.array(found, np.float32)).max(axis=0)
    return largest


def _in_float(graph: onnx.GraphProto, too_large: set[str]) -> set[int]:
    """The places of the nodes that stay in float32."""
    wide = {
        at
        for at, node in enumerate(graph.node)
        if node.op_type in _WIDE or too_large.intersection((*node.input, *node.output))
    }
    before = {one.name for one in graph.input}
    for at, node in enumerate(graph.node):
        if node.op_type not in _WEIGHTED and before.intersection(node.input):
            wide.add(at)
            before.update(node.output)
    outputs = {one.name for one in graph.output}
    after = set(outputs)
    for at in reversed(range(len(graph.node))):
        node = graph.node[at]
        if outputs.intersection(node.output):
            wide.add(at)
        if node.op_type not in _WEIGHTED and after.intersection(node.output):
            wide.add(at)
            after.update(node.input)
    return wide


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every value, inferred on the graph with its large weights as inputs that have no content."""
    graph = model.graph
    small, large = [], []
    for weight in graph.initializer:
        if len(weight.raw_data) < _LARGE:
            small.append(weight)
        else:
            large.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    light = helper.make_model(
        helper.make_graph(graph.node, graph.name, [*graph.input, *large], graph.output, small),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    found = onnx.shape_inference.infer_shapes(light, strict_mode=True).graph
    types = {one.name: one.type.tensor_type.elem_type for one in [*found.value_info, *graph.input, *graph.output]}
    types.update((weight.name, weight.data_type) for weight in graph.initializer)
    missing = [name for node in graph.node for name in node.output if name and not types.get(name)]
    if missing:
        raise ExportRefused(f"The graph cannot be converted to half precision: the type of {missing[0]} is unknown.")
    return types
