"""Google Merchant Center's product feed, as a table and as XML."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feed import Row, UrlOf
from server.ingest.feeds import files
from server.ingest.feeds.google import price_of
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import read, rows, written, wrongs

SHOP = "https://shop.example/pictures"

ATTRIBUTES = {
    "availability": "in_stock", "brand": "Acme", "condition": "new", "gtin": "4006381333931",
    "product_type": "Shoes > Boots", "price": 99.9, "currency": "EUR", "sale_price": 79,
}  # fmt: skip

BOOT = [
    Row(0, "acme", "SKU-1", "Boot", None, None, ATTRIBUTES, UrlOf(f"{SHOP}/1.jpg")),
    Row(0, "acme", "SKU-1", picture=UrlOf(f"{SHOP}/2.jpg")),
    Row(0, "acme", "SKU-1", picture=UrlOf(f"{SHOP}/3%2C.jpg")),
]

TABLE = (
    "id\ttitle\tdescription\tlink\timage link\tadditional image link\tavailability\tprice\tsale price\tbrand\tgtin"
    "\tcondition\tproduct type\n"
    f'SKU-1\tBoot\tWarm, and 5" high\thttps://shop.example/1\t{SHOP}/1.jpg\t{SHOP}/2.jpg, {SHOP}/3%2C.jpg,{SHOP}/1.jpg'
    "\tin stock\t99.90 EUR\t79 EUR\tAcme\t4006381333931\tnew\tShoes > Boots\n"
)

RSS = f"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">
<channel>
<title>Shop</title><link>https://shop.example</link><description>All of it</description>
<item>
  <g:id>SKU-1</g:id>
  <title>Shown elsewhere</title>
  <g:title><![CDATA[Boot]]></g:title>
  <description>Warm &amp; dry</description>
  <g:image_link>{SHOP}/1.jpg</g:image_link>
  <g:additional_image_link>{SHOP}/2.jpg</g:additional_image_link>
  <g:additional_image_link> {SHOP}/3%2C.jpg </g:additional_image_link>
  <g:availability>in_stock</g:availability>
  <g:price>99.90 EUR</g:price>
  <g:sale_price>79 EUR</g:sale_price>
  <g:shipping><g:country>DE</g:country><g:price>4.90 EUR</g:price></g:shipping>
  <g:brand>Acme</g:brand><g:gtin>4006381333931</g:gtin><g:condition>new</g:condition>
  <g:product_type>Shoes &gt; Boots</g:product_type>
</item>
<item><g:id>a b</g:id></item>
<item><g:id>SKU-2</g:id><title>Hat</title></item>
</channel>
</rss>
"""

ATOM = f"""<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0">
<title>Shop</title><id>tag:shop.example</id><author><name>Shop</name></author>
<entry><g:id>SKU-1</g:id><id>tag:shop.example,2026:1</id><title>Boot</title><summary>Warm</summary>
<link href="https://shop.example/1"/><g:image_link>{SHOP}/1.jpg</g:image_link></entry>
<entry><id>SKU-2</id><title>Hat</title></entry>
</feed>
"""


def without_numbers(found: list[Row]) -> list[Row]:
    return [Row(0, *(getattr(one, name) for name in Row.__dataclass_fields__ if name != "number")) for one in found]


@pytest.mark.parametrize("name", ["feed.txt", "feed.tsv", "feed.csv"])
def test_a_table_gives_a_row_for_each_picture(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, TABLE)
    assert open_feed(str(path)).kind == "google"
    found = rows(path, client="acme")
    assert without_numbers(found) == BOOT
    assert {one.number for one in found} == {2}


@pytest.mark.parametrize("heading", ["g:id,g:title,g:image_link", "ID,Title,Image_Link", "id,title,image link"])
def test_names_are_known_however_they_are_written(tmp_path: Path, heading: str) -> None:
    (row,) = rows(written(tmp_path / "a.csv", f"{heading}\n1,Boot,{SHOP}/1.jpg\n"))
    assert row == Row(2, "demo", "1", "Boot", picture=UrlOf(f"{SHOP}/1.jpg"))


def test_rss_gives_the_same_rows_and_numbers_are_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "feed.xml", RSS)
    assert open_feed(str(path)).kind == "google"
    found = read(path, client="acme")
    assert without_numbers([one for one in found if isinstance(one, Row)]) == [*BOOT, Row(0, "acme", "SKU-2", "Hat")]
    assert [one.number for one in found] == [5, 5, 5, 20, 21]
    assert [number for number, _ in wrongs(path)] == [20]


def test_atom_is_read_with_googles_names_first(tmp_path: Path) -> None:
    found = rows(written(tmp_path / "feed.atom", ATOM))
    assert [(one.number, one.product_id, one.name, one.picture) for one in found] == [
        (3, "SKU-1", "Boot", UrlOf(f"{SHOP}/1.jpg")),
        (5, "SKU-2", "Hat", None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_xml_says_its_own_encoding(tmp_path: Path, encoding: str) -> None:
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    item = "<item><id>1</id><title>Schränke</title></item>"
    text = f'<?xml version="1.0" encoding="{declared}"?><rss><channel>{item}</channel></rss>'
    path = written(tmp_path / "feed", text.encode(encoding))
    assert [one.name for one in rows(path, format="google")] == ["Schränke"]


def test_packed_xml_is_read(tmp_path: Path) -> None:
    assert len(rows(written(tmp_path / "feed.xml.gz", gzip.compress(ATOM.encode())))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE rss [<!ENTITY a "b">]><rss><item><id>&a;</id></item></rss>', "line 1: it has a document type"),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE rss SYSTEM "http://127.0.0.1/x.dtd"><rss/>',
            "line 2: it has a document type",
        ),
        ("<rss>\n<item><id>&a;</id></item></rss>", "not well-formed XML, in line 2: undefined entity"),
        ("<rss>\n<channel>\n", "not well-formed XML, in line 3: no element found"),
        ("<rss>\n</rdf>", "not well-formed XML, in line 2: mismatched tag"),
        ("", "not well-formed XML, in line 1: no element found"),
        ("<html><body/></html>", "<html> is neither RSS nor Atom"),
        ("<rss><item><g:id>1</g:id></item></rss>", "unbound prefix"),
    ],
)
def test_xml_that_is_hostile_or_broken_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(written(tmp_path / "feed.xml", text))).check()


def test_items_before_a_break_are_rows(tmp_path: Path) -> None:
    feed = open_feed(str(written(tmp_path / "feed.xml", "<rss><item><id>1</id></item>" + " " * 200_000 + "<item><id>")))
    reading = feed.read()
    assert isinstance(next(reading), Row)
    with pytest.raises(FeedUnreadable):
        next(reading)


@pytest.mark.parametrize("inside", ["<title>{}</title>", "<title a='{}'/>", "<id>{}", "<!-- {} -->"])
def test_an_item_without_end_is_refused(tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_CHARACTERS", 100_000)
    item = inside.format("x" * 300_000)
    with pytest.raises(FeedUnreadable, match=r"has no end|100,000 characters"):
        open_feed(str(written(tmp_path / "feed.xml", f"<rss><item><id>1</id>{item}</item></rss>"))).check()


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("15.00 USD", (15.0, "USD")),
        ("15 usd", (15, "USD")),
        ("EUR 15", (15, "EUR")),
        ("1,234.50 USD", (1234.5, "USD")),
        ("1,234 USD", (1234, "USD")),
        ("12,50 EUR", (12.5, "EUR")),
        ("12.50", (12.5, None)),
    ],
)
def test_prices_are_read_as_they_are_written(text: str, price: tuple[float, str | None]) -> None:
    assert price_of("price", text) == price


@pytest.mark.parametrize("price", ["free", "USD", "1.234,50 EUR", "USD 1 EUR", "-1 EUR", "1 2 EUR"])
def test_an_item_with_a_price_that_is_none_is_wrong(tmp_path: Path, price: str) -> None:
    path = written(tmp_path / "feed.tsv", f"id\ttitle\timage_link\tprice\n1\tBoot\t\t{price}\n")
    ((number, reason),) = wrongs(path)
    assert number == 2
    assert reason.startswith("price must be a")


def test_an_item_is_wrong_as_a_whole(tmp_path: Path) -> None:
    path = written(
        tmp_path / "feed.tsv", f"id\ttitle\timage_link\tadditional_image_link\n\tA\t\t\n2\tB\t{SHOP}/1.jpg\t2.jpg\n"
    )
    assert [number for number, _ in wrongs(path)] == [2, 3]
    assert not [one for one in read(path) if isinstance(one, Row)]


@pytest.mark.parametrize(
    ("heading", "words"), [("title,image_link", "No column is id"), ("id,g:id,title", "Two columns are id")]
)
def test_columns_that_are_not_googles_are_refused(tmp_path: Path, heading: str, words: str) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(written(tmp_path / "a.csv", f"{heading}\n")), FeedOptions(format="google"))


def test_options_about_ones_own_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="--ignore is for columns of one's own, and this is read as google"):
        open_feed(str(written(tmp_path / "feed.xml", RSS)), FeedOptions(ignored=["link"]))
