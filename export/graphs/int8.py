"""A tower's graph to int8: static QDQ, the same for every batch, on CPUs with and without VNNI.

    fold -> observe real pictures or texts -> for each weighted MatMul a smoothing and a range -> QDQ -> check

No scale depends on what else is in a batch: it is a constant, or belongs to one row of one picture. So a vector
does not depend on its batch. The nodes are ONNX's own; runtimes fuse them to their integer kernels.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.errors import ExportRefused, is_out_of_memory
from export.graphs.folding import with_graph
from export.graphs.layers import Group, Tower, take_apart
from export.graphs.qdq import assembled, switched
from export.graphs.scales import Floats, Plan, Recipe, Seen, merged, plan
from export.graphs.trace import write_graph
from export.proof.drift import compare

INT8_RECIPE = (
    "static QDQ: uint8 activations, each row by its own size; int8 weights by column, within 16 bits without VNNI; "
    "smoothed; the worst layers in float32 where that keeps float32's space"
)
"""How int8 is made, for people who read about an artifact."""

Feeds = Sequence[Mapping[str, NDArray[Any]]]
OnProgress = Callable[[int, int], None]
"""Given how much is done, and of how much."""

_BATCH = 4
# Rows of each activation that are kept to choose by: enough for a stable choice, few enough for large towers.
_ROWS = 512
# How many pictures or texts decide which layers stay in float32.
_CHECKED = 48
# How many texts measure each layer's part in the drift; of pictures it is one batch.
_MEASURED = 16


def to_int8_image(
    model: onnx.ModelProto,
    pixels: NDArray[np.uint8],
    *,
    recipe: Recipe | None = None,
    scratch: Path | None = None,
    on_progress: OnProgress | None = None,
) -> onnx.ModelProto:
    """An image tower in int8, calibrated on real pictures, uint8[N, S, S, 3].

    `scratch` is a folder for temporary files; `on_progress` is given how much is done, and of how much. Raises
    ExportRefused for a graph that has nothing to quantise or does not run.
    """
    name = model.graph.input[0].name
    feeds = [{name: pixels[at : at + _BATCH]} for at in range(0, len(pixels), _BATCH)]
    return quantise(model, feeds, recipe or Recipe(), scratch, on_progress)


def to_int8_text(
    model: onnx.ModelProto,
    tokens: Sequence[NDArray[np.int64]],
    *,
    recipe: Recipe | None = None,
    scratch: Path | None = None,
    on_progress: OnProgress | None = None,
) -> onnx.ModelProto:
    """A text tower in int8, calibrated on real texts, int64[L] or int64[N, L] each; as `to_int8_image`."""
    name = model.graph.input[0].name
    return quantise(model, [{name: np.atleast_2d(one)} for one in tokens], recipe or Recipe(), scratch, on_progress)


def quantise(
    model: onnx.ModelProto, feeds: Feeds, recipe: Recipe, scratch: Path | None, on_progress: OnProgress | None
) -> onnx.ModelProto:
    """The graph in int8, calibrated on inputs by name; see `to_int8_image`."""
    if not feeds:
        raise ExportRefused("There is nothing to calibrate int8 with.")
    tower = take_apart(model)
    if not tower.groups:
        raise ExportRefused("The graph has no layers that int8 would pay in.")
    progress = _Progress(on_progress, len(feeds) + 2 * len(tower.groups))
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            seen, expected = _observe(tower, feeds, Path(folder), progress)
            plans = {}
            for group in tower.groups:
                weights = [tower.constants[name] for name in group.weights]
                plans[group.activation] = plan(weights, seen.pop(group.activation), recipe)
                progress.advance()
            chosen = _choose_groups(tower, plans, feeds, expected, recipe, Path(folder), progress)
            progress.finish()
    except ExportRefused:
        raise
    except Exception as exc:  # ONNX Runtime raises its own exceptions and bare RuntimeErrors
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"The graph cannot be calibrated for int8: {exc}") from exc
    return assembled(tower, chosen, plans, tables=recipe.tables)


@dataclass
class _Progress:
    """Counts what is done, and reports it."""

    on_progress: OnProgress | None
    total: int
    done: int = 0

    def advance(self) -> None:
        self.done += 1
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)

    def finish(self) -> None:
        """Report the rest, which turned out to be unnecessary, as done."""
        if self.done < self.total:
            self.done = self.total - 1
            self.advance()


def _session(model: onnx.ModelProto, folder: Path) -> ort.InferenceSession:
    """A session for a few runs; it consumes the model. Weights lie beside the graph, mapped and not copied."""
    path = folder / "graph.onnx"
    write_graph(model, path, inline_limit=0)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Packed copies of all weights would double the memory.
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _observe(tower: Tower, feeds: Feeds, folder: Path, progress: _Progress) -> tuple[dict[str, Seen], list[Floats]]:
    """Run the float32 graph, one batch after the other; its activations, and the vectors it gave."""
    names = [group.activation for group in tower.groups]
    observed = with_graph(tower.model, tower.nodes, tower.constants)
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = _session(observed, folder)
    del observed
    seen: dict[str, Seen] = {}
    vectors: list[Floats] = []
    kept = math.ceil(_ROWS / len(feeds))
    for at, feed in enumerate(feeds):
        found = session.run([tower.model.graph.output[0].name, *names], dict(feed))
        vectors.append(found[0])
        for name, value in zip(names, found[1:], strict=True):
            rows = value.reshape(-1, value.shape[-1])
            some = rows[np.unique((_spread(at * kept, kept) * len(rows)).astype(int))]
            one = Seen(rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0, dtype=np.float64), len(rows), some)
            seen[name] = merged(seen[name], one) if name in seen else one
        progress.advance()
    del session
    if not all(np.isfinite(one.low).all() and np.isfinite(one.high).all() for one in seen.values()):
        raise ExportRefused("The graph gives values that are not finite: int8 cannot be calibrated on them.")
    return seen, vectors


def _spread(start: int, count: int) -> NDArray[np.float64]:
    """`count` numbers from 0 to 1, evenly spread: a text's first and last token are unlike the others."""
    steps = np.arange(start, start + count, dtype=np.float64)
    return np.modf(steps * ((math.sqrt(5) - 1) / 2))[0]


def _choose_groups(
    tower: Tower,
    plans: Mapping[str, Plan],
    feeds: Feeds,
    expected: Sequence[Floats],
    recipe: Recipe,
    folder: Path,
    progress: _Progress,
) -> list[Group]:
    """The groups to quantise: the fewest are left in float32 that reach the target, the costliest for their size first.

    All groups, where even leaving out as many as the recipe allows does not reach it.
    """
    if recipe.target <= 0:
        return tower.groups
    inputs = max(len(next(iter(feed.values()))) for feed in feeds)
    checked = _evenly(len(feeds), math.ceil(_CHECKED / inputs))
    references = np.concatenate([expected[at] for at in checked])

    def reaches(groups: Sequence[Group]) -> bool:
        session = _session(assembled(tower, groups, plans, tables=recipe.tables), folder)
        found = np.concatenate([session.run(None, dict(feeds[at]))[0] for at in checked])
        return bool(compare(references, found).cosine.min() >= recipe.target)

    if reaches(tower.groups):
        return tower.groups
    some = _evenly(len(feeds), 1 if inputs > 1 else _MEASURED)
    costs = _costs(tower, plans, [feeds[at] for at in some], [expected[at] for at in some], folder, progress)
    worst_first = sorted(tower.groups, key=lambda group: -costs[group.activation] / group.size)
    share = np.cumsum([group.size for group in worst_first]) / sum(group.size for group in tower.groups)
    low, high = 1, int((share <= recipe.most_left).sum())
    if not high or not reaches(worst_first[high:]):
        return tower.groups
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(worst_first[middle:]) else (middle + 1, high)
    return worst_first[high:]


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` places out of `count`, evenly spread."""
    return sorted({int(at) for at in np.linspace(0, count - 1, min(count, wanted))})


def _costs(
    tower: Tower,
    plans: Mapping[str, Plan],
    feeds: Feeds,
    expected: Sequence[Floats],
    folder: Path,
    progress: _Progress,
) -> dict[str, float]:
    """How much each group, alone in int8, lowers the mean cosine.

    The error of a group's own outputs says little: what later layers make of that error decides.
    """
    session = _session(switched(tower, plans), folder)
    references = np.concatenate(expected)
    costs = {}
    for group, switches in zip(tower.groups, np.eye(len(tower.groups), dtype=bool), strict=True):
        found = np.concatenate([session.run(None, {**feed, "switches": switches})[0] for feed in feeds])
        costs[group.activation] = float((1 - compare(references, found).cosine).mean())
        progress.advance()
    return costs
