"""The layers of a tower where int8 pays: its products with a constant matrix, grouped by the activation they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graphs.folding import Constants, fold

# Smaller convolutions of single pixels are bound by memory, not arithmetic: as MatMuls they were slower.
_WIDE_POINTWISE = 40_000


@dataclass
class Group:
    """The MatMuls that read one activation: they share its quantisation."""

    activation: str
    weights: list[str]
    outputs: list[str]
    norm: onnx.NodeProto | None
    """The LayerNormalization that makes it, if nothing else reads it: smoothing moves into its gain and bias."""
    size: int
    """Multiplications for each row."""


@dataclass(frozen=True)
class Tower:
    """A graph in float32, in parts, so that a large one is in memory once."""

    model: onnx.ModelProto
    """The graph as it was given; only its inputs, outputs and versions are used."""
    nodes: list[onnx.NodeProto]
    constants: Constants
    groups: list[Group]


def take_apart(model: onnx.ModelProto) -> Tower:
    """A tower's graph, folded, with its groups."""
    nodes, constants = _plain(fold(model))
    return Tower(model, nodes, constants, _groups(model, nodes, constants))


def _plain(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], Constants]:
    """The graph's nodes and constants; products that can be a MatMul by a constant are written as one."""
    constants: Constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    pooled = _pooled(model.graph)
    for original in model.graph.node:
        # A copy: a node of the model would keep the complete model in memory.
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type in ("Conv", "Gemm") and node.input[1] in constants and node.output[0] not in pooled:
            given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            write = _pointwise if node.op_type == "Conv" else _product
            nodes.extend(write(node, given, constants))
        else:
            nodes.append(node)
    return nodes, constants


def _pooled(graph: onnx.GraphProto) -> set[str]:
    """The convolutions whose pixels are summed next. They keep their layout.

    With pixels before channels a runtime sums one picture in another order than several: the last bits of a vector
    would depend on its batch (measured: 3e-8, ONNX Runtime 1.32).
    """
    made_by = {name: node for node in graph.node for name in node.output}
    waiting = [
        node.input[0] for node in graph.node if node.op_type.startswith("Reduce") or node.op_type == "GlobalAveragePool"
    ]
    seen, pooled = set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            pooled.add(name)
        elif node.op_type not in ("Gemm", "LayerNormalization", "MatMul"):
            waiting.extend(node.input)
    return pooled


def _product(node: onnx.NodeProto, given: Mapping[str, Any], constants: Constants) -> list[onnx.NodeProto]:
    """A Gemm as MatMul and Add."""
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA", 0):
        return [node]
    weight, output = node.input[1], node.output[0]
    if given.get("transB", 0):
        constants[f"{weight}.turned"] = constants[weight].T
        weight = f"{weight}.turned"
    if len(node.input) < 3 or not node.input[2]:
        return [helper.make_node("MatMul", [node.input[0], weight], [output])]
    return [
        helper.make_node("MatMul", [node.input[0], weight], [f"{output}.product"]),
        helper.make_node("Add", [f"{output}.product", node.input[2]], [output]),
    ]


def _pointwise(node: onnx.NodeProto, given: Mapping[str, Any], constants: Constants) -> list[onnx.NodeProto]:
    """A wide convolution of single pixels as a MatMul whose rows are pixels.

    Convolutional networks entirely in QDQ reached cosines of 0.95; with a scale for each pixel they keep 0.999.
    """
    weight, output = node.input[1], node.output[0]
    kernel = constants[weight]
    plain = given.get("group", 1) == 1 and not any(given.get("pads", ())) and set(given.get("strides", ())) <= {1}
    if not plain or kernel.ndim != 4 or kernel.shape[2:] != (1, 1) or kernel.size < _WIDE_POINTWISE:
        return [node]
    constants[f"{weight}.turned"] = kernel[:, :, 0, 0].T
    nodes = [
        helper.make_node("Transpose", [node.input[0]], [f"{output}.pixels"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", [f"{output}.pixels", f"{weight}.turned"], [f"{output}.product"]),
    ]
    last = f"{output}.product"
    if len(node.input) > 2 and node.input[2]:
        nodes.append(helper.make_node("Add", [last, node.input[2]], [f"{output}.biased"]))
        last = f"{output}.biased"
    nodes.append(helper.make_node("Transpose", [last], [output], perm=[0, 3, 1, 2]))
    return nodes


def _groups(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[Group]:
    """The MatMuls by a constant matrix, by the activation they read; without the last one, which has a single row."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    made_by = {name: node for node in nodes for name in node.output}
    last = _last(model, made_by, constants)
    groups = []
    for activation, reading in readers.items():
        chosen = [node for node in reading if _weighted(node, constants) and node.input[0] == activation]
        chosen = [node for node in chosen if node.output[0] not in last]
        if not chosen:
            continue
        norm = made_by.get(activation)
        if norm is None or norm.op_type != "LayerNormalization" or len(chosen) < len(reading):
            norm = None
        weights = [node.input[1] for node in chosen]
        size = sum(constants[name].size for name in weights)
        groups.append(Group(activation, weights, [node.output[0] for node in chosen], norm, size))
    return groups


def _weighted(node: onnx.NodeProto, constants: Constants) -> bool:
    weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
    return weight is not None and weight.ndim == 2 and weight.dtype == np.float32


def _last(model: onnx.ModelProto, made_by: Mapping[str, onnx.NodeProto], constants: Constants) -> set[str]:
    """The outputs of the weighted nodes that no other weighted node follows."""
    waiting, seen, last = [one.name for one in model.graph.output], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if _weighted(node, constants):
            last.add(name)
        elif node.op_type != "LayerNormalization":
            waiting.extend(node.input)
    return last
