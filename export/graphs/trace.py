"""A tower to an ONNX graph: optimum traces it, and the steps before and after it are added to the graph.

    pixels uint8[N, S, S, 3] -> layout -> scale and shift -> tower and projection -> L2 -> embedding float32[N, D]

The graph is portable and reproducible: no node of one machine's optimiser, and none of the names, dates and paths that
a tracer leaves behind.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from optimum.exporters.onnx import export

from export.checkpoints.checkpoint import ImageTower, TextTower
from export.errors import ExportRefused, is_out_of_memory
from export.quiet import quiet
from server.artifact.artifact import PreprocessingSpec

OPSET = 17
"""LayerNormalization is one node from here on; newer ones bring nothing to a tower and ask for newer runtimes."""

# protobuf cannot hold more than 2 GB. All but the weights is small.
_INLINE_LIMIT = 1_900_000_000
# Weights beside the graph start on pages, so that runtimes can map them.
_PAGE = 4096
# Casting a bias costs more in nodes than it saves in bytes.
_WORTH_A_CAST = 1024

Stored = Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]]

# Endings of the names of weights that are stored in another form than they are used in.
_STORED = (".half", ".int8", ".scale", ".whole")
_NUMBERED = re.compile(r"onnx::\w+|\d+")


def trace_image(tower: ImageTower, scratch: Path) -> onnx.ModelProto:
    """The tower alone, `pixel_values` -> `image_embeds`, as optimum traces it (N dynamic). `scratch` is a folder.

    Raises ExportRefused for a tower that cannot be traced.
    """
    size = tower.spec.size
    return _trace(tower, {"batch_size": 2, "num_channels": 3, "height": size, "width": size}, scratch, "image")


def trace_text(tower: TextTower, scratch: Path) -> onnx.ModelProto:
    """The tower alone, `input_ids` -> `text_embeds`, as optimum traces it (N and L dynamic); as `trace_image`."""
    return _trace(tower, {"batch_size": 2, "sequence_length": tower.length}, scratch, "text")


def _trace(tower: ImageTower | TextTower, shapes: dict[str, int], scratch: Path, what: str) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(dir=scratch) as folder, quiet():
        path = Path(folder) / "traced.onnx"
        try:
            module = tower.module if tower.rewritten is None else tower.rewritten().eval()
            export(module, tower.onnx_config, path, opset=OPSET, input_shapes=shapes)
            del module
            return onnx.load(path)
        except OSError:
            raise
        except Exception as exc:  # torch, optimum and protobuf each have their own
            if is_out_of_memory(exc):
                raise
            raise ExportRefused(f"The {what} tower cannot be traced to a graph: {exc!r}.") from exc


def compose_image(traced: onnx.ModelProto, spec: PreprocessingSpec, dimensions: int) -> onnx.ModelProto:
    """The complete graph: the tower, the steps before and after it, and nothing that varies between traces."""
    scale, shift = _affine(spec)
    constants = [numpy_helper.from_array(scale, "pixels.scale"), numpy_helper.from_array(shift, "pixels.shift")]
    before = [
        # The layout changes first, while a sample is one byte.
        helper.make_node("Transpose", ["pixels"], ["pixels.planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixels.planes"], ["pixels.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels.float", "pixels.scale"], ["pixels.scaled"]),
        helper.make_node("Add", ["pixels.scaled", "pixels.shift"], [traced.graph.input[0].name]),
    ]
    size = spec.size
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])
    model = _begin("image", traced)
    widen = _store_small(traced.graph.initializer, model.graph)
    model.graph.initializer.extend(constants)
    return _finish(model, traced, pixels, [*widen, *before, *traced.graph.node], dimensions)


def compose_text(traced: onnx.ModelProto, dimensions: int, stored: Stored | None = None) -> onnx.ModelProto:
    """The complete graph: the tower between `tokens` and a vector of unit length.

    `stored` (name -> int8[R, ...], float32[R]) names weights that are whole numbers times a scale: the graph stores
    them so, one byte each, and widens them to the same floats.
    """
    tower = traced.graph
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "L"])
    model = _begin("text", traced)
    plain, nodes = _store_whole(tower.initializer, tower.node, stored or {}, model.graph)
    widen = _store_small(plain, model.graph)
    given = tower.input[0].name
    renamed = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = ["tokens" if name == given else name for name in node.input]
        renamed.append(copy)
    return _finish(model, traced, tokens, [*widen, *renamed], dimensions)


def _begin(name: str, traced: onnx.ModelProto) -> onnx.ModelProto:
    """A model without nodes, to which weights are added one by one: a large tower is copied once, not three times."""
    model = onnx.ModelProto()
    model.ir_version = traced.ir_version
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.graph.name = name
    return model


def _finish(
    model: onnx.ModelProto,
    traced: onnx.ModelProto,
    given: onnx.ValueInfoProto,
    nodes: list[onnx.NodeProto],
    dimensions: int,
) -> onnx.ModelProto:
    features = traced.graph.output[0].name
    graph = model.graph
    graph.node.extend(nodes)
    graph.node.extend(
        [
            helper.make_node("Mul", [features, features], ["norm.squares"]),
            helper.make_node("ReduceSum", ["norm.squares", "norm.axis"], ["norm.square"], keepdims=1),
            helper.make_node("Sqrt", ["norm.square"], ["norm.length"]),
            helper.make_node("Div", [features, "norm.length"], ["embedding"]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "norm.axis"))
    graph.input.append(given)
    graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimensions]))
    _scrub(graph)
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


def _store_small(weights: Iterable[TensorProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Store in half precision the weights that lose nothing by it; a Cast, which runtimes fold at load, widens them.

    So a checkpoint that was published in half precision stays as small.
    """
    casts = []
    for weight in weights:
        array = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and array.size >= _WORTH_A_CAST:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.array_equal(half.astype(np.float32), array):
                graph.initializer.append(numpy_helper.from_array(half, f"{weight.name}.half"))
                casts.append(helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=TensorProto.FLOAT))
                continue
        # Written from the array, in one encoding (raw, little-endian), whichever the tracer chose.
        graph.initializer.append(numpy_helper.from_array(array, weight.name))
    return casts


def _store_whole(
    weights: Iterable[TensorProto], nodes: Iterable[onnx.NodeProto], stored: Stored, graph: onnx.GraphProto
) -> tuple[list[TensorProto], list[onnx.NodeProto]]:
    """Store weights as whole numbers times a scale where they are `stored` so; the other weights, and all nodes.

    Tracers rename and transpose weights, so they are recognised by their values, transposed or not.
    """
    known: dict[bytes, tuple[str, bool]] = {}
    for name, (whole, scale) in stored.items():
        wide = _widened(whole, scale)
        known[_fingerprint(wide)] = name, False
        if wide.ndim == 2:
            known.setdefault(_fingerprint(wide.T), (name, True))
    plain: list[TensorProto] = []
    before, after = [], list(nodes)
    for weight in weights:
        array = numpy_helper.to_array(weight)
        name, turned = known.get(_fingerprint(array), ("", False)) if array.dtype == np.float32 else ("", False)
        if not name:
            plain.append(weight)
            continue
        whole, scale = stored[name]
        column = scale.reshape(-1, *[1] * (whole.ndim - 1))
        parts = [f"{weight.name}.int8", f"{weight.name}.scale"]
        for part, values in zip(parts, (whole.T, column.T) if turned else (whole, column), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), part))
        users = [node for node in after if weight.name in node.input]
        if not turned and all(_gathers_rows(node, weight.name) for node in users):
            # Widen only the rows that a text needs.
            for node in users:
                at = after.index(node)
                rows = [f"{node.output[0]}.int8", f"{node.output[0]}.scale"]
                gathers = [
                    helper.make_node("Gather", [part, node.input[1]], [row], axis=0)
                    for part, row in zip(parts, rows, strict=True)
                ]
                after[at : at + 1] = [*gathers, *_widen(rows, node.output[0])]
        else:
            before += _widen(parts, weight.name)
    return plain, [*before, *after]


def _widen(parts: list[str], to: str) -> list[onnx.NodeProto]:
    whole, scale = parts
    return [
        helper.make_node("Cast", [whole], [f"{to}.whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{to}.whole", scale], [to]),
    ]


def _gathers_rows(node: onnx.NodeProto, table: str) -> bool:
    by_rows = not any(attribute.name == "axis" and attribute.i for attribute in node.attribute)
    return bool(node.op_type == "Gather" and node.input[0] == table and by_rows)


def _widened(whole: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = whole.astype(np.float32) * scale.reshape(-1, *[1] * (whole.ndim - 1))
    return wide


def _fingerprint(array: NDArray[Any]) -> bytes:
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _scrub(graph: onnx.GraphProto) -> None:
    """Number the tracer's values by their first use, and remove the names of nodes and all notes."""
    renamed: dict[str, str] = {}

    def name(old: str) -> str:
        if not _NUMBERED.match(old):
            return old
        how = next((ending for ending in _STORED if old.endswith(ending)), "")
        return renamed.setdefault(old, f"value.{len(renamed)}{how}")

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
    """Write a graph, with its weights in `<path>.data` where protobuf cannot hold them; the files written."""
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
