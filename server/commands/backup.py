"""python -m server backup: the catalogue with its pictures as one file, while servers go on."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import msgspec

from server.access.audit import record
from server.backup.backup import Made, make
from server.database.connections import connect, direct_of
from server.database.migrations import require_same_database
from server.errors import DatabaseUnusable
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Save the catalogue of one moment, keys and audit included, with its pictures in one file, a tar that only its "
        "owner can read. Servers may go on meanwhile. The file has its name only when it is whole."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write; it must not be there yet")
    parser.add_argument("--without-media", action="store_true", help="leave the pictures out: the database alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Write the backup and say what it holds; 1 where pictures are missing in it, else 0.

    Raises BackupRefused, StoreRefused, DatabaseUnusable and its kinds.
    """
    direct = direct_of(settings, url)
    require_same_database(direct.url, url)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    made = make(
        direct,
        store,
        arguments.file,
        with_media=not arguments.without_media,
        show=partial(Progress, sys.stderr),
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    _record(settings, arguments.file, url)
    print(settings.printable(_sentence(arguments.file, made)), file=sys.stderr if arguments.json else sys.stdout)
    failed = made.copied.missing + made.copied.changed
    if failed:
        print(settings.printable(_trouble(made, failed)), file=sys.stderr)
    if arguments.json:
        print(msgspec.json.encode(_described(arguments.file, made)).decode())
    return 1 if failed else 0


def _record(settings: Settings, path: Path, url: str) -> None:
    """Have the audit say that the catalogue was copied. The backup is whole, whatever comes of that."""
    try:
        with connect(url) as connection:
            record(connection, "backup", object=str(path.absolute()))
    except DatabaseUnusable as exc:
        print(settings.printable(f"The audit has no entry of this backup. {exc.sentence}"), file=sys.stderr)


def _sentence(path: Path, made: Made) -> str:
    what = f"{counted(made.manifest.products, 'product')} and {counted(made.manifest.media, 'picture')}"
    beside = (
        f", with {counted(made.copied.objects, 'file')} of pictures and thumbnails"
        if made.manifest.with_media
        else ", without the pictures' files"
    )
    return f"{path} holds the catalogue as of {made.manifest.created_at}: {what}{beside}, in {made.bytes:,} bytes."


def _trouble(made: Made, failed: int) -> str:
    lines = "\n".join(f"  {line}" for line in made.copied.examples)
    more = "\n  ..." if failed > len(made.copied.examples) else ""
    return (
        f"Pictures that the store does not have, or does not give: {made.copied.missing:,}; pictures whose bytes have "
        f"changed in it: {made.copied.changed:,}. The file has all the rest, and a list of these, PROBLEMS.txt:\n"
        f"{lines}{more}"
    )


def _described(path: Path, made: Made) -> dict[str, object]:
    return {
        "file": str(path),
        "id": made.manifest.id,
        "createdAt": made.manifest.created_at,
        "bytes": made.bytes,
        "products": made.manifest.products,
        "media": made.manifest.media,
        "objects": made.copied.objects,
        "missing": made.copied.missing,
        "changed": made.copied.changed,
        "withMedia": made.manifest.with_media,
    }
