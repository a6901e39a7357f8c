"""python -m server dump: the catalogue as Parquet files, while servers go on."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from server.commands.extras import require
from server.database.connections import direct_of
from server.database.migrations import require_migrated, require_same_database
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted

if TYPE_CHECKING:
    from server.dump.dump import Made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the catalogue of one moment as Parquet files: products, media, and vectors with their space. Servers "
        "may go on meanwhile. twinlens-dump.json is written last: a folder without it holds no whole dump."
    )
    parser.add_argument(
        "--parquet", type=Path, required=True, metavar="DIR", help="where to; it must be empty or not there yet"
    )
    parser.add_argument("--client", metavar="ID", help="the catalogue of this client alone")
    parser.add_argument("--all-spaces", action="store_true", help="vectors of every space, not of the live one alone")
    parser.add_argument("--with-pictures", action="store_true", help="copy the pictures and thumbnails, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Write the dump and say what it holds; 1 where pictures are missing in it, else 0.

    Raises DumpRefused, StoreRefused, DatabaseUnusable and its kinds.
    """
    require("pyarrow", "parquet")
    from server.dump.dump import Wanted, make

    direct = direct_of(settings, url)
    require_same_database(direct.url, url)
    require_migrated(url)
    wanted = Wanted(arguments.client, arguments.all_spaces, arguments.with_pictures)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    made = make(direct, store, arguments.parquet, wanted, show=partial(Progress, sys.stderr))
    print(settings.printable(_sentence(arguments.parquet, made)), file=sys.stderr if arguments.json else sys.stdout)
    failed = made.copied.missing + made.copied.changed
    if failed:
        print(settings.printable(_trouble(made, failed)), file=sys.stderr)
    if arguments.json:
        print(msgspec.json.encode(_described(arguments.parquet, made)).decode())
    return 1 if failed else 0


def _sentence(folder: Path, made: Made) -> str:
    manifest = made.manifest
    vectors = "".join(f", {counted(one.vectors, 'vector')} of {one}" for one in manifest.spaces)
    pictures = (
        f", with {counted(manifest.pictures, 'file')} of pictures and thumbnails"
        if manifest.with_pictures
        else ", without the pictures' files"
    )
    whose = f" of the client {manifest.client}" if manifest.client is not None else ""
    return (
        f"{folder} holds the catalogue{whose} as of {manifest.created_at}: {counted(manifest.products, 'product')}, "
        f"{counted(manifest.media, 'picture')}{vectors}{pictures}; in {sum(one.bytes for one in manifest.files):,} "
        "bytes of tables."
    )


def _trouble(made: Made, failed: int) -> str:
    lines = "\n".join(f"  {line}" for line in made.copied.examples)
    more = "\n  ..." if failed > len(made.copied.examples) else ""
    return (
        f"Pictures that the store does not have, or does not give: {made.copied.missing:,}; pictures whose bytes have "
        f"changed in it: {made.copied.changed:,}. The dump has all the rest:\n{lines}{more}"
    )


def _described(folder: Path, made: Made) -> dict[str, object]:
    manifest = made.manifest
    return {
        "folder": str(folder),
        "id": manifest.id,
        "createdAt": manifest.created_at,
        "client": manifest.client,
        "products": manifest.products,
        "media": manifest.media,
        "vectors": {one.id: one.vectors for one in manifest.spaces},
        "pictures": manifest.pictures,
        "missing": made.copied.missing,
        "changed": made.copied.changed,
        "bytes": sum(one.bytes for one in manifest.files),
    }
