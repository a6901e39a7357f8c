"""Graphs: composed, portable, written completely, and computing what their checkpoints compute."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from transformers import CLIPModel, SiglipModel

from export.checkpoints.checkpoint import Checkpoint, TextTower
from export.checkpoints.clip import ProjectedTextTower
from export.checkpoints.sources import open_source
from export.checkpoints.tokenizer import TEXTS
from export.graphs.trace import compose_image, compose_text, trace_image, trace_text, write_graph
from tests import ROOT
from tests.support.checkpoints import DIMENSIONS, LENGTH, SIZE, VOCABULARY, tiny_clip, tiny_siglip

MAKE: dict[str, Callable[[Path], Path]] = {
    "clip": lambda folder: tiny_clip(folder, words=True),
    "openclip": lambda folder: tiny_clip(
        folder,
        words=True,
        dimensions=40,
        vision={"patch_size": 14, "hidden_act": "gelu", "hidden_size": 60, "num_attention_heads": 3},
        text={"hidden_act": "gelu", "eos_token_id": end_of_text(), "num_hidden_layers": 3},
    ),
    "one layer": lambda folder: tiny_clip(
        folder, words=True, vision={"num_hidden_layers": 1}, text={"num_hidden_layers": 1}
    ),
    "siglip": lambda folder: tiny_siglip(folder, words="spiece"),
    "siglip 2": lambda folder: tiny_siglip(
        folder, words="gemma", vision={"hidden_act": "gelu_pytorch_tanh", "patch_size": 20, "num_attention_heads": 8}
    ),
}


def end_of_text() -> int:
    from tests.support.checkpoints import clip_tokenizer

    return clip_tokenizer()[1]["<|endoftext|>"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: make(folder / name.replace(" ", "-")) for name, make in MAKE.items()}


@pytest.fixture(scope="module")
def checkpoint(folders: dict[str, Path]) -> Checkpoint:
    return open_source(str(folders["clip"]))


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return trace_image(checkpoint.image, tmp_path_factory.mktemp("scratch"))


def compose(traced: onnx.ModelProto, checkpoint: Checkpoint) -> onnx.ModelProto:
    return compose_image(traced, checkpoint.image.spec, checkpoint.image.dimensions)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    found: np.ndarray = session(path).run(["embedding"], inputs)[0]
    return found


def text_tower(checkpoint: Checkpoint) -> TextTower:
    assert checkpoint.text is not None
    return checkpoint.text()


def text_graph(tower: TextTower, dimensions: int, folder: Path) -> Path:
    return write_graph(compose_text(trace_text(tower, folder), dimensions, tower.stored), folder / "text.fp32.onnx")[0]


# --- what the graphs take, give and hold ------------------------------------------------------------------------------


def signature(graph: onnx.GraphProto) -> list[tuple[str, int, list[int | str]]]:
    return [
        (
            one.name,
            one.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim],
        )
        for one in (*graph.input, *graph.output)
    ]


def test_the_graph_takes_bytes_of_any_batch_and_gives_embeddings(
    checkpoint: Checkpoint, traced: onnx.ModelProto
) -> None:
    assert signature(compose(traced, checkpoint).graph) == [
        ("pixels", onnx.TensorProto.UINT8, ["N", SIZE, SIZE, 3]),
        ("embedding", onnx.TensorProto.FLOAT, ["N", DIMENSIONS]),
    ]


def test_the_text_graph_takes_tokens_of_any_number_and_gives_embeddings(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = compose_text(trace_text(text_tower(checkpoint), tmp_path), DIMENSIONS)
    assert signature(model.graph) == [
        ("tokens", onnx.TensorProto.INT64, ["N", "L"]),
        ("embedding", onnx.TensorProto.FLOAT, ["N", DIMENSIONS]),
    ]
    _is_portable_and_anonymous(model)


def test_the_graph_is_portable_and_anonymous(checkpoint: Checkpoint, traced: onnx.ModelProto) -> None:
    _is_portable_and_anonymous(compose(traced, checkpoint))


def _is_portable_and_anonymous(model: onnx.ModelProto) -> None:
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
    assert write_graph(compose(traced, checkpoint), inside) == [inside]
    written = write_graph(compose(traced, checkpoint), beside, inline_limit=1000)
    assert [path.name for path in written] == ["image.fp32.onnx", "image.fp32.onnx.data"]
    assert beside.stat().st_size < 0.5 * inside.stat().st_size
    assert np.array_equal(run(inside, pixels=pixels), run(beside, pixels=pixels))


def test_a_tower_that_is_traced_to_weights_beside_its_graph_gives_the_same(
    checkpoint: Checkpoint, traced: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What optimum does by itself beyond the 2 GB of protobuf.
    monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")
    again = trace_image(checkpoint.image, tmp_path)
    monkeypatch.delenv("FORCE_ONNX_EXTERNAL_DATA")
    assert not list(tmp_path.iterdir())
    assert compose(again, checkpoint).SerializeToString() == compose(traced, checkpoint).SerializeToString()


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
    model = compose(rounded, checkpoint)
    stored = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert [list(one.dims) for one in stored] == [list(exact.dims)]
    path = write_graph(model, tmp_path / "a.onnx")[0]
    assert np.isfinite(run(path, pixels=np.zeros((1, SIZE, SIZE, 3), np.uint8))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_towers_published_in_half_precision_stay_half_as_large(dtype: torch.dtype, tmp_path: Path) -> None:
    sizes = {}
    for name, stored in (("whole", torch.float32), ("half", dtype)):
        opened = open_source(str(tiny_clip(tmp_path / name, words=True, dtype=stored)))
        (tmp_path / f"{name}.graphs").mkdir()
        image = write_graph(compose(trace_image(opened.image, tmp_path), opened), tmp_path / f"{name}.onnx")[0]
        text = text_graph(text_tower(opened), DIMENSIONS, tmp_path / f"{name}.graphs")
        sizes[name] = image.stat().st_size, text.stat().st_size
    if dtype == torch.float16:
        assert all(half < 0.7 * whole for half, whole in zip(sizes["half"], sizes["whole"], strict=True))


def digests(scratch: Path, folders: Sequence[str]) -> list[str]:
    """Of each checkpoint's image graph, text graph and tokenizer."""
    made = []
    for folder in folders:
        opened = open_source(folder)
        tower = text_tower(opened)
        graphs = [
            compose(trace_image(opened.image, scratch), opened),
            compose_text(trace_text(tower, scratch), opened.image.dimensions),
        ]
        data = [*(graph.SerializeToString(deterministic=True) for graph in graphs), tower.tokenizer_json]
        made += [hashlib.sha256(one).hexdigest() for one in data]
    return made


def test_graphs_and_tokenizers_are_the_same_bytes_in_another_process(folders: dict[str, Path], tmp_path: Path) -> None:
    """Here, and in a process that orders its sets differently."""
    code = f"""
import json, sys
from pathlib import Path
from {__name__} import digests
print(json.dumps(digests(Path(sys.argv[1]), sys.argv[2:])))
"""
    chosen = [str(folders[name]) for name in ("clip", "siglip")]
    here = digests(tmp_path, chosen)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *chosen],
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed, "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here
    assert len(set(here)) == 6


# --- what they compute ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", MAKE)
def test_image_vectors_are_those_of_transformers_at_any_batch(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_source(str(folders[family]))
    path = write_graph(compose(trace_image(opened.image, tmp_path), opened), tmp_path / "image.onnx")[0]
    pixels = np.random.default_rng(3).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
    # As a user of transformers would, with nothing of the export's own modules.
    model = whole_model(folders[family])
    batch = opened.image.processor([Image.fromarray(one) for one in pixels], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = unit(model.get_image_features(pixel_values=batch))
    together = run(path, pixels=pixels)
    assert (together * expected).sum(1).min() >= 0.999999
    for batch_size in (1, 2, 3, 5):
        for start in range(0, 7, batch_size):
            some = run(path, pixels=pixels[start : start + batch_size])
            assert np.array_equal(some, together[start : start + batch_size]), batch_size
    # And they tell pictures apart: the agreement above means something.
    among = together @ together.T
    assert among[~np.eye(7, dtype=bool)].max() < 0.9999


@pytest.mark.parametrize("family", MAKE)
def test_text_vectors_are_those_of_transformers_for_every_text(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_source(str(folders[family]))
    tower = text_tower(opened)
    graph = session(text_graph(tower, opened.image.dimensions, tmp_path))
    model = whole_model(folders[family])
    assert np.allclose(tower.reference_vector(TEXTS[0]), run_one(graph, tower.reference_tokens(TEXTS[0])), atol=1e-6)
    for text in TEXTS[::2]:
        tokens = tower.reference_tokens(text)[None]
        with torch.inference_mode():
            expected = unit(model.get_text_features(input_ids=torch.from_numpy(tokens)))
        found = graph.run(["embedding"], {"tokens": tokens})[0]
        assert (found @ expected.T).item() >= 0.999999, text
        assert abs(np.linalg.norm(found.astype(np.float64)) - 1) < 1e-6


@pytest.mark.parametrize("end", [2, VOCABULARY - 1])
def test_a_text_tower_is_right_at_every_length_and_its_vectors_know_nothing_of_their_batch(
    end: int, tmp_path: Path
) -> None:
    """Causal at any length, and pooled where the text first ends, as old and new configs each say it."""
    folder = tiny_clip(tmp_path / "long", text={"max_position_embeddings": 77, "eos_token_id": end})
    (tmp_path / "words").mkdir()
    tower = long_tower(folder)
    graph = session(text_graph(tower, DIMENSIONS, tmp_path / "words"))
    random = np.random.default_rng(4)
    for length in range(2, 78):
        tokens = random.integers(0, VOCABULARY - 2, (4, length))
        # Where the text ends: last, in the middle, and in the middle with more ends after it, as padding is.
        tokens[0, -1] = tokens[1, length // 2] = VOCABULARY - 1
        tokens[2:, length // 2 :] = VOCABULARY - 1
        with torch.inference_mode():
            expected = unit(tower.module(input_ids=torch.from_numpy(tokens)).text_embeds)
        found = graph.run(["embedding"], {"tokens": tokens})[0]
        assert (found * expected).sum(1).min() >= 0.999999, length
        alone = [graph.run(["embedding"], {"tokens": tokens[at : at + 1]})[0][0] for at in range(4)]
        assert np.array_equal(np.stack(alone), found), length


def long_tower(folder: Path) -> TextTower:
    model = CLIPModel.from_pretrained(folder)
    from transformers import CLIPTextModelWithProjection

    config = model.config.text_config
    config.projection_dim = DIMENSIONS
    module = CLIPTextModelWithProjection(config).eval()
    module.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name in module.state_dict()}, strict=True
    )
    from export.checkpoints.rewrite import ClipText

    return TextTower(
        module=module,
        rewritten=lambda: ClipText(module),
        onnx_config=ProjectedTextTower(config, task="feature-extraction"),
        architecture="CLIPTextModelWithProjection",
        tensors=[],
        tokenizer=None,
        tokenizer_json=b"",
        length=77,
        padded=False,
    )


def whole_model(folder: Path) -> Any:
    kind = CLIPModel if json.loads((folder / "config.json").read_text())["model_type"] == "clip" else SiglipModel
    return kind.from_pretrained(folder).eval()


def run_one(graph: onnxruntime.InferenceSession, tokens: np.ndarray) -> np.ndarray:
    found: np.ndarray = graph.run(["embedding"], {"tokens": tokens[None]})[0][0]
    return found


def unit(vectors: torch.Tensor) -> np.ndarray:
    wide = vectors.double()
    divided: np.ndarray = (wide / wide.norm(dim=1, keepdim=True)).numpy()
    return divided


# --- weights that are whole numbers times a scale ---------------------------------------------------------------------


class _Whole(torch.nn.Module):
    """A tiny text tower whose table and matrices are int8 times a scale; one matrix is square, one bias is not."""

    def __init__(self, stored: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        from transformers import CLIPTextConfig

        self.config = CLIPTextConfig(vocab_size=50, max_position_embeddings=LENGTH, hidden_size=32)
        self.table = torch.nn.Embedding(50, 32)
        self.first = torch.nn.Linear(32, 32)
        self.second = torch.nn.Linear(32, 24, bias=False)
        for name, (whole, scale) in stored.items():
            wide = torch.from_numpy(whole.astype(np.float32) * scale[:, None])
            getattr(self, name.removesuffix(".weight")).weight = torch.nn.Parameter(wide)

    def forward(self, input_ids: torch.Tensor) -> Any:
        from transformers.modeling_outputs import ModelOutput

        states = torch.tanh(self.first(self.table(input_ids)))
        return ModelOutput(text_embeds=self.second(states.sum(1)))


def test_weights_that_are_whole_numbers_times_a_scale_are_stored_so_and_lose_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    stored = {
        f"{name}.weight": (
            random.integers(-127, 128, shape).astype(np.int8),
            random.uniform(1e-3, 1e-2, shape[0]).astype(np.float32),
        )
        for name, shape in (("table", (50, 32)), ("first", (32, 32)), ("second", (24, 32)))
    }
    module = _Whole(stored).eval()
    tower = TextTower(
        module=module,
        onnx_config=ProjectedTextTower(module.config, task="feature-extraction"),
        architecture="test",
        tensors=[],
        tokenizer=None,
        tokenizer_json=b"",
        length=LENGTH,
        padded=False,
        stored=stored,
    )
    traced = trace_text(tower, tmp_path)
    small, large = compose_text(traced, 24, stored), compose_text(traced, 24)
    kept = [tuple(one.dims) for one in small.graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert sorted(map(sorted, kept)) == [[24, 32], [32, 32], [32, 50]]
    # The table's rows are gathered while they are bytes.
    (gather,) = [node for node in small.graph.node if node.op_type == "Gather" and "tokens" in node.input][:1]
    assert gather.input[0].endswith(".int8")
    _is_portable_and_anonymous(small)
    tokens = random.integers(0, 50, (5, 9))
    graphs = [write_graph(model, tmp_path / f"{at}.onnx")[0] for at, model in enumerate((small, large))]
    assert np.array_equal(run(graphs[0], tokens=tokens), run(graphs[1], tokens=tokens))
    assert graphs[0].stat().st_size < 0.6 * graphs[1].stat().st_size
