"""Cosine to score and percentage. The only place where either formula stands."""

from __future__ import annotations

MILLIONTHS = 1_000_000
"""Cosines are compared to the sixth decimal."""


def clamp(cosine: float) -> float:
    """Rounding can move the cosine of a vector with itself slightly past 1; this moves it back into [-1, 1]."""
    return max(-1.0, min(1.0, cosine))


def score(cosine: float) -> float:
    """pgvector's `<#>` for unit vectors: the negative inner product, -1 for the same picture, 1 for the opposite."""
    return 0.0 - clamp(cosine)


def similarity(cosine: float) -> float:
    """The percentage a person sees: 100.0 for cosine 1, 50.0 for 0, 0.0 for -1; one decimal."""
    return round((1.0 + clamp(cosine)) / 2.0 * 100.0, 1)


def least_cosine(percentage: float | None, cosine: float | None = None) -> float | None:
    """The lowest cosine, to the sixth decimal, that shows at least this percentage and is no lower than `cosine`.

    None where neither is given.
    """
    bounds = [] if cosine is None else [cosine]
    if percentage is not None:
        # The percentage is rounded, and rises with the cosine: the first that shows it is found by halving.
        low, high = -MILLIONTHS, MILLIONTHS + 1
        while low < high:
            middle = (low + high) // 2
            if similarity(middle / MILLIONTHS) >= percentage:
                high = middle
            else:
                low = middle + 1
        bounds.append(low / MILLIONTHS)
    return max(bounds, default=None)
