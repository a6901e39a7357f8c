"""A traced graph with all constant expressions computed: only nodes that depend on the input remain.

Exact: weights stored in half precision or as int8 times a scale are widened as runtimes would, constants are computed,
Identity nodes are removed, and zeros padded around a picture become the padding of its convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Constants = dict[str, NDArray[Any]]

# For a smaller array, the Cast costs more than the bytes it saves.
_WORTH_A_CAST = 1024


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph with its constants computed; weights are initialisers in float32, stored inline."""
    constants: Constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    same: dict[str, str] = {}
    outputs = {one.name for one in model.graph.output}
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for at, name in enumerate(node.input):
            node.input[at] = same.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        elif node.op_type != "Identity" and all(name in constants or not name for name in node.input):
            constants.update(_computed(node, constants, model))
        else:
            nodes.append(node)
    _pad_in_convolutions(nodes, constants)
    return with_graph(model, nodes, constants)


def with_graph(model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: Constants) -> onnx.ModelProto:
    """A model of these nodes with the model's inputs and outputs, without unused nodes and constants."""
    needed = {one.name for one in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    # In place: helper.make_graph and make_model would each copy all weights once more.
    made = onnx.ModelProto()
    made.ir_version = model.ir_version
    made.opset_import.extend(model.opset_import)
    made.graph.name = model.graph.name
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    made.graph.node.extend(kept[::-1])
    for name, value in constants.items():
        if name in needed:
            made.graph.initializer.append(numpy_helper.from_array(_in_order(value), name))
    return made


def store_small(nodes: Sequence[onnx.NodeProto], constants: Constants) -> tuple[list[onnx.NodeProto], Constants]:
    """Store in half precision again what was published so; a Cast widens it when the graph is loaded."""
    casts, stored = [], {}
    for name, value in constants.items():
        if value.dtype == np.float32 and value.size >= _WORTH_A_CAST:
            with np.errstate(over="ignore"):
                half = value.astype(np.float16)
            if np.array_equal(half.astype(np.float32), value):
                stored[f"{name}.half"] = half
                casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
                continue
        stored[name] = value
    return [*casts, *nodes], stored


def _in_order(value: NDArray[Any]) -> NDArray[Any]:
    # ascontiguousarray would turn a scalar into a vector.
    return np.array(value, order="C", copy=None)


def _computed(node: onnx.NodeProto, constants: Constants, model: onnx.ModelProto) -> Constants:
    if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT:  # most are weights, and large
        return {node.output[0]: constants[node.input[0]].astype(np.float32)}
    if node.op_type == "DequantizeLinear":  # the evaluator does not know the one of this opset
        return {node.output[0]: _widened(node, [constants[name] for name in node.input if name])}
    alone = helper.make_graph(
        [node],
        "constant",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(constants[name].dtype), None)
            for name in dict.fromkeys(node.input)
            if name
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output],
    )
    evaluator = ReferenceEvaluator(helper.make_model(alone, opset_imports=model.opset_import))
    values = evaluator.run(None, {name: constants[name] for name in node.input if name})
    return {name: np.asarray(value) for name, value in zip(node.output, values, strict=True)}


def _widened(node: onnx.NodeProto, given: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    whole, scale, *zero = given
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    shape = [1] * whole.ndim
    if scale.ndim:
        shape[axis] = -1
    centred = whole.astype(np.float32) - (zero[0].astype(np.float32).reshape(shape) if zero else 0)
    wide: NDArray[np.float32] = centred * scale.astype(np.float32).reshape(shape)
    return wide


def _pad_in_convolutions(nodes: list[onnx.NodeProto], constants: Constants) -> None:
    made_by = {name: node for node in nodes for name in node.output}
    for node in nodes:
        pad = made_by.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad" or pad.input[1] not in constants or len(pad.input) > 3:
            continue
        mode = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
        filled = float(constants[pad.input[2]]) if len(pad.input) > 2 and pad.input[2] else 0.0
        around = constants[pad.input[1]].reshape(2, -1)
        if mode not in ([], [b"constant"]) or filled != 0 or around[:, :2].any() or (around < 0).any():
            continue
        given = {attribute.name: attribute for attribute in node.attribute}
        if given.get("auto_pad") is not None and given["auto_pad"].s != b"NOTSET":
            continue
        before = np.array(given["pads"].ints if "pads" in given else [0] * around[:, 2:].size)
        if "pads" in given:
            node.attribute.remove(given["pads"])
        node.attribute.append(helper.make_attribute("pads", (before + around[:, 2:].reshape(-1)).tolist()))
        node.input[0] = pad.input[0]
