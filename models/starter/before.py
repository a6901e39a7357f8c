"""The starter as it was before anything was trained, to be compared with: the last features, centred, projected."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from export.checkpoints.starter import DIMENSIONS, POOLS

FEATURES = POOLS["head"]


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
    rows = random.permutation(FEATURES)[:DIMENSIONS]
    flips = random.randint(0, 2, FEATURES) * 2 - 1
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
