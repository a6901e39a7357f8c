"""Precisions: the same tower in half precision and in int8, near to float32 and the same in every batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bench import precisions
from export.checkpoints.sources import open_source
from export.checkpoints.starter import SPEC
from export.errors import ExportRefused
from export.graphs import qdq
from export.graphs.folding import fold, with_graph
from export.graphs.layers import take_apart
from export.graphs.precision import INT8_RECIPE, to_fp16, to_int8_image, to_int8_text
from export.graphs.scales import Recipe, Seen, plan
from export.graphs.trace import compose_image, compose_text, trace_image, trace_text
from export.proof.drift import compare
from server.preprocessing.media import decode, to_pixels
from tests import ROOT
from tests.support.checkpoints import SIZE, VISION, VOCABULARY, tiny_clip

PLAIN = Recipe(rows=False, smoothing=(0.0,), bias_correction=False, weights="reduced", tables=False, target=0)
TO_INT8: dict[str, Callable[..., onnx.ModelProto]] = {
    "image": to_int8_image,
    "text": to_int8_text,
    "starter": to_int8_image,
}


def pictures(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Coloured patches with grain, no two alike: uint8[count, size, size, 3]."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (count, 4, 4, 3)).repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    return np.clip(patches + random.normal(0, 20, patches.shape), 0, 255).astype(np.uint8)


def photographs(which: slice) -> np.ndarray:
    """Some of the demo catalogue's pictures: uint8[N, 224, 224, 3]."""
    paths = sorted((ROOT / "server" / "ingest" / "demo_catalogue" / "pictures").iterdir())[which]
    return np.stack([to_pixels(decode(path.read_bytes(), max_pixels=2**26).image, SPEC) for path in paths])


def texts(count: int, length: int, seed: int = 0) -> np.ndarray:
    tokens = np.random.default_rng(seed).integers(3, VOCABULARY - 2, (count, length))
    tokens[:, -1] = 2
    return tokens


def trace_tiny(folder: Path, **changes: Any) -> dict[str, onnx.ModelProto]:
    checkpoint = open_source(str(tiny_clip(folder / "tiny", words=True, text={"eos_token_id": 2}, **changes)))
    assert checkpoint.text is not None
    image, text = checkpoint.image, checkpoint.text()
    return {
        "image": compose_image(trace_image(image, folder), image.spec, image.dimensions),
        "text": compose_text(trace_text(text, folder), image.dimensions),
    }


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """Both towers of a tiny CLIP, and the starter's image tower, a convolutional one."""
    folder = tmp_path_factory.mktemp("tiny")
    return {**trace_tiny(folder), "starter": onnx.load(ROOT / "models" / "starter" / "image.fp32.onnx")}


CALIBRATION: dict[str, Any] = {
    "image": pictures(24),
    "text": [one for length in (4, 7, 11) for one in texts(12, length)],
    "starter": photographs(slice(0, 280, 14)),
}
UNSEEN: dict[str, np.ndarray] = {
    "image": pictures(20, seed=1),
    "text": texts(20, 9, seed=1),
    "starter": photographs(slice(5, 280, 55)),
}


@pytest.fixture(scope="module")
def int8(towers: dict[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    return {name: TO_INT8[name](model, CALIBRATION[name]) for name, model in towers.items()}


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    found: np.ndarray = session(model).run(["embedding"], {model.graph.input[0].name: values})[0]
    return found


def drift(model: onnx.ModelProto, other: onnx.ModelProto, values: np.ndarray) -> float:
    return float(compare(run(model, values), run(other, values)).cosine.min())


def signature(model: onnx.ModelProto) -> list[bytes]:
    return [one.SerializeToString() for one in (*model.graph.input, *model.graph.output)]


def types(model: onnx.ModelProto) -> Counter[int]:
    counted: Counter[int] = Counter()
    for weight in model.graph.initializer:
        counted[weight.data_type] += int(np.prod(weight.dims))
    return counted


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", CALIBRATION)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_has_the_inputs_and_outputs_of_float32_and_only_standard_nodes(
    tower: str, precision: str, towers: dict[str, onnx.ModelProto], int8: dict[str, onnx.ModelProto]
) -> None:
    model = int8[tower] if precision == "int8" else to_fp16(towers[tower])
    onnx.checker.check_model(model, full_check=True)
    assert signature(model) == signature(towers[tower])
    assert {node.domain for node in model.graph.node} == {""}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert not any(node.name or node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.producer_name
    assert not model.metadata_props
    lengths = np.linalg.norm(run(model, UNSEEN[tower]).astype(np.float64), axis=1)
    assert np.allclose(lengths, 1, atol=1e-6)


@pytest.mark.parametrize("tower", CALIBRATION)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_vector_is_the_same_to_the_last_bit_in_every_batch(
    tower: str, precision: str, towers: dict[str, onnx.ModelProto], int8: dict[str, onnx.ModelProto]
) -> None:
    _same_in_every_batch(int8[tower] if precision == "int8" else towers[tower], UNSEEN[tower], 0)


@pytest.mark.parametrize("tower", CALIBRATION)
def test_a_vector_in_half_precision_hardly_depends_on_its_batch(tower: str, towers: dict[str, onnx.ModelProto]) -> None:
    """Runtimes choose their kernels for half precision by shape; on CPUs that have none nothing differs."""
    _same_in_every_batch(to_fp16(towers[tower]), UNSEEN[tower], 2e-3)


def _same_in_every_batch(model: onnx.ModelProto, values: np.ndarray, tolerance: float) -> None:
    ready, name = session(model), model.graph.input[0].name

    def encode(batch: np.ndarray) -> np.ndarray:
        found: np.ndarray = ready.run(["embedding"], {name: batch})[0]
        return found

    alone = np.concatenate([encode(one[None]) for one in values])
    # An extreme input beside them: a scale over the batch would follow it.
    strange = np.full_like(values[:1], 255 if values.dtype == np.uint8 else 7)
    count = len(values)
    for order in (np.arange(count), np.arange(count)[::-1], np.random.default_rng(5).permutation(count)):
        for size in (2, 3, 16, count):
            for start in range(0, count, size):
                chosen = order[start : start + size]
                together = encode(np.concatenate([values[chosen], strange]))[:-1]
                assert np.abs(together - alone[chosen]).max() <= tolerance, (size, start)


@pytest.mark.parametrize("tower", CALIBRATION)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_same_graph_and_pictures_give_the_same_bytes(
    tower: str, precision: str, towers: dict[str, onnx.ModelProto], int8: dict[str, onnx.ModelProto]
) -> None:
    before = towers[tower].SerializeToString(deterministic=True)
    if precision == "fp16":
        one, two = to_fp16(towers[tower]), to_fp16(towers[tower])
    else:
        one, two = int8[tower], TO_INT8[tower](towers[tower], CALIBRATION[tower])
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert towers[tower].SerializeToString(deterministic=True) == before


# --- half precision ---------------------------------------------------------------------------------------------------


def run_in_half(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    """As ONNX defines it: ONNX Runtime on a CPU computes in float32 what it is told to compute in half precision."""
    found: np.ndarray = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: values})[0]
    return found


@pytest.mark.parametrize("tower", CALIBRATION)
def test_half_precision_stores_half_and_stays_near(tower: str, towers: dict[str, onnx.ModelProto]) -> None:
    half = to_fp16(towers[tower])
    assert drift(towers[tower], half, UNSEEN[tower]) > 0.99999
    counted = types(half)
    assert counted[TensorProto.FLOAT16] > 100 * counted[TensorProto.FLOAT]


@pytest.mark.parametrize("tower", ["image", "text"])
def test_half_precision_stays_near_where_it_is_computed_in(tower: str, towers: dict[str, onnx.ModelProto]) -> None:
    found = run_in_half(to_fp16(towers[tower]), UNSEEN[tower])
    assert compare(run(towers[tower], UNSEEN[tower]), found).cosine.min() > 0.99999


def test_the_output_of_a_graph_stays_in_float32_whichever_node_makes_it() -> None:
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
                helper.make_node("MatMul", ["float", "weight"], ["embedding"]),
            ],
            "image",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 4])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4])],
            [numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    half = to_fp16(model)
    onnx.checker.check_model(half, full_check=True)
    assert np.array_equal(run(half, np.full((2, 4), 255, np.uint8)), np.full((2, 4), 255))


def test_sums_stay_in_float32(towers: dict[str, onnx.ModelProto]) -> None:
    model = to_fp16(towers["image"])
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    found = {one.name: one.type.tensor_type.elem_type for one in inferred}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "ReduceSum", "ReduceMean", "Sqrt"):
            assert found[node.output[0]] == TensorProto.FLOAT, node.op_type
        if node.op_type in ("MatMul", "Conv"):
            assert found[node.output[0]] == TensorProto.FLOAT16


def test_features_whose_squares_overflow_half_precision_are_normalised(tmp_path: Path) -> None:
    """The norm's squares would be infinite, and every vector zero, if they were taken in half precision."""

    def enlarge(weights: dict[str, Any]) -> None:
        weights["visual_projection.weight"] *= 3000

    model = trace_tiny(tmp_path, change=enlarge)["image"]
    features = onnx.ModelProto()
    features.CopyFrom(model)
    features.graph.output.append(helper.make_tensor_value_info("norm.square", TensorProto.FLOAT, None))
    assert session(features).run(["norm.square"], {"pixels": UNSEEN["image"]})[0].min() > 65504
    found = run_in_half(to_fp16(model), UNSEEN["image"])
    assert compare(run(model, UNSEEN["image"]), found).cosine.min() > 0.99999


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_activations_too_large_for_half_precision_stay_in_float32(tmp_path: Path) -> None:
    def one_large(weights: dict[str, Any]) -> None:
        weights["vision_model.post_layernorm.weight"] *= torch.logspace(3.5, 5.5, VISION["hidden_size"])
        weights["visual_projection.weight"] *= 1e-4

    model = trace_tiny(tmp_path, change=one_large)["image"]
    expected = run(model, UNSEEN["image"])
    # The weights alone do not show it: their products are multiplied next.
    assert not np.isfinite(run_in_half(to_fp16(model), UNSEEN["image"])).all()
    found = run_in_half(to_fp16(model, [CALIBRATION["image"][:8]]), UNSEEN["image"])
    assert compare(expected, found).cosine.min() > 0.99999


def test_inputs_without_large_activations_change_nothing(towers: dict[str, onnx.ModelProto]) -> None:
    """A text's activations include a mask's numbers, which mask as well when they are clamped."""
    alone, given = to_fp16(towers["text"]), to_fp16(towers["text"], [one[None] for one in CALIBRATION["text"]])
    assert given.SerializeToString(deterministic=True) == alone.SerializeToString(deterministic=True)


# --- int8 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", CALIBRATION)
def test_int8_stays_near_float32(
    tower: str, towers: dict[str, onnx.ModelProto], int8: dict[str, onnx.ModelProto]
) -> None:
    assert drift(towers[tower], int8[tower], UNSEEN[tower]) > 0.999
    assert drift(towers[tower], int8[tower], UNSEEN[tower]) < 1


@pytest.mark.parametrize("tower", ["image", "text"])
def test_runtimes_make_whole_number_kernels_of_every_quantised_product(
    tower: str, int8: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8[tower].SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    quantised = sum(
        weight.data_type == TensorProto.INT8 and len(weight.dims) == 2 for weight in int8[tower].graph.initializer
    )
    assert quantised > 5
    assert found["MatMulIntegerToFloat"] == quantised
    assert found["DequantizeLinear"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_kernel_overflows_16_bits(seed: int) -> None:
    """Without VNNI a kernel adds the products of two neighbours with bytes of up to 255 in 16 bits, and saturates."""
    random = np.random.default_rng(seed)
    # The last columns are what hurts: all weights as large as any, of one sign.
    weights = random.standard_t(3, (61, 32)).astype(np.float32)
    weights[:, -4:] = np.array([1, -1, 1, -1]) * (1 + 1e-3 * random.random((61, 4)))
    rows = random.normal(0, 1, (64, 61)).astype(np.float32)
    seen = Seen(rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0, dtype=np.float64), 64, rows)
    made = plan([weights], seen, Recipe())
    (whole,), (scales,) = made.whole, made.scales
    even = whole[:60].astype(np.int64)
    assert np.abs(even[0::2] + even[1::2]).max() <= 128
    assert (255 * np.maximum(even[0::2], 0) + 255 * np.maximum(even[1::2], 0)).max() < 2**15
    # Where neighbours differ in sign or size, nearly all of 8 bits are used.
    assert np.abs(whole).max() > 100
    assert np.abs(whole * scales - weights * made.divisors[:, None]).max() <= 1.6 * scales.max()


def test_outliers_that_ruin_plain_quantisation_are_survived(tmp_path: Path) -> None:
    """Trained towers have a few channels tens of times as large as the others, in activations and in some tokens."""

    def with_outliers(weights: dict[str, Any]) -> None:
        for name, tensor in weights.items():
            if not name.startswith("vision_model.encoder"):
                continue
            if "layer_norm" in name and name.endswith("weight"):
                tensor[[5, 40]] *= 60
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight")):
                tensor[:, [5, 40]] /= 60
        weights["vision_model.embeddings.class_embedding"] *= 30

    model = trace_tiny(tmp_path, change=with_outliers)["image"]
    ours = to_int8_image(model, CALIBRATION["image"], recipe=Recipe(target=0))
    plain = to_int8_image(model, CALIBRATION["image"], recipe=PLAIN)
    lost = 1 - drift(model, ours, UNSEEN["image"])
    assert lost < 2e-4
    assert 1 - drift(model, plain, UNSEEN["image"]) > 20 * lost


def test_a_channel_that_is_silent_in_calibration_does_not_dominate_the_others() -> None:
    """Smoothed by its size there, zero, it would be enlarged a thousandfold and ruin every row where it is not zero."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (256, 64)).astype(np.float32)
    rows[:, 7] = 0
    weights = random.normal(0, 1, (64, 32)).astype(np.float32)
    seen = Seen(rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0, dtype=np.float64), 256, rows)
    made = plan([weights], seen, Recipe(smoothing=(0.5,)))
    assert made.divisors[7] >= 0.5 * np.median(made.divisors)


def quantised_layers(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_as_few_layers_as_reach_the_target_are_left_in_float32(towers: dict[str, onnx.ModelProto]) -> None:
    model, seen = towers["image"], CALIBRATION["image"]
    every = to_int8_image(model, seen, recipe=Recipe(target=0))
    least = drift(model, every, seen)
    target = 1 - (1 - least) * 0.8
    some = to_int8_image(model, seen, recipe=Recipe(target=target, most_left=0.99))
    assert drift(model, some, seen) >= target > least
    assert 0 < quantised_layers(some) < quantised_layers(every)
    unreachable = to_int8_image(model, seen, recipe=Recipe(target=1.1))
    assert unreachable.SerializeToString(deterministic=True) == every.SerializeToString(deterministic=True)
    easy = to_int8_image(model, seen, recipe=Recipe(target=least - 1e-6))
    assert easy.SerializeToString(deterministic=True) == every.SerializeToString(deterministic=True)


def test_large_embedding_tables_are_rows_of_int8(
    towers: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdq, "_LARGE_TABLE", 10_000)
    model = to_int8_text(towers["text"], CALIBRATION["text"])
    assert VOCABULARY not in {weight.dims[0] for weight in model.graph.initializer if weight.dims and _is_wide(weight)}
    assert drift(towers["text"], model, UNSEEN["text"]) > 0.999
    _same_in_every_batch(model, UNSEEN["text"], 0)


def _is_wide(weight: onnx.TensorProto) -> bool:
    return weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2 and weight.dims[1] > 1


def test_what_was_published_in_half_precision_stays_as_small(
    towers: dict[str, onnx.ModelProto], int8: dict[str, onnx.ModelProto]
) -> None:
    """The starter's weights are halves; those of its small convolutions stay as they are."""
    assert int8["starter"].ByteSize() < 1.02 * towers["starter"].ByteSize()
    assert types(int8["starter"])[TensorProto.FLOAT16] > types(int8["starter"])[TensorProto.FLOAT]


def test_progress_is_reported_to_its_end(towers: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    to_int8_text(
        towers["text"], CALIBRATION["text"][:5], scratch=tmp_path, on_progress=lambda *pair: reported.append(pair)
    )
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})
    assert len({total for _, total in reported}) == 1
    assert reported[-1][0] == reported[-1][1]
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_quantised_is_refused_in_a_sentence(towers: dict[str, onnx.ModelProto]) -> None:
    with pytest.raises(ExportRefused, match=r"^There is nothing to calibrate int8 with\.$"):
        to_int8_image(towers["image"], CALIBRATION["image"][:0])
    broken = onnx.ModelProto()
    broken.CopyFrom(towers["image"])
    for weight in broken.graph.initializer:
        if weight.name.endswith("fc1.bias"):
            weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    with pytest.raises(ExportRefused, match="not finite"):
        to_int8_image(broken, CALIBRATION["image"])
    nothing = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["pixels"], ["embedding"], to=TensorProto.FLOAT)],
            "image",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 4])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    with pytest.raises(ExportRefused, match="no layers that int8 would pay in"):
        to_int8_image(nothing, np.zeros((2, 4), np.uint8))


def test_the_recipe_is_one_line() -> None:
    assert INT8_RECIPE.startswith("static QDQ")
    assert "\n" not in INT8_RECIPE


def test_the_bench_writes_what_each_variant_costs_and_gains(
    towers: dict[str, onnx.ModelProto], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = str(ROOT / "tests" / "data" / "photographs")
    onnx.save(towers["image"], tmp_path / "image.onnx")
    arguments = [str(tmp_path / "image.onnx"), "--pictures", photographs, "--calibration", photographs]
    assert precisions.main([*arguments, "--only", "fp16", "default", "--write", str(tmp_path / "figures.json")]) == 0
    (found,) = json.loads((tmp_path / "figures.json").read_text())
    half, ours = found["rows"]
    assert half["variant"].startswith("fp16")
    assert 0.999 < ours["min_cosine"] <= ours["mean_cosine"] < half["min_cosine"]
    assert ours["speed_alone"] > 0
    assert found["machine"]["onnxruntime"] == onnxruntime.__version__
    assert ours["variant"] in capsys.readouterr().out


# --- what goes before -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", CALIBRATION)
def test_folding_leaves_nothing_constant_and_changes_no_vector(tower: str, towers: dict[str, onnx.ModelProto]) -> None:
    folded = fold(towers[tower])
    constant = {weight.name for weight in folded.graph.initializer}
    for node in folded.graph.node:
        assert node.op_type not in ("Constant", "Identity", "Pad")
        assert not constant.issuperset(name for name in node.input if name)
    assert TensorProto.FLOAT16 not in types(folded)
    assert np.abs(run(folded, UNSEEN[tower]) - run(towers[tower], UNSEEN[tower])).max() < 1e-6


def test_weights_stored_as_int8_are_widened_first(towers: dict[str, onnx.ModelProto]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(fold(towers["image"]))
    (table,) = (one for one in model.graph.initializer if "position_embedding" in one.name)
    array, name = numpy_helper.to_array(table), table.name
    scale = np.abs(array).max() / 127
    table.CopyFrom(numpy_helper.from_array(np.rint(array / scale).astype(np.int8), "table.int8"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "table.scale"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["table.int8", "table.scale"], [name]))
    assert not any(one.op_type == "DequantizeLinear" for one in fold(model).graph.node)
    assert drift(model, to_fp16(model), UNSEEN["image"]) > 0.9999


@pytest.mark.parametrize("turned", [0, 1])
def test_products_of_every_form_are_found_and_keep_their_values(turned: int) -> None:
    """A Gemm, and a convolution of single pixels wide enough to pay, but not one whose pixels are summed next.

    The last product of all stays as it is, too.
    """
    random = np.random.default_rng(0)
    weights = {
        "conv": random.normal(0, 0.1, (256, 192, 1, 1)),
        "conv.bias": random.normal(0, 1, 256),
        "head": random.normal(0, 0.1, (256, 256, 1, 1)),
        "gemm": random.normal(0, 0.1, (64, 256) if turned else (256, 64)),
        "gemm.bias": random.normal(0, 1, 64),
        "last": random.normal(0, 0.1, (64, 8)),
        "stem": random.normal(0, 0.01, (192, 3, 8, 8)),
    }
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
                helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
                helper.make_node("Conv", ["planes", "stem"], ["patches"], strides=[8, 8]),
                helper.make_node("Conv", ["patches", "conv", "conv.bias"], ["wide"]),
                helper.make_node("Relu", ["wide"], ["bent"]),
                helper.make_node("Conv", ["bent", "head"], ["heads"]),
                helper.make_node("ReduceMean", ["heads"], ["pooled"], axes=[2, 3], keepdims=0),
                helper.make_node("Gemm", ["pooled", "gemm", "gemm.bias"], ["mixed"], transB=turned),
                helper.make_node("MatMul", ["mixed", "last"], ["embedding"]),
            ],
            "image",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 32, 32, 3])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 8])],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    tower = take_apart(model)
    assert [group.outputs for group in tower.groups] == [["wide.product"], ["mixed.product"]]
    values = pictures(6, 32)
    plain = with_graph(tower.model, tower.nodes, tower.constants)
    assert np.allclose(run(plain, values), run(model, values), rtol=1e-4, atol=1e-3)
    assert drift(model, to_int8_image(model, values), values) > 0.999
