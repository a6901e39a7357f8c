"""Columns of texts that look like numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.ingest.feeds.like_numbers import LikeNumbers
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import written


@pytest.mark.parametrize(
    ("cells", "like_numbers"),
    [
        (["12.50", "9", "-3", "1e3", " 0.5 ", "0"], True),
        (["12.50", "L"], False),
        (["L", "12.50"], False),
        (["12,50"], False),
        (["007"], False),
        (["4006381333931"], False),
        (["12.50", "2026-01-01"], False),
        (["nan"], False),
        (["12.50", ["3"]], False),
        (["12.50", True], False),
        (["12.50", 3, 4.5], True),
        ([3, 4.5], False),
    ],
)
def test_a_column_looks_like_numbers_where_all_of_its_cells_do(cells: list[object], like_numbers: bool) -> None:
    columns = LikeNumbers(decimal_comma=False)
    for cell in cells:
        columns.take("price", cell)
    assert columns.names == (("price",) if like_numbers else ())


def test_columns_without_end_are_not_all_kept() -> None:
    columns = LikeNumbers(decimal_comma=False)
    for at in range(3000):
        columns.take(f"c{at}", "1")
    assert len(columns.names) == 1000


@pytest.mark.parametrize(
    ("text", "options", "names"),
    [
        ("productId,price,sku,name\np1,12.50,3,4\np2,9,4,5\n", FeedOptions(), ("price",)),
        ("productId,price\np1,12.50\np2,\n", FeedOptions(), ("price",)),
        ("productId,price\np1,12.50\n", FeedOptions(numbers=("price",)), ()),
        ("productId;price\np1;1.234,50\n", FeedOptions(), ()),
        ("productId;price\np1;1.234,50\n", FeedOptions(decimal_comma=True), ("price",)),
        ("productId,Preis\np1,12.50\n", FeedOptions(columns={"Preis": "price"}), ("price",)),
        ("productId,new\np1,1\n", FeedOptions(booleans=("new",)), ()),
        ("productId,new\np1,1\n", FeedOptions(ignored=("new",)), ()),
    ],
)
def test_what_an_option_names_is_not_said(
    tmp_path: Path, text: str, options: FeedOptions, names: tuple[str, ...]
) -> None:
    feed = open_feed(str(written(tmp_path / "a.csv", text)), options)
    for _ in range(2):
        feed.check()
        assert feed.like_numbers == names


def test_lines_of_json_and_feeds_of_others(tmp_path: Path) -> None:
    lines = open_feed(str(written(tmp_path / "a.jsonl", '{"productId": "p1", "price": "9", "size": 3}\n')))
    lines.check()
    assert lines.like_numbers == ("price",)
    folder = open_feed(str(tmp_path))
    folder.check()
    assert folder.like_numbers == ()
