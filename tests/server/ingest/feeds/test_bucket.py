"""A prefix of a bucket, whose objects are pictures."""

from __future__ import annotations

import httpx
import pytest

from server.errors import FeedUnreadable
from server.ingest import storage
from server.ingest.feed import KeyOf
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests.support.feeds import rows, wrongs

PNG = b"\x89PNG\r\n\x1a\n"


def put(s3: str, bucket: str, **objects: bytes) -> None:
    httpx.put(f"{s3}/{bucket}").raise_for_status()
    for key, data in objects.items():
        httpx.put(f"{s3}/{bucket}/{key}", content=data).raise_for_status()


@pytest.mark.usefixtures("s3_url")
def test_objects_below_the_prefix_are_pictures_of_products_as_in_a_folder(s3: str) -> None:
    put(
        s3,
        "shop",
        **{
            "in/boot/2.jpg": PNG, "in/boot/10.jpg": PNG, "in/hat.png": PNG, "in/coat/odd": PNG,
            "in/coat/notes.txt": b"x", "in/.hidden/1.jpg": PNG, "in/empty": b"",
            "outside/1.jpg": PNG, "in2/1.jpg": PNG,
        },
    )  # fmt: skip
    feed = open_feed("s3://shop/in", FeedOptions(client="acme"))
    assert feed.kind == "bucket"
    found = rows("s3://shop/in", client="acme")
    assert [(one.number, one.client_id, one.product_id, one.picture) for one in found] == [
        (1, "acme", "boot", KeyOf("boot/10.jpg")),
        (2, "acme", "boot", KeyOf("boot/2.jpg")),
        (3, "acme", "coat", KeyOf("coat/odd")),
        (4, "acme", "hat", KeyOf("hat.png")),
    ]
    assert feed.check().passed_over_such_as == ("coat/notes.txt", "empty")


@pytest.mark.anyio
@pytest.mark.usefixtures("s3_url")
async def test_the_pictures_are_got_from_the_bucket_of_the_feed(s3: str) -> None:
    put(s3, "got", **{"in/boot/1.jpg": PNG})
    feed = open_feed("s3://got/in")
    assert feed.bucket is not None
    assert await feed.bucket.get("boot/1.jpg") == PNG


@pytest.mark.usefixtures("s3_url")
def test_all_pages_are_listed(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAGE", 2)
    put(s3, "many", **{f"p{at}.jpg": b"" for at in range(7)})
    assert len(rows("s3://many")) == 7


@pytest.mark.usefixtures("s3_url")
def test_patterns_hold_for_keys(s3: str) -> None:
    put(s3, "named", **{"in/boot_1.jpg": PNG, "in/boot.jpg": PNG})
    assert wrongs("s3://named/in", pattern="{productId}_{n}") == [
        (1, "'boot.jpg': The name does not fit the pattern {productId}_{n}.")
    ]


@pytest.mark.usefixtures("s3_url")
def test_a_bucket_that_is_away_is_said() -> None:
    with pytest.raises(FeedUnreadable, match="s3://nowhere/in cannot be read"):
        open_feed("s3://nowhere/in").check()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("https://example.com/feed.csv", "save it as a file"),
        ("s3://shop/feed.csv", "copy it to this machine"),
        ("s3://shop/feed.xml.gz", "copy it to this machine"),
        ("nothing://shop", "cannot be used as a source"),
    ],
)
def test_what_is_not_fetched_is_refused(source: str, words: str) -> None:
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(source)
