"""Shopify's export of products."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import Row, UrlOf, Wrong
from server.ingest.feeds import shopify
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs

# As Shopify's own example has them, without the columns that are not read.
HEADING = (
    "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,"
    "Option2 Value,Variant SKU,Variant Price,Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,"
    "Variant Image,Status"
)
CDN = "https://cdn.shopify.com/s/files/1"


def line(**cells: str) -> str:
    """A row of an export, by the names of its columns without what is no letter."""
    names = ["".join(filter(str.isalnum, one)) for one in HEADING.split(",")]
    assert cells.keys() <= set(names)
    return ",".join('"' + cells.get(name, "").replace('"', '""') + '"' for name in names)


def export(path: Path, *lines: str) -> Path:
    return written(path / "products_export.csv", "\n".join([HEADING, *lines, ""]))


BOOT = (
    line(
        Handle="boot", Title="Boot", BodyHTML="<p>Warm,\nand dry.</p>", Vendor="Acme", ProductCategory="Shoes > Boots",
        Type="Boots", Tags="winter, leather,", Published="true", Option1Name="Size", Option1Value="40",
        Option2Name="Colour", Option2Value="red", VariantSKU="'B-40", VariantPrice="99.90", ImageSrc=f"{CDN}/1.jpg?v=1",
        ImagePosition="1", Status="active",
    ),
    line(Handle="boot", Option1Value="41", Option2Value="red", VariantSKU="B-41", VariantPrice="89.00"),
    line(Handle="boot", ImageSrc=f"{CDN}/2.jpg", ImagePosition="2", VariantImage=f"{CDN}/1.jpg?v=1"),
    line(Handle="boot", Option1Value="42", Option2Value="blue", VariantImage=f"{CDN}/3.jpg"),
)  # fmt: skip


def test_the_first_row_of_a_product_says_what_it_is_and_each_picture_is_a_row(tmp_path: Path) -> None:
    csv = export(tmp_path, *BOOT, line(Handle="hat", Title="Hat", Option1Name="Title", Option1Value="Default Title"))
    attributes = {
        "vendor": "Acme", "category": "Shoes > Boots", "type": "Boots", "tags": ["winter", "leather"], "price": 89.0,
        "Size": ["40", "41", "42"], "Colour": ["red", "blue"],
    }  # fmt: skip
    assert rows(csv, client="acme") == [
        Row(2, "acme", "boot", "Boot", "B-40", True, attributes, UrlOf(f"{CDN}/1.jpg?v=1")),
        Row(5, "acme", "boot", picture=UrlOf(f"{CDN}/2.jpg")),
        Row(6, "acme", "boot", picture=UrlOf(f"{CDN}/3.jpg")),
        Row(7, "acme", "hat", "Hat"),
    ]


def test_an_export_is_known_by_its_columns_or_by_its_name(tmp_path: Path) -> None:
    csv = export(tmp_path, *BOOT)
    assert open_feed(str(csv)).kind == "shopify"
    assert open_feed(str(csv), FeedOptions(format="shopify")).kind == "shopify"
    mapped = FeedOptions(columns={"Handle": "productId", "Title": "name", "Image Src": "url"})
    assert open_feed(str(csv), mapped).kind == "csv"
    with pytest.raises(FeedUnreadable, match="No column is productId"):
        open_feed(str(csv), FeedOptions(format="csv"))
    with pytest.raises(FeedUnreadable, match="--number is for columns of one's own, and this is read as shopify"):
        open_feed(str(csv), FeedOptions(numbers=["price"]))


def test_the_names_of_newer_exports_are_known(tmp_path: Path) -> None:
    heading = (
        "Title,URL handle,Description,Vendor,Published on online store,Status,SKU,Price,Product image URL,"
        "Variant image URL"
    )
    text = f"{heading}\nBoot,boot,x,Acme,TRUE,Active,B-40,99.90,{CDN}/1.jpg,\n,boot,,,,,,,,{CDN}/2.jpg\n"
    assert rows(written(tmp_path / "a.csv", text)) == [
        Row(2, "demo", "boot", "Boot", "B-40", True, {"vendor": "Acme", "price": 99.9}, UrlOf(f"{CDN}/1.jpg")),
        Row(3, "demo", "boot", picture=UrlOf(f"{CDN}/2.jpg")),
    ]


@pytest.mark.parametrize(
    ("status", "published", "active"),
    [
        ("active", "true", True),
        ("Active", "", True),
        ("active", "FALSE", False),
        ("draft", "true", False),
        ("archived", "true", False),
        ("", "true", True),
        ("", "false", False),
        ("", "", None),
    ],
)
def test_a_product_is_active_where_the_shop_shows_it(
    tmp_path: Path, status: str, published: str, active: bool | None
) -> None:
    (row,) = rows(export(tmp_path, line(Handle="boot", Title="Boot", Status=status, Published=published)))
    assert row.is_active is active


def test_a_wrong_line_costs_no_other_line(tmp_path: Path) -> None:
    csv = export(
        tmp_path,
        line(Title="Nameless"),
        BOOT[0],
        line(Handle="boot", ImageSrc="cdn/2.jpg"),
        "boot,too,short",
        line(Handle="boot", ImageSrc=f"{CDN}/3.jpg"),
        line(Handle="hat", Title="Hat", Status="sold"),
        line(Handle="coat", Title="Coat", VariantPrice="much"),
        line(Handle="a b", Title="Bad"),
        line(Handle="scarf", Title="Scarf"),
    )
    found = wrongs(csv)
    assert [number for number, _ in found] == [2, 5, 6, 8, 9, 10]
    reasons = ("The row has no", "url must", "The row has 3", "Status must", "Variant Price must", "productId must")
    assert all(said.startswith(reason) for (_, said), reason in zip(found, reasons, strict=True))
    sound = [one for one in read(csv) if isinstance(one, Row)]
    assert [(one.number, one.product_id, one.name) for one in sound] == [
        (3, "boot", "Boot"),
        (7, "boot", None),
        (11, "scarf", "Scarf"),
    ]


def test_rows_of_a_product_that_lie_apart_are_pictures_of_it(tmp_path: Path) -> None:
    hat = line(Handle="hat", Title="Hat")
    later = line(Handle="boot", Option1Value="50", VariantSKU="X", ImageSrc=f"{CDN}/9.jpg")
    found = rows(export(tmp_path, *BOOT, hat, later))
    assert found[-1] == Row(8, "demo", "boot", picture=UrlOf(f"{CDN}/9.jpg"))


def test_a_product_with_very_many_rows_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shopify, "_MOST_ROWS", 3)
    lines = [line(Handle="boot", ImageSrc=f"{CDN}/{at}.jpg") for at in range(10)]
    found = rows(export(tmp_path, line(Handle="boot", Title="Boot"), *lines))
    assert [one.name for one in found] == ["Boot"] + [None] * 10
    everything_wrong = read(export(tmp_path, *["x"] * 10))
    assert [one.number for one in everything_wrong if isinstance(one, Wrong)] == list(range(2, 12))


def test_more_values_than_an_attribute_may_have_are_left_out(tmp_path: Path) -> None:
    lines = [line(Handle="boot", Option1Value=str(at)) for at in range(150)]
    (row,) = rows(export(tmp_path, line(Handle="boot", Title="Boot", Option1Name="Size"), *lines))
    assert (row.attributes or {})["Size"] == [str(at) for at in range(100)]


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Handle,Image Src", "one column Title, and this has 0"),
        ("Handle,URL handle,Title,Image Src", "one column Handle, and this has 2"),
        ("Handle,Title,Image Src,Product image URL", "Two columns are Image Src"),
    ],
)
def test_columns_that_are_not_shopifys_are_refused(tmp_path: Path, heading: str, words: str) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(written(tmp_path / "a.csv", f"{heading}\n")), FeedOptions(format="shopify"))
