"""The statement of a search in its forms: where its candidates come from, and what they are ranked by."""

from __future__ import annotations

from psycopg import sql

from server.database.queries import Queries

AMONG = ("active", "active_where", "of_any_state")
"""Which media exact searches compare with."""

_NOTHING = sql.SQL("0")
_NOBODY = sql.SQL("")


class Statements:
    """The statements of one space, each made when it is first asked for."""

    def __init__(self, queries: Queries, products: sql.Composable) -> None:
        """`products`: the part that gives the client's products to a filter."""
        self._queries = queries.including("micro", "after")
        self._products = products
        self.made: dict[str, bytes] = {}
        """By their names: the parts that they are made of."""
        for among in AMONG:
            self.get("near_exactly", among)
        self.get("near_by_index")

    def get(self, near: str, among: str = "", *, named: bool = False) -> bytes:
        """`near`: the part that gives the candidates; `among`: which media it compares with, of an exact search;
        `named`: with products that have a bonus."""
        name = " ".join([near, *([among] if among else []), *(["named"] if named else [])])
        if name not in self.made:
            self.made[name] = self._compose(near, among, named).as_bytes(None)
        return self.made[name]

    def _compose(self, near: str, among: str, named: bool) -> sql.Composed:
        queries = self._queries
        micro = queries.composed("micro")
        parts: dict[str, sql.Composable] = {"rank": micro}
        if among:
            parts["among"] = queries.composed(among, products=self._products)
        matches = queries.composed(
            "matches",
            near=queries.composed(near, **parts),
            named=queries.composed("named") if named else _NOBODY,
            bonuses=queries.composed("bonus") if named else _NOTHING,
        )
        return queries.composed("search", matches=matches, edge=micro)
