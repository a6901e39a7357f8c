"""Rows in our own columns: what each cell becomes, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import FileOf, KeyOf, PictureOf, Row, UrlOf
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions, columns_of, lists_of
from tests.support.feeds import rows, written, wrongs


def only(path: Path, text: str, **options: Any) -> Row:
    (row,) = rows(written(path / "a.csv", text), **options)
    return row


def test_a_column_of_another_name_is_an_attribute_and_its_cells_are_texts(tmp_path: Path) -> None:
    row = only(tmp_path, "productId,name,sku,isActive,price,Colour,size\np1,Boot,S-1,no,12.50, red ,\n")
    assert row == Row(2, "demo", "p1", "Boot", "S-1", False, {"price": "12.50", "Colour": "red"}, None)


def test_an_empty_cell_says_nothing(tmp_path: Path) -> None:
    row = only(tmp_path, "productId,clientId,name,sku,isActive,file,attributes,colour\np1,,, ,,,,\n")
    assert row == Row(2, "demo", "p1", None, None, None, None, None)


def test_the_client_is_the_rows_or_the_one_of_the_options(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,clientId\np1,acme\np1,\n")
    assert [one.client_id for one in rows(csv)] == ["acme", "demo"]
    assert [one.client_id for one in rows(csv, client="umbrella")] == ["acme", "umbrella"]


def test_attributes_are_a_json_object_beside_those_with_columns(tmp_path: Path) -> None:
    csv = 'productId,attributes,colour\np1,"{""price"": 12.5, ""sizes"": [1, 2], ""new"": true, ""old"": null}",red\n'
    assert only(tmp_path, csv).attributes == {"price": 12.5, "sizes": [1, 2], "new": True, "old": None, "colour": "red"}
    assert only(tmp_path, "productId,attributes\np1,{}\n").attributes == {}


def test_what_is_declared_is_a_number_a_truth_or_a_list(tmp_path: Path) -> None:
    csv = "productId;price;stock;new;tags;sizes\np1;12.50;3;yes;a, b,,c;1|2\n"
    row = only(tmp_path, csv, numbers=["price", "stock"], booleans=["new"], lists={"tags": ",", "sizes": "|"})
    assert row.attributes == {"price": 12.5, "stock": 3, "new": True, "tags": ["a", "b", "c"], "sizes": ["1", "2"]}
    assert isinstance((row.attributes or {})["stock"], int)


@pytest.mark.parametrize(
    ("cell", "number"),
    [("12,50", 12.5), ("1.234,50", 1234.5), ("1.234", 1234), ("-3", -3), ("12.50", 12.5), ("1.234.567", 1234567)],
)
def test_numbers_may_have_a_decimal_comma(tmp_path: Path, cell: str, number: float) -> None:
    row = only(tmp_path, f"productId;price\np1;{cell}\n", numbers=["price"], decimal_comma=True)
    assert row.attributes == {"price": number}


@pytest.mark.parametrize(
    ("column", "picture"),
    [
        ("file", FileOf(Path("pictures/a b.jpg"))),
        ("url", UrlOf("https://example.com/a.jpg?x=1,2")),
        ("s3Key", KeyOf("media/acme/a.jpg")),
    ],
)
def test_a_row_names_a_picture_in_one_of_three_ways(tmp_path: Path, column: str, picture: PictureOf) -> None:
    where = next(iter(getattr(picture, name) for name in ("path", "url", "key") if hasattr(picture, name)))
    row = only(tmp_path, f'productId,{column}\np1,"{where}"\n')
    assert row.picture == (FileOf(tmp_path / picture.path) if isinstance(picture, FileOf) else picture)


def test_a_file_that_is_not_relative_stays_where_it_is(tmp_path: Path) -> None:
    assert only(tmp_path, "productId,file\np1,/pictures/a.jpg\n").picture == FileOf(Path("/pictures/a.jpg"))


def test_several_pictures_of_a_product_are_several_rows(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,name,file\np1,Boot,1.jpg\np1,,2.jpg\np1,Boot,3.jpg\n")
    checked = open_feed(str(csv)).check(files=False)
    assert (checked.rows, checked.products, checked.pictures, checked.wrong) == (3, 1, 3, 0)


@pytest.mark.parametrize(
    "heading", ["product_id,is_active,S3 Key", "ProductID,IsActive,s3key", "PRODUCT-ID,isactive,S3_KEY"]
)
def test_our_names_are_known_however_they_are_written(tmp_path: Path, heading: str) -> None:
    row = only(tmp_path, f"{heading}\np1,true,a.jpg\n")
    assert (row.product_id, row.is_active, row.picture, row.attributes) == ("p1", True, KeyOf("a.jpg"), None)


def test_columns_are_mapped_to_fields_and_attributes_or_left_out(tmp_path: Path) -> None:
    csv = "Artikel,Name,Preis,Notiz\np1,Boot,3,x\n"
    row = only(tmp_path, csv, columns={"Artikel": "productId", "Preis": "price", "Name": "title"}, ignored=["Notiz"])
    assert (row.product_id, row.name, row.attributes) == ("p1", None, {"title": "Boot", "price": "3"})


@pytest.mark.parametrize(
    ("heading", "options", "words"),
    [
        ("id,name", {}, "No column is productId. The columns are: id, name. Say --map COLUMN=productId"),
        ("productId,a,a", {}, "Two columns are a"),
        ("productId,sku,SKU", {}, "Two columns are sku: 'sku' and 'SKU'"),
        (
            "productId,title",
            {"columns": {"Title": "name"}},
            "--map names the column 'Title', .* has: productId, title",
        ),
        ("productId,name,titel", {"columns": {"titel": "name"}}, "Two columns are name: 'name' and 'titel'"),
        ("productId", {"ignored": ["x"]}, "--ignore names the column 'x'"),
        ("productId,Preis", {"numbers": ["price"]}, "--number names the attribute 'price', .* It has: Preis"),
        ("productId,name", {"numbers": ["name"]}, "--number is for attributes"),
        ("productId,a", {"columns": {"a": "b"}, "ignored": ["a"]}, "--ignore and --map both name"),
    ],
)
def test_a_heading_that_does_not_fit_the_options_is_refused(
    tmp_path: Path, heading: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(written(tmp_path / "a.csv", f"{heading}\n")), FeedOptions(**options))


def test_options_that_name_pairs_are_read(tmp_path: Path) -> None:
    assert columns_of(["Preis = price", "a=b=c"]) == {"Preis": "price", "a=b": "c"}
    assert lists_of(["tags", "sizes=|", "x=="]) == {"tags": ",", "sizes": "|", "x": "="}
    for wrong in (["a"], ["=b"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(FeedUnreadable, match="--map"):
            columns_of(wrong)
    for wrong in (["tags="], [""]):
        with pytest.raises(FeedUnreadable, match="--list"):
            lists_of(wrong)


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("productId", "", "The row has no productId."),
        ("productId", "a b", "productId must be 1 to 128 letters"),
        ("productId", "x" * 129, "productId must be 1 to 128 letters"),
        ("clientId", "a b", "clientId must be 1 to 128 letters"),
        ("name", "x" * 501, "name: expected str of length <= 500."),
        ("sku", "x" * 256, "sku: expected str of length <= 255."),
        ("isActive", "maybe", "isActive must be true or false (or yes, no, 1, 0), and is 'maybe'."),
        ("price", "12,50", "price must be a number such as 12.50, and is '12,50'. With --decimal-comma, 12,50 is one."),
        ("price", "1e999", "price must be a number"),
        ("price", "nan", "price must be a number"),
        ("price", "0x10", "price must be a number"),
        ("new", "x", "new must be true or false"),
        ("tags", ",".join("abc" for _ in range(101)), "The attribute 'tags': Expected array of length <= 100."),
        ("attributes", "{", "attributes must hold a JSON object, and cannot be read"),
        ("attributes", "[" * 10_000, "attributes must hold a JSON object, and cannot be read"),
        ("attributes", "[1]", "attributes must hold a JSON object, such as"),
        ("attributes", '{"a": {"b": 1}}', "The attribute 'a': Expected"),
        ("attributes", '{"price": 1}', "The attribute price has a column, and is in attributes as well."),
        ("attributes", '{"a": "\\u0000"}', "The attribute 'a' holds a NUL character."),
        ("attributes", '{"a": ["\\u0000"]}', "The attribute 'a' holds a NUL character."),
        ("attributes", '{"\\u0000": 1}', "The name of an attribute holds a NUL character."),
        ("url", "ftp://example.com/a.jpg", "url must be an address that begins with http:// or https://"),
        ("url", "https://", "url must be"),
        ("url", "https://[/a.jpg", "url must be"),
        ("url", "https://example.com:99999/", "url must be"),
        ("url", "https://example.com/a b.jpg", "url must be"),
        ("url", "https://example.com/" + "x" * 2048, "url must be"),
        ("file", "https://example.com/a.jpg", "file must be the path of a file"),
        ("s3Key", "s3://bucket/a.jpg", "s3Key must be the key of an object"),
        ("s3Key", "../a.jpg", "s3Key must be the key of an object"),
    ],
)
def test_a_cell_that_makes_no_sense_makes_its_line_wrong(tmp_path: Path, column: str, cell: str, reason: str) -> None:
    cells = {
        "productId": "p1", "clientId": "", "name": "", "sku": "", "isActive": "", "price": "1", "new": "", "tags": "",
        "attributes": "", "url": "", "file": "", "s3Key": "", column: cell,
    }  # fmt: skip
    quoted = ",".join('"' + one.replace('"', '""') + '"' for one in cells.values())
    csv = written(tmp_path / "a.csv", f"{','.join(cells)}\n{quoted}\n")
    ((number, said),) = wrongs(csv, numbers=["price"], booleans=["new"], lists={"tags": ","})
    assert number == 2
    assert said.startswith(reason)


def test_a_row_with_two_pictures_is_wrong(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,file,url\np1,a.jpg,https://example.com/a.jpg\n")
    assert wrongs(csv) == [(2, "A row has one picture: as file, as url or as s3Key.")]
