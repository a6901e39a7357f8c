"""python -m server load: the Parquet files of a dump into a database, beside what it holds."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from server.commands.extras import require
from server.commands.serve import open_database
from server.database.connections import direct_of
from server.database.migrations import require_same_database
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted

if TYPE_CHECKING:
    from server.catalogue.rows import SpaceRow
    from server.dump.load import Loaded, Wanted
    from server.dump.manifest import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Add what a dump holds to the database and the store that the settings name. Rows that are there stay as they "
        "are: the same load twice changes nothing, and one that was interrupted goes on. All files are compared with "
        "their digests before anything is written."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what python -m server dump --parquet has written")
    parser.add_argument("--without-vectors", action="store_true", help="leave the vectors to servers and to reembed")
    parser.add_argument("--without-pictures", action="store_true", help="the rows alone; the store stays as it is")
    parser.add_argument(
        "--keep", action="store_true", help="leave rows that are there, and otherwise, as they are, and load the rest"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Load, and say what was added; 1 where media could not be loaded, else 0.

    Raises DumpRefused, StoreRefused, DatabaseUnusable and its kinds.
    """
    require("pyarrow", "parquet")
    from server.dump import manifest as manifests
    from server.dump.load import Wanted, check, load, make_ready

    show = partial(Progress, sys.stderr)
    wanted = Wanted(not arguments.without_vectors, not arguments.without_pictures, arguments.keep)
    manifest = manifests.read(arguments.folder)
    check(arguments.folder, manifest, wanted, show)  # before an embedded database is made, too
    store = MediaStore.at(settings.media_url, settings.data / "media")
    with open_database(settings, beside=True) as url:
        direct = direct_of(settings, url)
        require_same_database(direct.url, url)
        space = make_ready(settings, url, manifest, wanted)
        loaded = load(direct, store, arguments.folder, manifest, space, wanted, show=show)
    lines = [_sentence(manifest, loaded), *_what_to_know(manifest, loaded, store, space, wanted)]
    print(settings.printable("\n".join(lines)), file=sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(msgspec.json.encode(_described(manifest, loaded)).decode())
    return 1 if loaded.gone else 0


def _sentence(manifest: Manifest, loaded: Loaded) -> str:
    added = [
        counted(loaded.products, "product"),
        counted(loaded.media, "picture"),
        counted(loaded.vectors, "vector"),
        *([counted(loaded.attributes, "declared attribute")] if loaded.attributes else []),
    ]
    return (
        f"Of the dump of {manifest.created_at} were added: {', '.join(added)}, and "
        f"{counted(loaded.pictures, 'file')} of pictures and thumbnails."
    )


def _what_to_know(
    manifest: Manifest, loaded: Loaded, store: MediaStore, space: SpaceRow | None, wanted: Wanted
) -> list[str]:
    lines = []
    if loaded.kept:
        more = ", ..." if loaded.kept > len(loaded.examples) else ""
        lines.append(f"Left as they are in the database: {loaded.kept:,} ({', '.join(loaded.examples)}{more}).")
    if loaded.twins:
        lines.append(
            f"Left out: {counted(loaded.twins, 'picture')} whose product has the very same file as another media."
        )
    if loaded.gone:
        lines.append(
            f"Not loaded: {counted(loaded.gone, 'picture')} whose product is not in the database: it was deleted "
            "meanwhile, or was left out, since another product has its SKU."
        )
    if not (wanted.pictures and manifest.with_pictures):
        lines.append(
            "The pictures' files were not loaded: rows name them by the keys that they had. Where they are not in "
            f"{store.where} yet, put them there; then, unless another database goes on using that store, make it this "
            "one's: python -m server store --adopt"
        )
    if space is not None and len(manifest.spaces) > 1:
        others = ", ".join(str(one) for one in manifest.spaces if one.id != space.id)
        lines.append(f"Vectors of other spaces than the live one were left out: {others}.")
    if space is None and manifest.media:
        lines.append("Without vectors, servers embed the pictures in the background, where the store has their files.")
    return lines


def _described(manifest: Manifest, loaded: Loaded) -> dict[str, object]:
    return {
        "id": manifest.id,
        "createdAt": manifest.created_at,
        "products": loaded.products,
        "media": loaded.media,
        "vectors": loaded.vectors,
        "attributes": loaded.attributes,
        "pictures": loaded.pictures,
        "kept": loaded.kept,
        "twins": loaded.twins,
        "gone": loaded.gone,
    }
