"""What a source is, by its name and its content, and which options go with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.errors import FeedUnreadable
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
from tests import ROOT
from tests.support.feeds import read, rows, written


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.csv", "productId\n", "csv"),
        ("a.CSV", "productId\n", "csv"),
        ("a.tsv", "productId\n", "tsv"),
        ("a.txt", "productId\n", "csv"),
        ("a.jsonl", "{}", "jsonl"),
        ("a.csv", "id,title,image_link\n", "google"),
        ("a.csv", "productId,id,title,image_link\n", "csv"),
        ("a.xml", "<rss/>", "google"),
        ("a.csv", "Handle,Title,Image Src\n", "shopify"),
    ],
)
def test_a_file_is_what_its_name_and_heading_say(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert open_feed(str(written(tmp_path / name, text))).kind == kind


def test_a_format_can_be_named_for_any_name(tmp_path: Path) -> None:
    assert len(rows(written(tmp_path / "export", "productId\np1\n"), format="csv")) == 1
    assert len(rows(written(tmp_path / "lines.csv", '{"productId": "p1"}\n'), format="jsonl")) == 1
    assert len(rows(written(tmp_path / "feed", "<rss><item><id>1</id></item></rss>"), format="google")) == 1


def test_a_source_may_be_a_file_url(tmp_path: Path) -> None:
    written(tmp_path / "a b.csv", "productId\np1\n")
    assert len(rows(f"file://{tmp_path}/a%20b.csv")) == 1


def test_a_source_that_is_nothing_or_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedUnreadable, match="There is no file or folder"):
        read(tmp_path / "gone.csv")
    with pytest.raises(FeedUnreadable, match="Say --format: csv, tsv, jsonl, parquet, shopify, google"):
        read(written(tmp_path / "a.xls", "x"))
    with pytest.raises(FeedUnreadable, match="--client must be"):
        read(tmp_path, client="a b")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FeedUnreadable, match="read more than once"):
        read(tmp_path / "pipe.csv")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (".", FeedOptions(columns={"a": "b"}), "--map is for files with rows, and the source is a folder"),
        (".", FeedOptions(format="csv"), "--format is for files with rows"),
        (".", FeedOptions(decimal_comma=True), "--decimal-comma is for files with rows"),
        ("a.csv", FeedOptions(pattern="{productId}"), "--pattern is for folders and buckets"),
        ("a.jsonl", FeedOptions(delimiter=";"), "--delimiter is for CSV and TSV"),
        ("a.parquet", FeedOptions(encoding="cp1252"), "--encoding is for text files"),
        ("a.xml", FeedOptions(encoding="cp1252"), "--encoding is for CSV and TSV, and XML says"),
        ("a.xml", FeedOptions(numbers=["price"]), "--number is for columns of one's own"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(
    tmp_path: Path, name: str, options: FeedOptions, words: str
) -> None:
    for one in ("a.csv", "a.jsonl", "a.parquet", "a.xml"):
        written(tmp_path / one, "productId\n")
    with pytest.raises(FeedUnreadable, match=words):
        open_feed(str(tmp_path / name), options)


# What getrusage calls the most memory may be that of the process that this one was forked from.
_CHECK = """
import re, sys
from pathlib import Path
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions
checked = open_feed(sys.argv[1], FeedOptions(numbers=["price"])).check(files=False)
print(checked.rows, checked.wrong, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak(path: Path, count: int) -> int:
    """The most memory, in KiB, of a process that checks a CSV of so many rows, whose products come in no order."""
    csv = path / f"{count}.csv"
    with csv.open("w") as file:
        file.write("productId,name,sku,file,price,attributes\n")
        for at in range(count):
            key = at * 7919 % count
            file.write(f'p-{key},"Boot {key}, warm",S-{key},pictures/{key}.jpg,{key}.50,"{{""size"": [1, {key}]}}"\n')
        file.write("p-0,Other,,,,\n")
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, str(csv)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    sound, wrong, kibibytes = map(int, done.stdout.split())
    assert (sound, wrong) == (count, 1)
    return kibibytes


def test_memory_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    assert peak(tmp_path, 50_000) - peak(tmp_path, 1_000) < 40 * 1024  # as a list of rows they take 57 MiB


@pytest.mark.slow
def test_a_million_rows_take_no_more_memory_than_a_small_feed(tmp_path: Path) -> None:
    assert peak(tmp_path, 1_000_000) < 100 * 1024
