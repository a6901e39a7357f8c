"""From the name of a source to its feed."""

from __future__ import annotations

from collections.abc import Sequence
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
    "pattern": "--pattern",
}
_OF_OWN_COLUMNS = ("columns", "ignored", "numbers", "booleans", "lists", "decimal_comma")
_OF_FILES = ("format", *_OF_OWN_COLUMNS, "delimiter", "encoding")


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
        _refuse(options, _OF_FILES, "is for files with rows, and the source is a folder.")
        return OpenedFeed(FolderFeed(path, options.client, Pattern(options.pattern)), "folder")
    if not path.exists():
        raise FeedUnreadable(f"There is no file or folder {path}.")
    if not path.is_file():
        raise FeedUnreadable(f"{path} is neither a file nor a folder: a feed is read more than once.")
    _refuse(options, ("pattern",), "is for folders and buckets, and the source is a file.")
    return _of_file(path, options)


def _of_bucket(source: str, options: FeedOptions) -> OpenedFeed:
    if source.partition("://")[0].lower() in ("http", "https"):
        raise FeedUnreadable(f"{shown(source)} is not fetched here: save it as a file, and name that.")
    if _suffix_of(PurePosixPath(source)) in _BY_SUFFIX:
        raise FeedUnreadable(f"{shown(source)} is a file in a bucket: copy it to this machine, and name the copy.")
    _refuse(options, _OF_FILES, "is for files with rows, and the source is a bucket.")
    store = bucket_at(source)
    return OpenedFeed(BucketFeed(store, options.client, Pattern(options.pattern)), "bucket", store)


def _of_file(path: Path, options: FeedOptions) -> OpenedFeed:
    form: str | None = options.format or _BY_SUFFIX.get(_suffix_of(path))
    if form is None:
        raise FeedUnreadable(f"What {path} is cannot be told from its name. Say --format: {', '.join(FORMATS)}.")
    if form == "jsonl":
        _refuse(options, ("delimiter",), "is for CSV and TSV, and this is read as JSON Lines.")
        return OpenedFeed(OwnLines(path, options), form)
    if form == "parquet":
        _refuse(options, ("delimiter", "encoding"), "is for text files, and this is read as Parquet.")
        return OpenedFeed(OwnTable(ParquetFile(path), options), form)
    if form == "xml" or (form == "google" and is_xml(path)):
        _refuse(options, _OF_OWN_COLUMNS, "is for columns of one's own, and this is read as google.")
        _refuse(options, ("delimiter", "encoding"), "is for CSV and TSV, and XML says its encoding itself.")
        return OpenedFeed(GoogleXml(path, options), "google")
    return _of_table(path, form, options)


def _of_table(path: Path, form: str, options: FeedOptions) -> OpenedFeed:
    table = DelimitedFile(
        path,
        delimiter=options.delimiter,
        encoding=options.encoding,
        preferred="\t" if form == "tsv" else ",",
    )
    # Where columns are mapped, they are to be ours.
    if options.format is None and not options.columns:
        form = _recognised(table.heading) or form
    if form in ("shopify", "google"):
        why = f"is for columns of one's own, and this is read as {form}: --format csv reads it by its columns."
        _refuse(options, _OF_OWN_COLUMNS, why)
        return OpenedFeed((ShopifyTable if form == "shopify" else GoogleTable)(table, options), form)
    return OpenedFeed(OwnTable(table, options), form)


def _recognised(heading: Sequence[str]) -> Format | None:
    if shopify.is_shopify(heading):
        return "shopify"
    return "google" if google.is_google(heading) else None


def _refuse(options: FeedOptions, names: Sequence[str], why: str) -> None:
    """An option that would change nothing is a mistake of its caller's. Raises FeedUnreadable."""
    default = FeedOptions()
    for name in names:
        if getattr(options, name) != getattr(default, name):
            raise FeedUnreadable(f"{_FLAGS[name]} {why}")


def _suffix_of(path: PurePath) -> str:
    return (path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix).lower()
