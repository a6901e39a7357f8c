"""What the rows of a feed say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import Wrong
from server.ingest.feeds import agreement
from server.ingest.feeds.opening import open_feed
from tests.support.feeds import rows, written, wrongs


def test_rows_of_a_product_may_repeat_it_or_say_nothing(tmp_path: Path) -> None:
    csv = (
        "productId,name,sku,isActive,colour\np1,,,,\np1,Boot,S-1,yes,red\np2,Boot,,no,red\np1,Boot,S-1,1,red\np1,,,,\n"
    )
    assert len(rows(written(tmp_path / "a.csv", csv))) == 5


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("p1,Shoe,S-1,yes,red", "another name than line 3"),
        ("p1,Boot,S-2,yes,red", "another SKU than line 3"),
        ("p1,Boot,S-1,no,red", "another isActive than line 3"),
        ("p1,Boot,S-1,yes,blue", "other attributes than line 3"),
    ],
)
def test_a_row_that_says_otherwise_than_an_earlier_one_is_wrong(tmp_path: Path, line: str, what: str) -> None:
    """And counts for nothing: the row after it agrees with the first."""
    csv = f"productId,name,sku,isActive,colour\np1,,,,\np1,Boot,S-1,yes,red\np2,,,,\n{line}\np1,Boot,S-1,yes,red\n"
    ((number, reason),) = wrongs(written(tmp_path / "a.csv", csv))
    assert number == 5
    assert f"It gives the product 'p1' {what}." in reason


def test_the_same_ids_and_skus_of_another_client_are_others(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "clientId,productId,name,sku\nacme,p1,Boot,S-1\nother,p1,Shoe,S-1\n")
    assert len(rows(csv)) == 2
    checked = open_feed(str(csv)).check()
    assert (checked.products, checked.clients) == (2, 2)


def test_a_sku_that_two_products_have_is_wrong_at_the_second(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,sku\np1,S-1\np2,S-1\np2,S-2\np1,S-1\n")
    assert wrongs(csv) == [(3, "The SKU 'S-1' is that of another product, in line 2.")]


def test_attributes_are_the_same_in_whatever_order(tmp_path: Path) -> None:
    lines = ['p1,"{""a"": 1, ""b"": 2}"', 'p1,"{""b"": 2, ""a"": 1}"']
    assert len(rows(written(tmp_path / "a.csv", "\n".join(["productId,attributes", *lines])))) == 2


def test_a_whole_feed_is_counted(tmp_path: Path) -> None:
    written(tmp_path / "1.jpg", b"")
    lines = ["p1,Boot,1.jpg", "p1,,gone.jpg", "p 2,,", "p3,Shoe,", "p1,Hat,"]
    csv = written(tmp_path / "a.csv", "\n".join(["productId,name,file", *lines]))
    every: list[Wrong] = []
    checked = open_feed(str(csv)).check(first=1, on_wrong=every.append)
    assert (checked.rows, checked.products, checked.pictures, checked.clients) == (2, 2, 1, 1)
    assert (checked.wrong, checked.missing) == (3, 1)
    assert [one.number for one in every] == [3, 4, 6]
    assert checked.first_wrong == every[:1]
    assert open_feed(str(csv)).check(files=False).missing == 0


def test_a_temporary_file_that_cannot_grow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_TABLES", f"PRAGMA max_page_count = 8;{agreement._TABLES}")
    csv = written(tmp_path / "a.csv", "productId,name\n" + "".join(f"p{at},Boot\n" for at in range(5000)))
    with pytest.raises(FeedUnreadable, match="TMPDIR"):
        open_feed(str(csv)).check()


def test_a_sku_of_a_wrong_line_counts_for_nothing(tmp_path: Path) -> None:
    csv = written(
        tmp_path / "a.csv", "productId,sku,name\np1,S-1,\np1,S-2,\np2,S-2,\np3,S-1,Boot\np3,S-3,Hat\np1,S-1,\n"
    )
    assert [number for number, _ in wrongs(csv)] == [3, 5]


def test_a_sku_that_a_later_row_gives_is_kept_in_mind(tmp_path: Path) -> None:
    csv = written(tmp_path / "a.csv", "productId,sku\np1,\np2,\np1,S-1\np2,S-1\np2,\n")
    assert wrongs(csv) == [(5, "The SKU 'S-1' is that of another product, in line 4.")]
