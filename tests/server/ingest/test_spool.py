"""A feed on the disk: rows come out by client and product, with the places of their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.ingest.feed import FileOf, KeyOf, Row, UrlOf, Wrong
from server.ingest.spool import Spool


@pytest.fixture
def spool() -> Iterator[Spool]:
    with closing(Spool()) as spool:
        yield spool


def filled(spool: Spool, *rows: Row) -> Spool:
    for one in rows:
        spool.add(one)
    spool.finish()
    return spool


def test_rows_come_out_as_they_went_in(spool: Spool) -> None:
    rows = [
        Row(2, "a", "1", "Name", "sku", False, {"price": 1.5, "tags": ["x"], "n": 3}, FileOf(Path("/x/ä.png"))),
        Row(3, "a", "2", picture=UrlOf("https://example.com/ö.png?x=1")),
        Row(4, "a", "3", picture=KeyOf("pictures/ü.png")),
        Row(5, "a", "4", is_active=True, attributes={}),
        Row(6, "a", "5", picture=FileOf(Path(os.fsdecode(b"/x/\xff.png")))),  # a name that is no text
    ]
    assert [one.row for one in filled(spool, *rows).placed()] == rows


def test_rows_of_a_product_follow_one_another_and_their_pictures_are_counted(spool: Spool) -> None:
    a, b, c = (FileOf(Path(name)) for name in "abc")
    rows = (
        Row(1, "z", "p", picture=a),
        Row(2, "a", "p", picture=b),
        Row(3, "z", "p"),
        Row(4, "z", "o", picture=b),
        Row(5, "z", "p", picture=c),
    )
    placed = [
        (one.row.client_id, one.row.product_id, one.row.number, one.place) for one in filled(spool, *rows).placed()
    ]
    assert placed == [("a", "p", 2, 1), ("z", "o", 4, 1), ("z", "p", 1, 1), ("z", "p", 3, 0), ("z", "p", 5, 2)]
    assert [spool.pictures("z", "p"), spool.pictures("z", "o"), spool.pictures("a", "o")] == [2, 1, None]
    assert spool.clients(9) == ["a", "z"]


def test_rows_of_a_product_say_together_what_it_is(spool: Spool) -> None:
    rows = (
        Row(1, "a", "p", name="Name", picture=KeyOf("1")),
        Row(2, "a", "p", sku="S", is_active=False, picture=KeyOf("2")),
        Row(3, "a", "p", attributes={"x": 1}),
    )
    (product,) = {id(one.product): one.product for one in filled(spool, *rows).placed()}.values()
    assert (product.name, product.sku, product.is_active, product.attributes) == ("Name", "S", False, {"x": 1})


def test_a_product_of_many_rows_is_one_product(spool: Spool) -> None:
    rows = [Row(number, "a", "p", picture=KeyOf(str(number))) for number in range(1, 2_501)]
    placed = list(filled(spool, *rows).placed())
    assert [one.place for one in placed] == list(range(1, 2_501))
    assert len({id(one.product) for one in placed}) == 1


def test_what_failed_comes_with_every_row_of_its_product(spool: Spool) -> None:
    rows = [Row(number, "a", product, picture=KeyOf(str(number))) for number, product in enumerate("pqpr", 1)]
    filled(spool, *rows)
    spool.fail(Wrong(9, "It is no row."))
    spool.fail(Wrong(3, "It is a poem."), at=3)
    assert list(spool.failed()) == [
        (None, Wrong(9, "It is no row.")),
        (rows[0], None),
        (rows[2], Wrong(3, "It is a poem.")),
    ]
