"""What the page about feeds shows is so."""

from __future__ import annotations

import re
from pathlib import Path

from server.ingest.feeds.columns import FIELDS
from server.ingest.feeds.google import ATTRIBUTES
from tests import ROOT
from tests.support.feeds import rows, written, wrongs

PAGE = (ROOT / "docs/feeds.md").read_text("utf-8")


def block(beginning: str) -> str:
    """The lines of an example, from the one that begins so."""
    (found,) = re.findall(rf"^    {re.escape(beginning)}.*\n(?:    .*\n)*", PAGE, re.MULTILINE)
    return re.sub("^    ", "", found, flags=re.MULTILINE)


def test_its_examples_are_feeds(tmp_path: Path) -> None:
    table = rows(written(tmp_path / "a.csv", block("productId,name")), numbers=["price"])
    assert [(one.number, one.product_id, one.is_active) for one in table] == [
        (2, "boot-1", True),
        (3, "boot-1", None),
        (4, "hat-7", False),
    ]
    assert table[0].attributes == {"price": 99.9, "colour": "red"}
    (line,) = rows(written(tmp_path / "a.jsonl", block('{"productId"')))
    assert line.attributes == {"price": 99.9, "sizes": [40, 41]}


def test_its_folders_have_the_products_that_it_says(tmp_path: Path) -> None:
    said = dict(re.findall(r"pictures/(\S+) +the product (\S+)", block("pictures/boot-1/front")))
    for place in said:
        written(tmp_path / place, b"")
    found = rows(tmp_path, client="acme")
    assert [one.product_id for one in found] == [said[place] for place in sorted(said)]


def test_it_names_every_column_and_every_attribute_of_googles() -> None:
    columns = re.findall(r"^\| `(\w+)` \|", PAGE[: PAGE.index("**An empty cell")], re.MULTILINE)
    assert sorted(columns) == sorted(FIELDS)
    google = PAGE[PAGE.index("### Google") :].replace("`custom_label_0` to `custom_label_4`", "")
    assert {one for one in ATTRIBUTES if f"`{one}`" not in google} == {f"custom_label_{at}" for at in range(5)}


def test_its_reasons_are_those_that_are_given(tmp_path: Path) -> None:
    lines = [
        "productId,name,sku,file,isActive,price,colour", "boot-1,Winter boot,B-1,,,,", 'p,,,,,"12,50",', "p,a,b,c,,,,",
        "boot-1,Boot,,,,,", "hat-7,,B-1,,,,",
    ]  # fmt: skip
    found = wrongs(written(tmp_path / "a.csv", "\n".join(lines)), numbers=["price"])
    assert [reason for _, reason in found] == re.findall(r"line \d+: (.*)", block("line 17"))
