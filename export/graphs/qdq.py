"""A tower with layers in int8, as ONNX's own nodes.

activation -> smoothed -> by row -> QuantizeLinear -> DequantizeLinear -> MatMul <- DequantizeLinear <- int8
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graphs.folding import Constants, store_small, with_graph
from export.graphs.layers import Group, Tower
from export.graphs.scales import Floats, Plan

# For a smaller embedding table the nodes cost more than they save.
_LARGE_TABLE = 1 << 18
_CORRECTION = ".correction"


def assembled(tower: Tower, groups: Iterable[Group], plans: Mapping[str, Plan], *, tables: bool) -> onnx.ModelProto:
    """The graph with these groups in int8."""
    values: Constants = dict(tower.constants)
    nodes: list[onnx.NodeProto] = []
    by_output = {output: (group, at) for group in groups for at, output in enumerate(group.outputs)}
    norms = {group.norm.output[0]: group for group, _ in by_output.values() if group.norm is not None}
    begun: dict[str, str] = {}
    for node in tower.nodes:
        found = by_output.get(node.output[0])
        if found is not None:
            group, at = found
            plan = plans[group.activation]
            if group.activation not in begun:
                begun[group.activation] = f"int8.{len(begun)}"
                nodes.extend(_enter(group, plan, begun[group.activation], values))
            output = node.output[0]
            nodes.extend(_multiply(output, begun[group.activation], at, plan, values))
            if plan.corrections[at].any():
                values[f"{output}{_CORRECTION}"] = plan.corrections[at]
        elif node.output[0] in norms:
            nodes.append(_smoothed(node, plans[node.output[0]].divisors, values))
        else:
            # A copy: its bias may be replaced below.
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            nodes.append(copy)
    if tables:
        nodes = _small_tables(nodes, values)
    _add_corrections(nodes, values)
    return with_graph(tower.model, *store_small(nodes, values))


def switched(tower: Tower, plans: Mapping[str, Plan]) -> onnx.ModelProto:
    """The graph with both forms of each group, and one more input that selects the form: `switches bool[groups]`."""
    values: Constants = dict(tower.constants)
    nodes: list[onnx.NodeProto] = []
    places = {output: (k, at) for k, group in enumerate(tower.groups) for at, output in enumerate(group.outputs)}
    for node in tower.nodes:
        output = node.output[0]
        if output not in places:
            nodes.append(node)
            continue
        (k, at), name = places[output], f"int8.{places[output][0]}"
        group = tower.groups[k]
        plan = plans[group.activation]
        if at == 0:
            values[f"{name}.place"] = np.array(k)
            nodes.append(helper.make_node("Gather", ["switches", f"{name}.place"], [f"{name}.on"]))
            nodes.extend(_enter(replace(group, norm=None), plan, name, values))
        nodes.append(helper.make_node("MatMul", node.input, [f"{output}.float"]))
        values[f"{output}.off"] = plan.corrections[at]
        nodes.extend(_multiply(f"{output}.found", name, at, plan, values))
        nodes.append(helper.make_node("Add", [f"{output}.found", f"{output}.off"], [f"{output}.int8"]))
        nodes.append(helper.make_node("Where", [f"{name}.on", f"{output}.int8", f"{output}.float"], [output]))
    made = with_graph(tower.model, nodes, values)
    made.graph.input.append(
        helper.make_tensor_value_info("switches", TensorProto.BOOL, [len(tower.groups)]),
    )
    return made


def _smoothed(norm: onnx.NodeProto, divisors: Floats, values: Constants) -> onnx.NodeProto:
    node = onnx.NodeProto()
    node.CopyFrom(norm)
    for at, name in enumerate(node.input[1:], 1):
        node.input[at] = f"{name}.over.{norm.output[0]}"
        values[node.input[at]] = values[name] / divisors
    return node


def _enter(group: Group, plan: Plan, name: str, values: Constants) -> list[onnx.NodeProto]:
    """From an activation to its int8: smoothed, divided by each row's largest value if so chosen, quantised."""
    nodes = []
    current = group.activation

    def then(operation: str, *more: str, result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, [current, *more], [f"{name}.{result}"], **attributes))
        return f"{name}.{result}"

    if group.norm is None and (plan.divisors != 1).any():
        values[f"{name}.factors"] = 1 / plan.divisors
        current = then("Mul", f"{name}.factors", result="smooth")
    if plan.by_row:
        smooth = current
        if plan.by_row == "signed":
            current = then("Abs", result="sizes")
        current = then("ReduceMax", result="size", axes=[-1], keepdims=1)
        values[f"{name}.floor"] = np.array(plan.floor, np.float32)
        unit = then("Max", f"{name}.floor", result="unit")
        current = smooth
        current = then("Div", unit, result="rows")
    values[f"{name}.scale"], values[f"{name}.zero"] = np.array(plan.scale), np.array(plan.zero)
    current = then("QuantizeLinear", f"{name}.scale", f"{name}.zero", result="whole")
    then("DequantizeLinear", f"{name}.scale", f"{name}.zero", result="entered")
    return nodes


def _multiply(output: str, name: str, at: int, plan: Plan, values: Constants) -> list[onnx.NodeProto]:
    """The product of a quantised activation and the group's weight number `at`."""
    parts = [f"{name}.{at}.{part}" for part in ("weight", "scale", "zero")]
    values.update(zip(parts, (plan.whole[at], plan.scales[at], np.zeros(len(plan.scales[at]), np.int8)), strict=True))
    product = f"{output}.of.rows" if plan.by_row else output
    nodes = [
        helper.make_node("DequantizeLinear", parts, [f"{name}.{at}.wide"], axis=1),
        helper.make_node("MatMul", [f"{name}.entered", f"{name}.{at}.wide"], [product]),
    ]
    if plan.by_row:
        nodes.append(helper.make_node("Mul", [product, f"{name}.unit"], [output]))
    return nodes


def _add_corrections(nodes: list[onnx.NodeProto], values: Constants) -> None:
    """Add each correction to the bias that follows, or as an Add of its own."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for at in reversed(range(len(nodes))):
        output = nodes[at].output[0]
        correction = values.pop(f"{output}{_CORRECTION}", None)
        if correction is None:
            continue
        following = readers.get(output, [])
        other = [name for name in following[0].input if name != output] if len(following) == 1 else []
        if other and following[0].op_type == "Add" and values.get(other[0], np.empty(0)).shape == correction.shape:
            corrected = f"{other[0]}.for.{output}"
            values[corrected] = values[other[0]] + correction
            following[0].input[:] = [corrected if name == other[0] else name for name in following[0].input]
        else:
            values[f"{output}.off"] = correction
            nodes[at].output[0] = f"{output}.uncorrected"
            nodes.insert(at + 1, helper.make_node("Add", [f"{output}.uncorrected", f"{output}.off"], [output]))


def _small_tables(nodes: list[onnx.NodeProto], values: Constants) -> list[onnx.NodeProto]:
    """Store embedding tables as int8 rows with a scale each; only the rows looked up are widened."""
    result = []
    for node in nodes:
        table = values.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2 or table.dtype != np.float32 or table.size < _LARGE_TABLE:
            result.append(node)
            continue
        name, (rows, ids), output = node.input[0], node.input, node.output[0]
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
        values[f"{name}.int8"] = np.rint(table / scale).astype(np.int8)
        values[f"{name}.scale"] = scale.astype(np.float32)
        result += [
            helper.make_node("Gather", [f"{rows}.int8", ids], [f"{output}.int8"]),
            helper.make_node("Gather", [f"{rows}.scale", ids], [f"{output}.scale"]),
            helper.make_node("Cast", [f"{output}.int8"], [f"{output}.whole"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{output}.whole", f"{output}.scale"], [output]),
        ]
    return result
