"""python -m server ingest: bring a feed into the catalogue, or in step with it again."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from pathlib import Path

import msgspec

from server.bulk.ingest import Options, Outcome, ingest, read
from server.commands.serve import open_database
from server.errors import BadSetting, TwinlensError
from server.ingest.failures import Failures, failures
from server.ingest.feed import Feed
from server.ingest.feeds.opening import open_feed
from server.ingest.spool import Spool
from server.settings import Settings
from server.spaces.reembed import lower_priority
from server.wording import counted

_MOST_NAME = 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring a feed into the catalogue: a folder of pictures, a table of products, a bucket. Run it again, and only "
        "what has changed is embedded. It may be interrupted at any moment: the same command goes on. Servers may go on "
        "meanwhile. The exit code is 0, 1 where some rows failed, and 2 where it could not be done."
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, a file, or a prefix in a bucket, s3://...")
    parser.add_argument(
        "--feed", metavar="NAME", help="name of the feed, by which its next run knows what it has brought (SOURCE)"
    )
    parser.add_argument("--dry-run", action="store_true", help="read the whole feed, say which lines are wrong, and stop")
    parser.add_argument("--prune", action="store_true", help="take out what this feed brought and no longer has")
    parser.add_argument(
        "--prune-at-most",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="refuse where --prune would take out more than this share (20%%)",
    )
    parser.add_argument(
        "--failures", type=Path, metavar="FILE", help="write the rows that failed there, as a feed that can be SOURCE"
    )
    parser.add_argument("--reread", action="store_true", help="read also files whose size and time have not changed")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")
    # How the source is read: see server/ingest/feeds/options.py.


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Bring the feed in; 1 where rows failed, else 0.

    Raises FeedUnreadable, IngestRefused, and as `server.bulk.ingest.ingest`.
    """
    feed = open_feed(arguments.source)
    return bring(settings, arguments, feed)


