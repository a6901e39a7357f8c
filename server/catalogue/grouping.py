"""Matches by their products: one row a product, or at most so many of each.

Of the products that have a match among the candidates, all matching media are fetched and ranked within their product.
So a product has the place of its very best match, also where an index has overlooked it, and what is listed beside it
is right; and on a later page a product that was shown before does not come again, whatever else of it follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg.rows import RowMaker, no_result

from server.catalogue.ranking import Ranked, places_of, ranked_of
from server.catalogue.rows import Match


class InProduct(NamedTuple):
    """A match that was fetched for its product."""

    ranked: Ranked
    place: int
    """In its product, from 1."""
    behind: bool
    """Whether it comes behind the last match of the page before."""


def in_product_row(cursor: Any) -> RowMaker[InProduct]:
    """A row factory of psycopg, as `ranked_row` is."""
    if cursor.description is None:
        return no_result
    places = places_of(cursor)
    ranked, place, behind = ranked_of(places), places["place"], places["behind"]
    return lambda values: InProduct(ranked(values), values[place], values[behind])


def products_of(ranked: Iterable[Ranked]) -> list[str]:
    """The products of these matches, each once, in the order of their first ones."""
    return [*dict.fromkeys(one.match.product_id for one in ranked)]


def best_of(rows: Iterable[InProduct], most: int, floor: float) -> list[Ranked]:
    """Of each product at most so many, which come behind the page before and rank no lower than `floor`."""
    return [row.ranked for row in rows if row.place <= most and row.behind and row.ranked.key.rank >= floor]


def others_of(rows: Iterable[InProduct], size: int) -> dict[str, Sequence[Match]]:
    """By the product: what else it has beside its best match, at most so many, best first."""
    others: dict[str, list[Match]] = {}
    for row in rows:
        named = others.setdefault(row.ranked.match.product_id, [])
        if 1 < row.place <= size + 1:
            named.append(row.ranked.match)
    return {**others}


def capped(ranked: Iterable[Ranked], most: int) -> list[Ranked]:
    """At most so many of each product, from the best on."""
    seen: Counter[str] = Counter()
    kept = []
    for one in ranked:
        seen[one.match.product_id] += 1
        if seen[one.match.product_id] <= most:
            kept.append(one)
    return kept


def near_enough(others: Mapping[str, Sequence[Match]], least: float | None) -> dict[str, Sequence[Match]]:
    """Those with at least this cosine."""
    if least is None:
        return {**others}
    return {product: [one for one in matches if one.cosine >= least] for product, matches in others.items()}
