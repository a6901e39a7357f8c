"""JSON Lines: an object a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import FileOf, Row
from server.ingest.feeds import files
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs


def test_members_are_cells_with_types_of_their_own(tmp_path: Path) -> None:
    line = {
        "productId": 17, "clientId": "acme", "name": "Boot", "sku": 4711.0, "isActive": False, "file": "a.jpg",
        "price": 12.5, "sizes": [1, 2], "new": True, "note": None, "attributes": {"colour": "red", "old": None},
    }  # fmt: skip
    found = rows(written(tmp_path / "a.jsonl", json.dumps(line) + "\n\n"))
    attributes = {"price": 12.5, "sizes": [1, 2], "new": True, "colour": "red", "old": None}
    assert found == [Row(1, "acme", "17", "Boot", "4711", False, attributes, FileOf(tmp_path / "a.jpg"))]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_lines_may_differ_and_are_numbered_with_the_blank_ones(tmp_path: Path, name: str) -> None:
    found = rows(written(tmp_path / name, '\ufeff{"productId": "p1"}\r\n\r\n{"name": "Boot", "productId": "p2"}'))
    assert [(one.number, one.product_id, one.name) for one in found] == [(1, "p1", None), (3, "p2", "Boot")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "The line cannot be read as JSON: "),
        ('{"productId": "p1"} {}', "The line cannot be read as JSON: "),
        ('"p1"', "The line is no JSON object, but '\"p1\"'."),
        ("null", "The line is no JSON object"),
        ("{}", "The row has no productId."),
        ('{"productId": true}', "productId must be a text, and is 'True'."),
        ('{"productId": 1.5}', "productId must be a text, and is '1.5'."),
        ('{"productId": ["p1"]}', "productId must be a text"),
        ('{"productId": "p1", "sku": "1", "SKU": "2"}', "Two members are sku."),
        ('{"productId": "p1", "isActive": "perhaps"}', "isActive must be true or false"),
        ('{"productId": "p1", "colour": {"a": 1}}', "The attribute 'colour': Expected"),
        ('{"productId": "p1", "name": "\\ud800"}', ""),
        ('{"productId": "p1", "a": 1e999}', ""),
        ('{"productId": "p1", "a": ' + "[" * 5000 + "]" * 5000 + "}", ""),
    ],
)
def test_a_line_that_is_wrong_costs_no_other_line(tmp_path: Path, line: str, reason: str) -> None:
    jsonl = written(tmp_path / "a.jsonl", f'{{"productId": "p0"}}\n{line}\n{{"productId": "p2"}}\n')
    ((number, said),) = wrongs(jsonl)
    assert number == 2
    assert said.startswith(reason)
    assert [one.product_id for one in read(jsonl) if isinstance(one, Row)] == ["p0", "p2"]


def test_a_line_in_another_encoding_is_wrong(tmp_path: Path) -> None:
    jsonl = written(tmp_path / "a.jsonl", '{"productId": "p1", "name": "Schränke"}\n'.encode("cp1252"))
    assert wrongs(jsonl) == [(1, "The line has bytes that are no text in UTF-8.")]
    assert rows(jsonl, encoding="cp1252")[0].name == "Schränke"


def test_a_line_without_end_is_wrong_and_the_next_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_CHARACTERS", 100)
    jsonl = written(tmp_path / "a.jsonl", f'{{"productId": "{"x" * 1000}"}}\n{{"productId": "p2"}}\n')
    assert wrongs(jsonl) == [(1, "The line has more than 100 characters.")]
    assert [one.number for one in read(jsonl) if isinstance(one, Row)] == [2]


def test_names_are_mapped_and_what_no_line_has_is_said_at_the_end(tmp_path: Path) -> None:
    jsonl = written(tmp_path / "a.jsonl", '{"id": "p1", "Preis": "12.50", "x": 1}\n{"id": "p2", "titel": "Boot"}\n')
    found = rows(
        jsonl, columns={"id": "productId", "Preis": "price", "titel": "name"}, numbers=["price"], ignored=["x"]
    )
    assert [(one.product_id, one.name, one.attributes) for one in found] == [
        ("p1", None, {"price": 12.5}),
        ("p2", "Boot", None),
    ]
    with pytest.raises(FeedUnreadable, match="--map names the column 'title', which the feed does not have"):
        open_feed(str(jsonl), FeedOptions(columns={"id": "productId", "title": "name"})).check()


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="jq -c"):
        open_feed(str(written(tmp_path / "a.json", '[{"productId": "p1"}]')))
