"""python -m server sweep: remove from the store of pictures what no picture of the catalogue needs."""

from __future__ import annotations

import argparse
import asyncio
from datetime import timedelta

from server.database.pool import open_pool
from server.errors import SweepRefused
from server.ingest.mark import settle
from server.ingest.storage import MediaStore
from server.ingest.sweep import OLDER_THAN, Found, Sweep
from server.settings import Settings
from server.wording import counted

_CONNECTION_TIMEOUT_SECONDS = 30.0
_STATEMENT_TIMEOUT_SECONDS = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find and remove the objects of the store that no picture of the catalogue needs: what a crash left, and what "
        "could not be deleted. Servers may go on meanwhile; they do the same every few hours. Objects whose names are "
        "not of the form that Twinlens gives them are never touched."
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    parser.add_argument("--yes", action="store_true", help="also where that is most of the store")
    parser.add_argument(
        "--older-than",
        type=_seconds,
        default=OLDER_THAN,
        metavar="SECONDS",
        help=f"leave younger objects alone ({OLDER_THAN.total_seconds():.0f})",
    )


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Print what was found, and how much was removed; 0. Raises SweepRefused, StoreRefused, DatabaseUnusable."""
    store = MediaStore.at(settings.media_url, settings.data / "media")
    standing = settle(url, store)

    async def sweep() -> None:
        pool = open_pool(
            url,
            min_size=1,
            max_size=2,
            timeout=_CONNECTION_TIMEOUT_SECONDS,
            longest=_STATEMENT_TIMEOUT_SECONDS,
            pooling=settings.pooling,
        )
        async with pool:
            one = Sweep(pool, store, standing, older_than=arguments.older_than)
            found, _ = await one.look()
            print(f"{store.where} holds {found}.")
            if arguments.dry_run:
                return
            if found.suspicious and not arguments.yes:
                raise SweepRefused(
                    "That is most of the store, as if the database were an empty or an older one, so nothing was "
                    "removed. Where it is right all the same, add --yes."
                )
            removed = 0
            async for orphans in one.orphans(Found()):
                removed += await one.remove(orphans)
            removed += await one.remove_unfinished(found.unfinished)
            print(f"Removed {counted(removed, 'object')}.")

    asyncio.run(sweep())
    return 0


def _seconds(text: str) -> timedelta:
    if (seconds := float(text)) < 0:
        raise ValueError(text)
    return timedelta(seconds=seconds)
