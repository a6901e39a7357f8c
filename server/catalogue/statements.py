"""The statement of a search in its forms: where its candidates come from, and what they are ranked by."""

from __future__ import annotations

from psycopg import sql

from server.catalogue.rows import Query
from server.database.queries import Queries

AMONG = ("active", "active_where", "of_any_state")
"""Which media exact searches compare with."""

_NOTHING = sql.SQL("0")
_NOBODY = sql.SQL("")
# No vector index has this order.
_NEAREST = sql.SQL("(v.embedding <=> %(embedding)s) + 0")


class Statements:
    """The statements of one space, each made when it is first asked for."""

    def __init__(self, queries: Queries, products: sql.Composable) -> None:
        """`products`: the part that gives the client's products to a filter."""
        queries = queries.including("micro", "after", "near_enough", "bonus", "boost")
        self._queries = queries.including("boosted_edge", "passes")
        self._products = products
        self.made: dict[str, bytes] = {}
        """By their names: the parts that they are made of."""
        for among in AMONG:
            self.get("near_exactly", among)
        self.get("near_by_index")

    def of(self, query: Query, near: str, among: str = "", *, form: str = "search") -> bytes:
        """As `get`, for what the query is ranked by."""
        return self.get(near, among, named=bool(query.bonuses), boosted=bool(query.boosts), form=form)

    def get(
        self, near: str, among: str = "", *, named: bool = False, boosted: bool = False, form: str = "search"
    ) -> bytes:
        """`near`: the part that gives the candidates; `among`: which media it compares with, of an exact search;
        `named`: with products that have a bonus; `boosted`: with what attributes add; `form`: what is given of the
        candidates: `search` gives matches, and `products_of_matches` their products. Where `near` is `in_products`,
        the matches of given products, whatever their rank."""
        words = (near, among, "named" if named else "", "boosted" if boosted else "", form if form != "search" else "")
        name = " ".join(word for word in words if word)
        if name not in self.made:
            self.made[name] = self._compose(near, among, named, boosted, form).as_bytes(None)
        return self.made[name]

    def _compose(self, near: str, among: str, named: bool, boosted: bool, form: str) -> sql.Composed:
        queries = self._queries
        micro, boost, bonus = (queries.composed(name) for name in ("micro", "boost", "bonus"))
        added = [part for part, wanted in ((boost, boosted), (bonus, named)) if wanted]
        bonuses = sql.SQL("({})").format(sql.SQL(" + ").join(added)) if added else _NOTHING
        columns = queries.composed("ranked_columns", bonuses=bonuses)
        if near == "in_products":
            return queries.composed("in_products", ranked_columns=columns)
        edge: sql.Composable = micro
        parts: dict[str, sql.Composable] = {"rank": micro, "order": _NEAREST}
        if among:
            parts["among"] = queries.composed(among, products=self._products)
        if among and boosted:
            parts["rank"] = sql.SQL("({} + {})").format(micro, boost)
            parts["order"] = sql.SQL("{} DESC").format(parts["rank"])
            edge = queries.composed("boosted_edge")
        matches = queries.composed(
            "matches",
            near=queries.composed(near, **parts),
            named=queries.composed("named") if named else _NOBODY,
            bonuses=bonuses,
            ranked_columns=columns,
        )
        return queries.composed(form, matches=matches, edge=edge)
