"""python -m server restore: a backup into an empty database and an empty store."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import msgspec

from server.access.audit import record
from server.backup.archive import Archive
from server.backup.manifest import Manifest
from server.backup.restore import Restored, check, restore
from server.commands.serve import open_database
from server.database import isolation
from server.database.connections import connect, direct_of
from server.database.migrations import require_same_database
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the database and the store of pictures that the settings name what a backup holds. Both must be empty. "
        "The file is compared with its digests before anything is written. Restore only files that you trust: what is "
        "in them runs with the rights of the database's owner."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what python -m server backup has written")
    parser.add_argument("--without-media", action="store_true", help="the database alone; the store stays as it is")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Restore, and say what is there now; 0. Raises BackupRefused, StoreRefused, DatabaseUnusable and its kinds."""

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    show = partial(Progress, sys.stderr)
    with Archive(arguments.file) as archive:
        manifest = check(archive, show)  # before an embedded database is made, too
        with_media = manifest.with_media and not arguments.without_media
        store = MediaStore.at(settings.media_url, settings.data / "media")
        with open_database(settings, beside=True) as url:
            direct = direct_of(settings, url)
            require_same_database(direct.url, url)
            restored = restore(direct, store, archive, manifest, with_media=with_media, show=show, say=say)
            with connect(url) as connection:
                record(connection, "restore", object=str(arguments.file.absolute()))
            isolated = isolation.arrange(url, settings.serving_url)
    lines = [_sentence(manifest, restored), isolated.sentence, *isolated.statements]
    lines += _what_to_do(manifest, store, with_media)
    print(settings.printable("\n".join(lines)), file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(msgspec.json.encode(_described(manifest, restored)).decode())
    return 0


def _sentence(manifest: Manifest, restored: Restored) -> str:
    what = f"{counted(manifest.products, 'product')} and {counted(manifest.media, 'picture')}"
    files = f", with {counted(restored.objects, 'file')} of pictures and thumbnails" if restored.objects else ""
    newer = f" It was brought up to date: {', '.join(restored.migrations)}." if restored.migrations else ""
    return f"The catalogue as of {manifest.created_at} is restored: {what}{files}.{newer}"


def _what_to_do(manifest: Manifest, store: MediaStore, with_media: bool) -> list[str]:
    lines = []
    if not with_media:
        lines.append(
            f"The pictures' files are not restored. Where they are not in {store.where} yet, put them there. Then, "
            "unless another database goes on using that store, make it this one's: python -m server store --adopt"
        )
    if manifest.other_roles:
        lines.append(
            f"Roles of your own had rights on its tables, which are not restored: {', '.join(manifest.other_roles)}."
        )
    if manifest.space is not None:
        lines.append(f"Start servers with the artifact of the space {manifest.space[:12]} ({manifest.model}).")
    return lines


def _described(manifest: Manifest, restored: Restored) -> dict[str, object]:
    return {
        "id": manifest.id,
        "createdAt": manifest.created_at,
        "products": manifest.products,
        "media": manifest.media,
        "objects": restored.objects,
        "migrations": list(restored.migrations),
        "space": manifest.space,
    }
