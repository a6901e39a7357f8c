"""Parquet files, as other programs write them."""

from __future__ import annotations

import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import KeyOf, Row
from server.ingest.feeds import parquet
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path / "a.parquet", **options)
    return path / "a.parquet"


def test_columns_are_fields_and_attributes_with_their_types(tmp_path: Path) -> None:
    struct = pa.array(
        [{"colour": "red", "heel": None}, None], pa.struct([("colour", pa.string()), ("heel", pa.int8())])
    )
    path = table(
        tmp_path,
        {
            "productId": pa.array([1, 2]),
            "name": pa.array(["Boot", None]),
            "sku": pa.array([4711.0, float("nan")]),  # as a table with gaps has whole numbers
            "isActive": pa.array([True, None]),
            "s3Key": pa.array(["a.jpg", "b.jpg"], pa.large_string()),
            "brand": pa.array(["Acme", "Acme"]).dictionary_encode(),
            "price": pa.array([Decimal("12.50"), Decimal("3.00")]),
            "weight": pa.array([1.5, float("nan")]),
            "since": pa.array([datetime.date(2026, 1, 2), None]),
            "sizes": pa.array([[1, 2], None]),
            "attributes": struct,
        },
    )
    attributes = {
        "brand": "Acme", "price": 12.5, "weight": 1.5, "since": "2026-01-02", "sizes": [1, 2], "colour": "red",
    }  # fmt: skip
    assert rows(path) == [
        Row(1, "demo", "1", "Boot", "4711", True, attributes, KeyOf("a.jpg")),
        Row(2, "demo", "2", None, None, None, {"brand": "Acme", "price": 3}, KeyOf("b.jpg")),
    ]


def test_attributes_may_be_a_map_or_json(tmp_path: Path) -> None:
    maps = pa.array([[("colour", "red")], []], pa.map_(pa.string(), pa.string()))
    path = table(tmp_path, {"productId": ["p1", "p2"], "attributes": maps})
    assert [one.attributes for one in rows(path)] == [{"colour": "red"}, {}]
    path = table(tmp_path, {"productId": ["p1"], "attributes": ['{"colour": "red"}']})
    assert [one.attributes for one in rows(path)] == [{"colour": "red"}]


def test_rows_are_read_in_batches_whatever_their_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 7)
    path = table(tmp_path, {"productId": [f"p{at}" for at in range(100)]}, row_group_size=30)
    assert [(one.number, one.product_id) for one in rows(path)] == [(at + 1, f"p{at}") for at in range(100)]


def test_options_and_wrong_rows_are_as_in_other_tables(tmp_path: Path) -> None:
    path = table(tmp_path, {"Artikel": ["p1", "a b", None], "Preis": ["12,50", "1", "x"], "Bild": [b"", b"", b""]})
    options: dict[str, Any] = {"columns": {"Artikel": "productId", "Preis": "price"}, "ignored": ["Bild"]}
    found = read(path, **options, numbers=["price"], decimal_comma=True)
    assert isinstance(found[0], Row)
    assert found[0].attributes == {"price": 12.5}
    assert [number for number, _ in wrongs(path, **options, numbers=["price"], decimal_comma=True)] == [2, 3]
    with pytest.raises(FeedUnreadable, match="say --ignore Bild"):
        open_feed(str(path), FeedOptions(columns=options["columns"])).check()
    with pytest.raises(FeedUnreadable, match="No column is productId"):
        open_feed(str(path))


def test_a_file_that_is_damaged_or_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="cannot be read as Parquet"):
        open_feed(str(written(tmp_path / "b.parquet", "productId\np1\n")))
    path = table(tmp_path, {"productId": [f"p{at}" for at in range(10_000)]}, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)
    path.write_bytes(data)
    with pytest.raises(FeedUnreadable, match="cannot be read as Parquet"):
        open_feed(str(path)).check()


def test_without_pyarrow_a_sentence_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, {"productId": ["p1"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(FeedUnreadable, match="the extra parquet"):
        open_feed(str(path))
