"""Near-duplicates in one list: a match that is too much like one before it is left out.

From the best on: a match is listed unless its cosine with one that is listed already is at least `least`. So the list
depends on nothing but the order of the matches, and the best of a group of near-duplicates stands for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.catalogue.ranking import Ranked


def diverse(
    ranked: Sequence[Ranked],
    vectors: Mapping[str, NDArray[np.float32]],
    least: float,
    limit: int,
    most: int | None = None,
) -> list[Ranked]:
    """At most `limit` of these that are not too much alike, and at most `most` of each product.

    `vectors`: float32[D] of whatever length by the media's id. A match without one is not compared.
    """
    listed: list[Ranked] = []
    seen: Counter[str] = Counter()
    count = 0
    chosen: NDArray[np.float64] | None = None
    for one in ranked:
        if len(listed) == limit:
            break
        product = one.match.product_id
        if most is not None and seen[product] == most:
            continue
        vector = vectors.get(one.match.media_id)
        if vector is not None:
            wide = vector.astype(np.float64)
            unit = wide / np.linalg.norm(wide)
            if chosen is None:
                chosen = np.empty((limit, len(unit)))
            # To the sixth decimal, as all cosines are.
            if count and round(float((chosen[:count] @ unit).max()), 6) >= least:
                continue
            chosen[count] = unit
            count += 1
        listed.append(one)
        seen[product] += 1
    return listed
