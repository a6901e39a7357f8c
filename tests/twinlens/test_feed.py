"""Folders and tables as rows, and what is wrong with them in sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinlens.feed import FeedUnreadable, Row, Wrong, agreed, feed_of


def table(folder: Path, *lines: str, name: str = "feed.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def rows(source: Path) -> list[Row | Wrong]:
    feed = feed_of(source)
    found = list(feed.read())
    assert list(feed.read()) == found
    return found


def test_a_folder_is_a_product_and_a_picture_alone_is_one_too(tmp_path: Path) -> None:
    for place in ("shoe/2.JPG", "shoe/1.webp", "shoe/back/3.png", "alone.jpeg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for left_out in ("shoe/notes.txt", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / left_out).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "shoe" / "round").symlink_to(tmp_path)
    pictures = {"alone.jpeg": "alone", "shoe/1.webp": "shoe", "shoe/2.JPG": "shoe", "shoe/back/3.png": "shoe"}
    assert rows(tmp_path) == [
        Row(number, product, picture=tmp_path / place) for number, (place, product) in enumerate(pictures.items(), 1)
    ]


def test_a_table_says_what_its_cells_say_and_no_more(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "Product ID,name,SKU,file,url,is_active,attributes,colour",
        'p1, Shoe ,S-1,a/b.jpg,,no,"{""price"": 49.9}",red',
        "p1,,,,https://shop.example/c.jpg,,,",
        ",,,,,,,",
        '"p,2","Two\nlines",,,,TRUE,,',
    )
    assert rows(path) == [
        Row(2, "p1", "Shoe", "S-1", False, {"price": 49.9, "colour": "red"}, tmp_path / "a" / "b.jpg"),
        Row(3, "p1", url="https://shop.example/c.jpg"),
        Row(5, "p,2", "Two\nlines", is_active=True),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_may_have_another_delimiter_and_a_mark_at_its_beginning(tmp_path: Path, delimiter: str) -> None:
    path = table(tmp_path, f"productId{delimiter}name", f"p{delimiter}Schön", encoding="utf-8-sig", name="feed.tsv")
    assert rows(path) == [Row(2, "p", "Schön")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p,1", "has 2 cells, and the first line 5"),
        (",,,,", None),
        (",x.jpg,,,", "no productId"),
        ("p,x.jpg,https://shop.example/x.jpg,,", "one picture"),
        ("p,,shop.example/x.jpg,,", "must begin with http"),
        ("p,,,maybe,", "isActive must be true or false"),
        ("p,,,,{", "cannot be read"),
        ("p,,,,[1]", "a JSON object"),
    ],
)
def test_a_wrong_line_is_named_and_the_others_are_read(tmp_path: Path, line: str, reason: str | None) -> None:
    path = table(tmp_path, "productId,file,url,isActive,attributes", "a,,,,", line, "b,,,,")
    found = rows(path)
    assert [one for one in found if isinstance(one, Row)] == [Row(2, "a"), Row(4, "b")]
    wrong = [one for one in found if isinstance(one, Wrong)]
    assert [one.number for one in wrong] == ([3] if reason else [])
    assert all((reason or "") in one.reason for one in wrong)


def test_an_attribute_stands_in_one_place(tmp_path: Path) -> None:
    path = table(tmp_path, "productId,colour,attributes", 'p,red,"{""colour"": ""blue""}"')
    (wrong,) = rows(path)
    assert isinstance(wrong, Wrong)
    assert "colour has a column" in wrong.reason


def test_rows_of_a_product_do_not_contradict_each_other_wherever_they_stand(tmp_path: Path) -> None:
    path = table(tmp_path, "productId,name,sku,size", "p,A,,1", "q,B,,", "p,,S,1", "p,C,,", "p,,S,2", "p,A,S,")
    found = list(agreed(feed_of(path).read()))
    assert [(one.number, one.reason) for one in found if isinstance(one, Wrong)] == [
        (5, "It says another name than line 2 of the same product."),
        (6, "It says another attributes than line 2 of the same product."),
    ]
    assert [one.number for one in found if isinstance(one, Row)] == [2, 3, 4, 7]


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("", "no column productId"),
        ("id,name", "no column productId"),
        ("productId,product_id", "several columns productId"),
        ("productId,,", "several columns without a name"),
        ("productId,clientId", "only the server's own ingest"),
        ("productId,s3Key", "only the server's own ingest"),
    ],
)
def test_a_heading_that_makes_no_sense_is_refused(tmp_path: Path, heading: str, said: str) -> None:
    with pytest.raises(FeedUnreadable, match=said):
        feed_of(table(tmp_path, heading, "p,x"))


def test_what_cannot_be_read_at_all_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="no folder and no file"):
        feed_of(tmp_path / "none")
    with pytest.raises(FeedUnreadable, match="neither a folder nor a table"):
        feed_of(table(tmp_path, name="feed.xlsx"))
    with pytest.raises(FeedUnreadable, match="not text in UTF-8"):
        feed_of(table(tmp_path, "productId,größe", encoding="latin-1"))
    late = table(tmp_path, "productId,name", *["p,x"] * 5000, "p,größe", encoding="latin-1")
    with pytest.raises(FeedUnreadable, match="not text in UTF-8"):
        rows(late)
    with pytest.raises(FeedUnreadable, match="from line 3 on"):
        rows(table(tmp_path, "productId,name", "p,x", 'q,"never closed', "r,x"))
