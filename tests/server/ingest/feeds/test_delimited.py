"""Text files of cells, as people and spreadsheets write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import Row, Wrong
from server.ingest.feeds import files
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs


def names(path: Path, **options: object) -> dict[int, str | None]:
    return {one.number: one.name for one in rows(path, **options)}


def test_a_number_is_the_line_where_a_row_begins(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", 'productId,name\np1,"Red\nshoe"\n\np2,Boot\n')
    assert names(csv) == {2: "Red\nshoe", 5: "Boot"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_and_ends_of_lines_are_no_part_of_a_cell(tmp_path: Path, end: str, mark: bytes) -> None:
    csv = written(tmp_path / "a.csv", mark + end.join(["productId,name", "p1,Schränke", "p2,Boot"]).encode())
    assert names(csv) == {2: "Schränke", 3: "Boot"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_heading_shows_the_delimiter(tmp_path: Path, delimiter: str, name: str) -> None:
    text = "productId,name,colour\np1,Boot,red\n".replace(",", delimiter)
    (row,) = rows(written(tmp_path / name, text))
    assert (row.product_id, row.name, row.attributes) == ("p1", "Boot", {"colour": "red"})


def test_the_line_with_which_excel_names_the_delimiter_is_no_heading(tmp_path: Path) -> None:
    assert names(written(tmp_path / "a.csv", "sep=;\r\nproductId;name\r\np1;a,b\r\n")) == {3: "a,b"}


def test_a_delimiter_can_be_named(tmp_path: Path) -> None:
    assert names(written(tmp_path / "a.csv", "productId:name\np1:Boot\n"), delimiter=":") == {2: "Boot"}


@pytest.mark.parametrize("delimiter", ["", "::", '"', "\n"])
def test_a_delimiter_that_cannot_be_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(FeedUnreadable, match="one character"):
        read(written(tmp_path / "a.csv", "productId\np1\n"), delimiter=delimiter)


def test_other_encodings_are_read_by_their_mark_or_by_name(tmp_path: Path) -> None:
    text = "productId\tname\np1\tSchränke\n"
    assert names(written(tmp_path / "marked.txt", text.encode("utf-16"))) == {2: "Schränke"}
    assert names(written(tmp_path / "named.csv", text.encode("cp1252")), encoding="cp1252") == {2: "Schränke"}
    assert names(written(tmp_path / "both.csv", text.encode("utf-8-sig")), encoding="utf-8") == {2: "Schränke"}


def test_a_file_without_its_encodings_mark_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="--encoding utf-16"):
        read(written(tmp_path / "a.csv", "productId,name\np1,Boot\n".encode("utf-16-le")))
    with pytest.raises(FeedUnreadable, match="--encoding cp1252"):
        read(written(tmp_path / "b.csv", "productId,Größe\np1,3\n".encode("cp1252")))
    with pytest.raises(FeedUnreadable, match="no encoding 'cp12520'"):
        read(written(tmp_path / "c.csv", "productId\n"), encoding="cp12520")
    with pytest.raises(FeedUnreadable, match="no text in the encoding utf-16"):
        read(written(tmp_path / "d.csv", "productId,name\np1,Boot\n".encode("utf-16") + b"a"), encoding="utf-16")


def test_a_line_in_another_encoding_is_wrong_and_the_others_are_not(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", b"productId,name\np1,Schr\xe4nke\np2,Boot\n")
    wrong, row = read(csv)
    assert isinstance(wrong, Wrong)
    assert wrong.number == 2
    assert "--encoding cp1252" in wrong.reason
    assert isinstance(row, Row)


def test_packed_files_are_read(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv.gz", gzip.compress(b"productId,name\np1,Boot\n"))
    assert names(csv) == {2: "Boot"}
    cut = written(tmp_path / "cut.csv.gz", csv.read_bytes()[:-9])
    with pytest.raises(FeedUnreadable, match="cannot be read"):
        read(cut)
    with pytest.raises(FeedUnreadable, match="cannot be read"):
        read(written(tmp_path / "no.csv.gz", b"productId\n"))


def test_rows_of_empty_cells_are_none(tmp_path: Path) -> None:
    assert names(written(tmp_path / "a.csv", "productId,name\n,\np1,Boot\n , \n\n")) == {3: "Boot"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p1,a,b", "The row has 3 cells, and the heading has 2."),
        ("p1", "The row has 1 cells, and the heading has 2."),
        ('p1,"a"b', "There is text after the quotation mark that closes a cell."),
        ('p1,"a', "A quotation mark opens a cell, and none closes it."),
        ("p1,a\0b", "name holds a NUL character."),
    ],
)
@pytest.mark.parametrize("after", ["p2,Boot\n", 'p2,"Boot"\n'])
def test_a_line_that_is_wrong_costs_no_other_line(tmp_path: Path, line: str, reason: str, after: str) -> None:
    """Also where a quotation mark that nobody closes seems to make one cell of all that follows."""
    csv = written(tmp_path / "a.csv", f"productId,name\n{line}\n{after}p3,Shoe\n")
    wrong, *others = read(csv)
    assert isinstance(wrong, Wrong)
    assert wrong.number == 2
    assert wrong.reason.startswith(reason) or reason.startswith("A quotation mark opens")
    assert [(one.number, one.product_id) for one in others if isinstance(one, Row)] == [(3, "p2"), (4, "p3")]


def test_an_open_quotation_mark_is_named(tmp_path: Path) -> None:
    assert wrongs(written(tmp_path / "a.csv", 'productId,name\np1,"a\np2,b\n')) == [
        (2, "A quotation mark opens a cell, and none closes it.")
    ]


def test_a_cell_of_any_length_that_is_not_read_is_no_fault(tmp_path: Path) -> None:
    """Descriptions with pictures in them exceed what Python's csv takes of itself."""
    csv = written(tmp_path / "a.csv", f"productId,name,html\np1,Boot,{'x' * 300_000}\n")
    assert names(csv, ignored=["html"]) == {2: "Boot"}


@pytest.mark.parametrize("cell", ['"{}"', "{}", '"{}', '"a\n{}"'])
def test_a_row_without_end_is_wrong_and_the_next_one_is_read(
    tmp_path: Path, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_CHARACTERS", 1000)
    csv = written(tmp_path / "a.csv", f"productId,name\np1,{cell.format('x' * 5000)}\np2,Boot\n")
    found = read(csv)
    assert isinstance(found[0], Wrong)
    assert found[0].number == 2
    assert "1,000 characters" in found[0].reason
    assert isinstance(found[-1], Row)
    assert found[-1].number == csv.read_text().count("\n")


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", 'productId,"name'])
def test_a_file_without_a_heading_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FeedUnreadable, match=r"The heading of .*a\.csv cannot be read"):
        read(written(tmp_path / "a.csv", text))


def test_a_cell_below_no_name_is_wrong_unless_it_is_empty(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,name,,\np1,Boot,,\np2,Boot,,x\n")
    assert wrongs(csv) == [(3, "A cell stands below no name: its column has an empty heading.")]


def test_a_file_that_goes_away_is_said(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId\np1\n")
    feed = open_feed(str(csv), FeedOptions())
    csv.unlink()
    with pytest.raises(FeedUnreadable, match="No such file"):
        list(feed.read())
