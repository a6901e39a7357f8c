"""python -m server store: where the pictures are stored, and whether that store is the database's own."""

from __future__ import annotations

import argparse

from server.errors import StoreRefused
from server.ingest import mark
from server.ingest.storage import MARK, MediaStore
from server.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"Say where pictures are stored, and whether that store is this database's. A mark in it, {MARK}, tells; "
        "a server with another store than the database's does not start."
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="make this store the database's from now on, and no other database's: it was moved without its mark, or "
        "the database was restored under another name",
    )
    parser.add_argument("--yes", action="store_true", help="with --adopt: also where none of the pictures is there")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Print where the store is, and adopt it if that is asked for; 1 where it is not the database's, else 0.

    Raises StoreRefused where it cannot be adopted, DatabaseUnusable.
    """
    store = MediaStore.at(settings.media_url, settings.data / "media")
    if arguments.adopt:
        looked_for, there = mark.adopt(url, store, whatever=arguments.yes)
        print(f"{store.where} is this database's store from now on. Start the servers again.")
        if looked_for:
            print(f"Pictures looked for in it: {looked_for}; found: {there}.")
        return 0
    try:
        standing = mark.settle(url, store)
    except StoreRefused as exc:
        print(settings.printable(exc.sentence))
        return 1
    print(f"{store.where} is this database's store, with the mark {standing.id}.")
    if not standing.own:
        print("It was marked by a database that this one is a copy of, so no server of this one sweeps it.")
    return 0
