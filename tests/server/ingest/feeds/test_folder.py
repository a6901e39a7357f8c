"""A folder of pictures, and which product each belongs to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import FileOf
from server.ingest.feeds import folder
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_product_is_the_first_folder_or_the_name_of_a_picture_that_lies_in_none(tmp_path: Path) -> None:
    for place in ("boot/1.jpg", "boot/side/2.jpg", "shoe.v2.png", "hat/1.JPG"):
        written(tmp_path / place, PNG)
    found = rows(tmp_path, client="acme")
    assert [(one.number, one.product_id, one.picture) for one in found] == [
        (1, "boot", FileOf(tmp_path / "boot/1.jpg")),
        (2, "boot", FileOf(tmp_path / "boot/side/2.jpg")),
        (3, "hat", FileOf(tmp_path / "hat/1.JPG")),
        (4, "shoe.v2", FileOf(tmp_path / "shoe.v2.png")),
    ]
    assert {(one.client_id, one.name, one.sku, one.is_active, one.attributes) for one in found} == {
        ("acme", None, None, None, None)
    }


def test_a_picture_counts_by_its_extension_or_by_its_content(tmp_path: Path) -> None:
    written(tmp_path / "a/empty.jpg", b"")
    written(tmp_path / "b/odd.photo", PNG)
    written(tmp_path / "c/bare", PNG)
    written(tmp_path / "d/notes.txt", "what to do")
    assert [one.product_id for one in rows(tmp_path)] == ["a", "b", "c"]
    checked = open_feed(str(tmp_path)).check()
    assert (checked.rows, checked.pictures, checked.passed_over) == (3, 3, 1)
    assert checked.passed_over_such_as == ("d/notes.txt",)


def test_what_is_hidden_or_left_by_systems_is_not_looked_at(tmp_path: Path) -> None:
    for place in (".git/a.jpg", "a/.b.jpg", "a/._1.jpg", "__MACOSX/a.jpg", "a/Thumbs.db", "a/1.jpg"):
        written(tmp_path / place, PNG)
    assert [one.product_id for one in rows(tmp_path)] == ["a"]
    assert open_feed(str(tmp_path)).check().passed_over == 0


def test_names_are_in_the_order_of_their_bytes_also_where_they_are_sorted_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["10.jpg", "2.jpg", "B.jpg", "a.jpg", "b.jpg", "z.jpg"]
    for name in reversed(names):
        written(tmp_path / name, PNG)
    assert [one.product_id for one in rows(tmp_path)] == [name[:-4] for name in names]
    monkeypatch.setattr(folder, "_MOST_NAMES", 2)
    assert [one.product_id for one in rows(tmp_path)] == [name[:-4] for name in names]


def test_links_are_followed_and_not_in_circles(tmp_path: Path) -> None:
    picture = written(tmp_path / "elsewhere/1.jpg", PNG)
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a/linked.jpg").symlink_to(picture)
    (source / "b").symlink_to(picture.parent)
    (source / "c").symlink_to(source)
    found = read(source)
    assert [getattr(one, "product_id", None) for one in found] == ["a", "b", None]
    assert wrongs(source) == [(3, "'c' is a link to a folder that it lies in.")]


def test_a_link_to_nothing_is_a_row_whose_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    checked = open_feed(str(tmp_path)).check()
    assert (checked.rows, checked.missing) == (0, 1)
    assert "There is no file" in checked.first_wrong[0].reason
    (tmp_path / "b.odd").symlink_to(tmp_path / "gone.jpg")
    assert wrongs(tmp_path) == [(2, "'b.odd' cannot be read: No such file or directory.")]


def test_a_name_that_is_no_id_is_wrong(tmp_path: Path) -> None:
    written(tmp_path / "red shoes/1.jpg", PNG)
    ((number, reason),) = wrongs(tmp_path)
    assert number == 1
    assert reason.startswith("'red shoes/1.jpg': productId must be")


def test_a_name_that_is_no_utf8_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/b")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xe4.jpg")).write_bytes(PNG)
    ((_, reason),) = wrongs(tmp_path)
    assert "bytes that are no text in UTF-8" in reason
    reason.encode()


@pytest.mark.parametrize(
    ("pattern", "place", "product", "attributes"),
    [
        ("{productId}_{n}.jpg", "x/boot_12.jpg", "boot", None),
        ("{productId}_{n}.jpg", "x/boot_big_12.JPG", "boot_big", None),
        ("{productId}_{n}", "boot_12.png", "boot", None),
        ("{productId}_*", "boot_side.png", "boot", None),
        ("{productId}-{colour}", "boot-red.png", "boot", {"colour": "red"}),
        ("{category}/{productId}/*", "shoes/boot/1.jpg", "boot", {"category": "shoes"}),
        ("**/{productId}/*.jpg", "a/b/boot/1.jpg", "boot", None),
        ("**/{productId}/*.jpg", "boot/1.jpg", "boot", None),
        ("{productId}/{productId}_{n}", "boot/boot_1.jpg", "boot", None),
        (r"(?P<productId>[a-z]+)\d*/.*", "boot7/x/1.jpg", "boot", None),
    ],
)
def test_a_pattern_finds_the_product_in_the_name(
    tmp_path: Path, pattern: str, place: str, product: str, attributes: dict[str, str] | None
) -> None:
    written(tmp_path / place, PNG)
    (row,) = rows(tmp_path, pattern=pattern)
    assert (row.product_id, row.attributes) == (product, attributes)


def test_a_pattern_names_clients_and_names_as_well(tmp_path: Path) -> None:
    written(tmp_path / "acme/b1_Red boot (S-1).jpg", PNG)
    (row,) = rows(tmp_path, pattern="{clientId}/{productId}_{name} ({sku})")
    assert (row.client_id, row.product_id, row.name, row.sku) == ("acme", "b1", "Red boot", "S-1")


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("{productId}_{n}.jpg", "boot_1.png"),
        ("{productId}_{n}", "boot_a.jpg"),
        ("{category}/{productId}/*", "boot/1.jpg"),
        ("{productId}/{productId}_{n}", "boot/shoe_1.jpg"),
    ],
)
def test_a_name_that_does_not_fit_the_pattern_is_wrong(tmp_path: Path, pattern: str, place: str) -> None:
    written(tmp_path / place, PNG)
    assert wrongs(tmp_path, pattern=pattern) == [(1, f"'{place}': The name does not fit the pattern {pattern}.")]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{name}.jpg", "does not say where"),
        ("{productId", "belongs to no placeholder"),
        ("{productId}_{1}", "begins with a letter"),
        ("(?P<productId>[a-z", "cannot be read"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_refused(tmp_path: Path, pattern: str, words: str) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(tmp_path), FeedOptions(pattern=pattern))


def test_a_folder_that_goes_away_is_said(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    feed = open_feed(str(source))
    source.rmdir()
    with pytest.raises(FeedUnreadable, match="cannot be read"):
        list(feed.read())
