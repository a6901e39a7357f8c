"""Cursors: read by the list that wrote them, and by no other."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from server.catalogue.lists import Position
from server.errors import BadParameter, KeysUnknown
from server.http.cursors import Cursors

SECRET = b"s" * 32
POSITIONS = [
    Position("p"),
    Position("gid://shopify/größe 1"),
    Position("p", datetime(2026, 5, 4, 1, 2, 3, 456789, UTC)),
]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_list_reads_its_own_cursors(position: Position) -> None:
    cursor = Cursors(SECRET, "products", "acme", None).write(position)
    assert cursor is not None
    assert cursor.replace("-", "").replace("_", "").isalnum(), "it needs no encoding in an address"
    assert Cursors(SECRET, "products", "acme", None).read(cursor) == position
    assert Cursors(SECRET, "products").write(None) is None
    assert Cursors(SECRET, "products").read(None) is None


@pytest.mark.parametrize(
    "other",
    [
        (b"t" * 32, "products", "acme", True), (SECRET, "media", "acme", True), (SECRET, "products", "other", True),
        (SECRET, "products", "acme", None), (SECRET, "products", "acme", "true"), (SECRET, "products", "acme"),
    ],
)  # fmt: skip
def test_another_list_refuses_it(other: tuple[object, ...]) -> None:
    cursor = Cursors(SECRET, "products", "acme", True).write(Position("p"))
    with pytest.raises(BadParameter, match="not one of this list"):
        Cursors(*other).read(cursor)  # type: ignore[arg-type]


def test_one_that_was_changed_anywhere_is_refused() -> None:
    cursors = Cursors(SECRET, "products")
    cursor = cursors.write(Position("p", datetime(2026, 1, 1, tzinfo=UTC))) or ""
    data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BadParameter):
            cursors.read(base64.urlsafe_b64encode(changed).rstrip(b"=").decode())


@pytest.mark.parametrize("cursor", ["", "a", "null", "é", "\ud800", "=" * 9, "AAAA" * 500, "a b", "../..", "[]"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadParameter, match="begin again without a cursor"):
        Cursors(SECRET, "products").read(cursor)


def test_nobody_signs_without_a_secret() -> None:
    with pytest.raises(KeysUnknown):
        Cursors(b"", "products")
