"""How a layer becomes int8: its smoothing, ranges, scales and corrections; plain arrays, no graph.

real activations -> for each share of smoothing: divide, quantise, multiply, compare -> the nearest
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# The least value that anything is divided by.
_NOTHING = 1e-6
# Channels are enlarged by at most two to this power: one that was silent in calibration would dominate all others when
# it is not.
_AMPLIFIED = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What may be varied; the defaults were measured to be the best trade-off (bench/precisions.py)."""

    weights: Literal["pairs", "reduced", "full"] = "pairs"
    """`reduced`: 7 bits, so that no kernel's 16-bit sums of two products overflow; `pairs`: as many bits as keep
    the sums of two neighbours within 16 bits; `full`: 8 bits, right only on CPUs with VNNI."""
    rows: bool = True
    """Whether each row of an activation (a token of a picture) is first divided by its own largest value."""
    smoothing: tuple[float, ...] = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
    """How much of the differences between channels moves from activations to weights; for each, the best of these."""
    limits: Literal["minmax", "percentile", "entropy"] = "minmax"
    """How the range of an activation is chosen from its values, where all rows share one range."""
    bias_correction: bool = False
    """Whether the mean error that the rounding of weights causes in an output is corrected in its bias."""
    tables: bool = True
    """Whether embedding tables are stored as int8 rows."""
    target: float = 0.9993
    """Layers are left in float32, the costliest first, until the cosine to float32 reaches this: a little more than the
    gate's MIN_COSINE_IN_SPACE, since the gate has other pictures. 0 leaves no layer in float32."""
    most_left: float = 0.35
    """The part of all multiplications that may stay in float32; where that does not suffice, none does."""


@dataclass
class Seen:
    """Statistics of one activation on real inputs: each channel's extremes and sum over all rows, and some of the rows.

    float32[K], float32[K], float64[K], the number of rows, float32[R, K].
    """

    low: Floats
    high: Floats
    total: NDArray[np.float64]
    count: int
    rows: Floats


def merged(one: Seen, other: Seen) -> Seen:
    """The statistics of two batches together."""
    return Seen(
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        one.total + other.total,
        one.count + other.count,
        np.concatenate([one.rows, other.rows]),
    )


@dataclass
class Plan:
    """The quantisation chosen for the products that read one activation, float32[..., K]."""

    divisors: Floats
    """float32[K]: what each channel is divided by, and its weights multiplied with."""
    by_row: Literal["", "signed", "positive"]
    """Whether rows are divided by their largest value: absolute (`signed`) or, where hardly any is negative, plain."""
    floor: float
    """The least that a row is divided by."""
    scale: np.float32
    zero: np.uint8
    whole: list[NDArray[np.int8]]
    """Each weight, int8[K, N], with its columns' `scales`, float32[N]."""
    scales: list[Floats]
    corrections: list[Floats]
    """float32[N]: added to each output; zero without bias correction."""
    error: float
    """The squared error of the outputs, relative to them; the mean over rows."""


def plan(weights: Sequence[Floats], seen: Seen, recipe: Recipe) -> Plan:
    """Try every smoothing; the plan whose outputs are nearest to those in float32."""
    expected = [seen.rows @ weight for weight in weights]
    best: Plan | None = None
    for share in recipe.smoothing:
        divisors = _divisors(seen, weights, share)
        smooth = [weight * divisors[:, None] for weight in weights]
        whole = [_whole(weight, recipe) for weight in smooth]
        mean = (seen.total / seen.count / divisors).astype(np.float32)
        corrections = [
            (mean @ (weight - one * two)) * recipe.bias_correction
            for weight, (one, two) in zip(smooth, whole, strict=True)
        ]
        rows = seen.rows / divisors
        low, high = float((seen.low / divisors).min()), float((seen.high / divisors).max())
        made = _quantised(rows, low, high, recipe)
        made.divisors = divisors
        made.whole, made.scales = [one for one, _ in whole], [two for _, two in whole]
        made.corrections = corrections
        _judge(made, rows, expected)
        if best is None or made.error < best.error:
            best = made
    if best is None:
        raise ValueError("a recipe needs at least one smoothing")
    return best


def _divisors(seen: Seen, weights: Sequence[Floats], share: float) -> Floats:
    """What each channel is divided by, and its weights multiplied with: powers of two, so that neither is rounded.

    SmoothQuant's balance (Xiao and others, 2023): largest activation ** share / largest weight ** (1 - share).
    """
    largest = np.maximum(np.maximum(-seen.low, seen.high), _NOTHING).astype(np.float64)
    if share == 0:
        return np.ones_like(largest, np.float32)
    heaviest = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), 1e-9)
    exponents = share * np.log2(largest) - (1 - share) * np.log2(heaviest)
    divisors: Floats = np.exp2(np.rint(exponents - np.median(exponents)).clip(-_AMPLIFIED, 12)).astype(np.float32)
    return divisors


def _whole(weight: Floats, recipe: Recipe) -> tuple[NDArray[np.int8], Floats]:
    """int8[K, N] and each column's scale.

    Kernels without VNNI multiply bytes 0 to 255 with neighbours k, k + 1 of a column and add both products in 16 bits,
    saturating at 32767: neighbours of one sign whose sum is at most 128 stay below that (255 * 128 = 32640).
    """
    heaviest = np.abs(weight).max(axis=0)
    if recipe.weights == "reduced":
        scale = heaviest / 64
        top = 64
    else:
        scale, top = heaviest / 127, 127
        even = weight[: len(weight) // 2 * 2]
        if recipe.weights == "pairs" and len(even):
            scale = np.maximum(scale, np.abs(even[0::2] + even[1::2]).max(axis=0) / 128)
    scale = _few_bits(np.maximum(scale, 1e-12).astype(np.float32), 10)
    whole = np.rint(weight / scale).clip(-top, top).astype(np.int8)
    if recipe.weights == "pairs":
        # Both neighbours may have been rounded away from zero.
        one, two = whole[0 : len(whole) // 2 * 2 : 2], whole[1::2]
        both = one.astype(np.int16) + two
        one -= np.where(np.abs(both) > 128, np.sign(both), 0).astype(np.int8)
    return whole, scale


def _few_bits(value: Any, bits: int) -> Floats:
    """Rounded up to a few bits of mantissa, so that the last bits of another CPU change nothing."""
    fraction, exponent = np.frexp(value)
    rounded: Floats = np.ldexp(np.ceil(fraction * 2**bits) / 2**bits, exponent).astype(np.float32)
    return rounded


def _quantised(rows: Floats, low: float, high: float, recipe: Recipe) -> Plan:
    """The range of an activation that is already smoothed, or the way to scale each of its rows."""
    way: Literal["", "signed", "positive"] = ""
    floor = _NOTHING
    if recipe.rows:
        # After GELU and the like hardly a value is negative: half of a signed range would be unused.
        way = "positive" if low > -0.25 * high else "signed"
        if way == "positive":
            floor = float(_few_bits(np.float32(max(np.quantile(rows.max(axis=1), 0.01), -low, _NOTHING)), 4))
            low, high = float((rows / np.maximum(rows.max(axis=1, keepdims=True), floor)).min()), 1.0
        else:
            low, high = -1.0, 1.0
    else:
        low, high = _limits(rows, low, high, recipe.limits)
    low, high = min(low, 0.0), max(high, 0.0)
    if way == "signed":
        scale, zero = np.float32(1 / 127), np.uint8(128)
    else:
        scale = np.float32(_few_bits(np.float32(max(high - low, _NOTHING) / 255), 7))
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    return Plan(np.empty(0, np.float32), way, floor, scale, zero, [], [], [], math.inf)


def _limits(rows: Floats, low: float, high: float, how: str) -> tuple[float, float]:
    if how == "percentile":
        return float(np.quantile(rows, 1e-4)), float(np.quantile(rows, 1 - 1e-4))
    if how == "entropy":
        return _least_surprise(rows, max(-low, high), low >= 0)
    return low, high


def _least_surprise(rows: Floats, largest: float, positive: bool) -> tuple[float, float]:
    """ONNX Runtime's choice of a threshold: least divergence between the histogram and its 128 levels."""
    # Imported here: it loads SymPy and is seldom needed.
    from onnxruntime.quantization.calibrate import HistogramCollector

    counts, edges = np.histogram(rows, bins=2047, range=(-largest, largest))
    collector = HistogramCollector(
        method="entropy", symmetric=True, num_bins=2048, num_quantized_bins=128, percentile=99.99, scenario="same"
    )
    found = collector.get_entropy_threshold((counts, edges, -largest, largest, largest), 128)
    threshold = float(np.abs(found[:2]).max())
    return (0.0 if positive else -threshold), threshold


def _judge(plan: Plan, rows: Floats, expected: Sequence[Floats]) -> None:
    """Compute the plan's error, from rows that are already smoothed."""
    units = _units(rows, plan)
    there = rows if units is None else rows / units
    quantised = (np.rint(there / plan.scale) + plan.zero).clip(0, 255) - plan.zero
    plan.error = 0.0
    for whole, scales, correction, right in zip(plan.whole, plan.scales, plan.corrections, expected, strict=True):
        found = (quantised @ whole.astype(np.float32)) * (scales * plan.scale)
        if units is not None:
            found *= units
        # Relative to each row: later layers normalise rows, and a large one would hide the others' errors.
        sizes = np.square(right).sum(axis=1)
        off = np.square(right - found - correction).sum(axis=1)
        plan.error += float((off / np.maximum(sizes, 1e-3 * sizes.mean() + 1e-30)).mean())


def _units(rows: Floats, plan: Plan) -> Floats | None:
    if not plan.by_row:
        return None
    sizes = np.abs(rows) if plan.by_row == "signed" else rows
    units: Floats = np.maximum(sizes.max(axis=1, keepdims=True), np.float32(plan.floor))
    return units
