"""From the name of a source to its feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from server.access.clients import check_id
from server.errors import BadParameter, FeedUnreadable
from server.ingest.feeds import google, shopify
from server.ingest.feeds.bucket import BucketFeed, bucket_at
from server.ingest.feeds.cells import shown
from server.ingest.feeds.delimited import DelimitedFile
from server.ingest.feeds.folder import FolderFeed
from server.ingest.feeds.kinds import GoogleTable, GoogleXml, OwnLines, OwnTable, ShopifyTable
from server.ingest.feeds.options import FORMATS, FeedOptions, Format
from server.ingest.feeds.parquet import ParquetFile
from server.ingest.feeds.pattern import Pattern
from server.ingest.feeds.whole import OpenedFeed
from server.ingest.feeds.xml_items import is_xml

_BY_SUFFIX: dict[str, Format | Literal["xml"]] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xml": "xml",
    ".rss": "xml",
    ".atom": "xml",
}


def open_feed(source: str, options: FeedOptions | None = None) -> OpenedFeed:
    """The feed at SOURCE, by what it is: a folder, a file, or a prefix in a bucket. Raises FeedUnreadable."""
    options = options or FeedOptions()
    try:
        check_id("--client", options.client)
    except BadParameter as exc:
        raise FeedUnreadable(exc.sentence) from exc
    if "://" in source and not source.startswith("file://"):
        return _of_bucket(source, options)
    path = Path(unquote(urlsplit(source).path) if source.startswith("file://") else source)
    if path.is_dir():
        _refuse_but_pattern(options, "a folder")
        return OpenedFeed(FolderFeed(path, options.client, Pattern(options.pattern)), "folder")
    if not path.exists():
        raise FeedUnreadable(f"There is no file or folder {path}.")
    if options.pattern is not None:
        raise FeedUnreadable(f"--pattern is for folders and buckets, and {path} is a file.")
    return _of_file(path, options)


def _of_bucket(source: str, options: FeedOptions) -> OpenedFeed:
    if source.partition("://")[0].lower() in ("http", "https"):
        raise FeedUnreadable(f"{shown(source)} is not fetched here: save it as a file, and name that.")
    if _suffix_of(PurePosixPath(source)) in _BY_SUFFIX:
        raise FeedUnreadable(f"{shown(source)} is a file in a bucket: copy it to this machine, and name the copy.")
    _refuse_but_pattern(options, "a bucket")
    store = bucket_at(source)
    return OpenedFeed(BucketFeed(store, options.client, Pattern(options.pattern)), "bucket", store)


def _refuse_but_pattern(options: FeedOptions, what: str) -> None:
    """A folder has no columns: an option that is about them is a mistake, which must not go unnoticed."""
    default = FeedOptions(client=options.client, pattern=options.pattern)
    for one in fields(FeedOptions):
        if getattr(options, one.name) != getattr(default, one.name):
            raise FeedUnreadable(f"{_FLAGS[one.name]} is for files with rows, and the source is {what}.")


_FLAGS = {
    "format": "--format",
    "columns": "--map",
    "ignored": "--ignore",
    "numbers": "--number",
    "booleans": "--boolean",
    "lists": "--list",
    "decimal_comma": "--decimal-comma",
    "delimiter": "--delimiter",
    "encoding": "--encoding",
}
_OWN_ONLY = ("columns", "ignored", "numbers", "booleans", "lists", "decimal_comma")


def _suffix_of(path: PurePath) -> str:
    return (path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def _of_file(path: Path, options: FeedOptions) -> OpenedFeed:
    form: str | None = options.format or _BY_SUFFIX.get(_suffix_of(path))
    if form == "jsonl":
        return OpenedFeed(OwnLines(path, options), form)
    if form == "parquet":
        return OpenedFeed(OwnTable(ParquetFile(path), options), form)
    if form == "xml" or (form == "google" and is_xml(path)):
        _refuse_own_only(options, "google")
        return OpenedFeed(GoogleXml(path, options), "google")
    if form is None:
        raise FeedUnreadable(f"What {path} is cannot be told from its name. Say --format: {', '.join(FORMATS)}.")
    table = DelimitedFile(
        path,
        delimiter=options.delimiter,
        encoding=options.encoding,
        preferred="\t" if form == "tsv" else ",",
    )
    if options.format is None:
        # Where columns are mapped, they are to be ours.
        form = form if options.columns else _recognised(table.heading) or form
    if form in ("shopify", "google"):
        _refuse_own_only(options, form)
        return OpenedFeed((ShopifyTable if form == "shopify" else GoogleTable)(table, options), form)
    return OpenedFeed(OwnTable(table, options), form)


def _recognised(heading: Sequence[str]) -> Format | None:
    if shopify.is_shopify(heading):
        return "shopify"
    return "google" if google.is_google(heading) else None


def _refuse_own_only(options: FeedOptions, form: str) -> None:
    default = FeedOptions()
    for name in _OWN_ONLY:
        if getattr(options, name) != getattr(default, name):
            raise FeedUnreadable(
                f"{_FLAGS[name]} is for columns of one's own, and this is read as {form}: say --format csv to read it "
                "by its columns."
            )
