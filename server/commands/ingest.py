"""python -m server ingest: bring a feed into the catalogue, or in step with it again."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from server.access.clients import DEFAULT_CLIENT
from server.bulk.bringing import Bring, here
from server.bulk.ingest import Options, Outcome, ingest, read
from server.catalogue.declared import declared_at
from server.commands.extras import require
from server.commands.serve import open_database
from server.errors import BadSetting, CatalogueUnavailable, StorageFailed
from server.ingest.failures import Failures, require_writable
from server.ingest.feed import Wrong
from server.ingest.feeds.bucket import bucket_at
from server.ingest.feeds.columns import listed
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FORMATS, FeedOptions, columns_of, lists_of
from server.ingest.feeds.whole import OpenedFeed
from server.ingest.spool import Spool
from server.settings import Settings
from server.spaces.reembed import lower_priority
from server.wording import counted

_LONGEST_NAME = 255
_MOST_NAMES = 10  # in a sentence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring a feed into the catalogue: a folder of pictures, a table of products, a bucket. Run it again, and only "
        "what has changed is embedded. Interrupted at whatever moment, the same command goes on. Servers may go on "
        "meanwhile. The exit code is 0, 1 where some rows failed, and 2 where it could not be done."
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, a file, or a prefix in a bucket: s3://bucket/prefix"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="read the whole feed, say which lines are wrong, and stop"
    )
    parser.add_argument(
        "--feed", metavar="NAME", help="name of the feed, by which its next run knows what it has brought (SOURCE)"
    )
    parser.add_argument("--prune", action="store_true", help="take out what this feed brought and no longer has")
    parser.add_argument(
        "--prune-at-most",
        type=share,
        default=0.2,
        metavar="SHARE",
        help="refuse where --prune would take out more than this share of what the feed brought (20%%)",
    )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="FILE",
        help="write the rows that fail there, as a feed that can be SOURCE again",
    )
    parser.add_argument("--reread", action="store_true", help="read also pictures that look unchanged")
    parser.add_argument(
        "--on", choices=["ray"], help="where the pictures are read and embedded: on Ray, on one machine or on many"
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="of the Ray cluster, such as 10.0.0.1:6379 (one on this machine alone)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")
    how = parser.add_argument_group("how SOURCE is read")
    how.add_argument(
        "--client", metavar="ID", default=DEFAULT_CLIENT, help=f"whose rows are that name no client ({DEFAULT_CLIENT})"
    )
    how.add_argument("--format", choices=FORMATS, help="of a file; without it, its name and its heading tell")
    how.add_argument(
        "--map", action="append", default=[], metavar="THEIRS=OURS", help="the field or attribute that a column is"
    )
    how.add_argument("--ignore", action="append", default=[], metavar="COLUMN", help="a column that is not read")
    how.add_argument("--number", action="append", default=[], metavar="NAME", help="an attribute of numbers")
    how.add_argument(
        "--boolean", action="append", default=[], metavar="NAME", help="an attribute that is true or false"
    )
    how.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="NAME[=SEPARATOR]",
        help="an attribute of lists, and what stands between values (a comma)",
    )
    how.add_argument("--decimal-comma", action="store_true", help="numbers are written 1.234,50")
    how.add_argument("--delimiter", metavar="SIGN", help="what stands between the cells of a text file")
    how.add_argument("--encoding", help="of a text file (UTF-8)")
    how.add_argument(
        "--bucket", metavar="URL", help="where keys (s3Key) lead, such as s3://bucket/prefix (to the store of pictures)"
    )
    how.add_argument("--pattern", help="how the names of pictures in a folder or bucket are made up: {productId}_{n}")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Bring the feed in; 1 where rows failed, else 0.

    Raises FeedUnreadable, IngestRefused, BadSetting, and as `server.bulk.ingest.ingest`.
    """
    # A name that is no text is written so that the database can hold it.
    name = os.fsencode(arguments.feed or _name_of(arguments.source)).decode("utf-8", "backslashreplace")
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise BadSetting(f"The name of a feed has 1 to {_LONGEST_NAME} characters: give it one with --feed NAME.")
    if arguments.address is not None and arguments.on is None:
        raise BadSetting("--address is that of a Ray cluster: say --on ray as well.")
    if arguments.on == "ray":
        require("ray", "ray")
    feed = open_feed(arguments.source, _options(arguments))
    bucket = _bucket(feed, arguments)
    if arguments.failures is not None:
        require_writable(arguments.failures)
    if arguments.dry_run:
        return _dry_run(feed, arguments)
    options = Options(name=name, prune=arguments.prune, prune_at_most=arguments.prune_at_most, reread=arguments.reread)
    with closing(Spool()) as spool:
        failed = Failures(spool)
        read(feed, spool, failed)
        _print_wrong(failed)
        with open_database(settings, beside=True) as url, _place(settings, arguments) as bring:
            lower_priority()  # not before: a PostgreSQL that is started here may come to serve others
            try:
                outcome = asyncio.run(ingest(settings, url, spool, failed, options, bucket=bucket, bring=bring))
            except (StorageFailed, CatalogueUnavailable):
                print("What is written is kept, and the same command goes on from there.", file=sys.stderr)
                raise
            _print_like_numbers(feed, declared_at(url, arguments.client))
        if arguments.failures is not None:
            failed.write(arguments.failures)
    _say(settings, arguments, name, outcome, failed)
    if arguments.json:
        print(msgspec.json.encode(_described(name, arguments, outcome, failed)).decode(), flush=True)
    if outcome.stopped_by is not None:
        return 128 + outcome.stopped_by
    return 1 if failed.count else 0


def share(text: str) -> float:
    """`20%` or `0.2`, as a share from 0 to 1."""
    number = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


@contextmanager
def _place(settings: Settings, arguments: argparse.Namespace) -> Iterator[Bring]:
    """Where the rows are brought in: here, or on a cluster, which is there as long as this block lasts."""
    if arguments.on is None:
        yield here
        return
    # Only now, since few have it.
    from server.bulk.on_ray.cluster import cluster_at
    from server.bulk.on_ray.run import on_cluster

    with cluster_at(settings, arguments.address) as cluster:
        yield on_cluster(cluster)


def _bucket(feed: OpenedFeed, arguments: argparse.Namespace) -> str | None:
    """The URL of where keys lead to, if not the store. Raises FeedUnreadable."""
    if arguments.bucket is not None:
        bucket_at(arguments.bucket)
        return str(arguments.bucket)
    return None if feed.bucket is None else str(arguments.source)


def _name_of(source: str) -> str:
    return source if "://" in source else os.path.abspath(source)


def _options(arguments: argparse.Namespace) -> FeedOptions:
    return FeedOptions(
        client=arguments.client,
        format=arguments.format,
        columns=columns_of(arguments.map),
        ignored=tuple(arguments.ignore),
        numbers=tuple(arguments.number),
        booleans=tuple(arguments.boolean),
        lists=lists_of(arguments.list),
        decimal_comma=arguments.decimal_comma,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        pattern=arguments.pattern,
    )


def _dry_run(feed: OpenedFeed, arguments: argparse.Namespace) -> int:
    with closing(Spool()) as spool:
        failed = Failures(spool)
        checked = feed.check(on_wrong=failed.wrong)
        if arguments.failures is not None:
            failed.write(arguments.failures)
    _print_wrong(failed)
    _print_like_numbers(feed)
    print(
        f"{counted(checked.rows, 'row')} of {counted(checked.products, 'product')}, with "
        f"{counted(checked.pictures, 'picture')}; {counted(checked.wrong, 'line')} wrong. Nothing was written.",
        file=sys.stderr if arguments.json else sys.stdout,
    )
    if checked.passed_over:
        such = ", ".join(checked.passed_over_such_as)
        print(
            f"Passed over, since they are no pictures: {counted(checked.passed_over, 'file')} ({such}).",
            file=sys.stderr,
        )
    if arguments.json:
        found = {
            "rows": checked.rows,
            "products": checked.products,
            "pictures": checked.pictures,
            "clients": checked.clients,
            "wrong": checked.wrong,
            "missing": checked.missing,
        }
        print(msgspec.json.encode(found).decode(), flush=True)
    return 1 if checked.wrong else 0


def _print_wrong(failed: Failures) -> None:
    if failed.wrong_lines:
        print(f"Lines that are wrong: {failed.wrong_lines:,}.", file=sys.stderr)
        _print_reasons(failed.lines, failed.wrong_lines)


def _print_like_numbers(feed: OpenedFeed, declared: Collection[str] = ()) -> None:
    """`declared`: the attributes of which the client has said what they are."""
    if names := [one for one in feed.like_numbers if one not in declared]:
        flags = shlex.join(word for name in names[:_MOST_NAMES] for word in ("--number", name))
        print(
            f"Texts that look like numbers in all rows: {listed(names, _MOST_NAMES)}. They stay texts, which no filter "
            f"compares with numbers. To make them numbers: {flags}. To have filters read them as numbers: PUT "
            "/v1/attributes.",
            file=sys.stderr,
        )


def _print_reasons(first: Sequence[Wrong], count: int) -> None:
    lines = [f"  line {one.number:,}: {one.reason}" for one in first]
    print("\n".join(lines + ["  ..."] * (count > len(first))), file=sys.stderr)


def _say(settings: Settings, arguments: argparse.Namespace, name: str, outcome: Outcome, failed: Failures) -> None:
    counts = outcome.counts
    if failed.failed_rows:
        print(f"Rows that failed: {failed.failed_rows:,}.", file=sys.stderr)
        _print_reasons(failed.rows, failed.failed_rows)
    if failed.count and arguments.failures is not None:
        words = ["ingest", str(arguments.failures), "--feed", name]
        if (where := arguments.bucket or (arguments.source if "://" in arguments.source else None)) is not None:
            words += ["--bucket", where]
        again = f"python -m server {shlex.join(words)}"
        print(settings.printable(f"They are in {arguments.failures}. To try them again: {again}"), file=sys.stderr)
    if outcome.not_pruned:
        print("Nothing was taken out, since lines are wrong: what they name would seem to be gone.", file=sys.stderr)
    if outcome.stopped_by is not None:
        print(
            f"Stopped after {counted(counts.rows, 'row')}. What is written is kept, and the same command goes on from "
            "here.",
            file=sys.stderr,
        )
    print(_sentence(outcome), file=sys.stderr if arguments.json else sys.stdout, flush=True)


def _sentence(outcome: Outcome) -> str:
    counts = outcome.counts
    said: Sequence[tuple[int, str]] = (
        (counts.products_made, "products made"),
        (counts.added, "pictures added"),
        (counts.replaced, "replaced"),
        (counts.unchanged, "unchanged"),
        (outcome.pictures_removed, "pictures removed"),
        (outcome.products_removed, "products removed"),
        (counts.failed, "failed"),
    )
    what = ", ".join(f"{count:,} {noun}" for count, noun in said if count)
    return f"{counted(counts.rows, 'row')} in {outcome.seconds:,.1f} s{f': {what}' if what else ''}."


def _described(name: str, arguments: argparse.Namespace, outcome: Outcome, failed: Failures) -> dict[str, object]:
    counts = outcome.counts
    return {
        "feed": name,
        "rows": counts.rows,
        "unchanged": counts.unchanged,
        "embedded": counts.embedded,
        "productsMade": counts.products_made,
        "added": counts.added,
        "replaced": counts.replaced,
        "picturesRemoved": outcome.pictures_removed,
        "productsRemoved": outcome.products_removed,
        "wrong": failed.wrong_lines,
        "failed": counts.failed,
        "stopped": outcome.stopped_by is not None,
        "seconds": round(outcome.seconds, 3),
        "bringingSeconds": round(outcome.bringing_seconds, 3),
        "failures": None if arguments.failures is None else str(arguments.failures),
    }
