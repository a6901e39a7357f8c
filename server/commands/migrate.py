"""python -m server migrate: bring the schema up to date, or adopt the tables of a legacy database."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.artifact.artifact import Artifact
from server.database import isolation, migrations, preconditions
from server.database.connections import connect, direct_of
from server.doctor.adopt import LEAST_SAMPLE, SAMPLE, adopt
from server.doctor.comparison import Pictures
from server.doctor.legacy import kind_of
from server.errors import DatabaseUnusable
from server.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--adopt", action="store_true", help="take over the tables of the older system")
    what.add_argument("--check", action="store_true", help="say what would be applied, and change nothing")
    parser.add_argument(
        "--media",
        type=Path,
        metavar="DIR",
        help="with --adopt: folder of the pictures, by their s3Key or file name; without it, the media store's",
    )
    parser.add_argument(
        "--sample",
        type=int,
        default=SAMPLE,
        metavar="N",
        help=f"with --adopt: pictures to embed again before the older vectors are trusted ({SAMPLE}; at least "
        f"{LEAST_SAMPLE})",
    )


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Bring the database's schema up to date, with `--adopt` that of a legacy database; the exit code.

    It is 0; with `--check` 1 where there is something to apply. Raises DatabaseUnusable, and with `--adopt`
    ArtifactInvalid.
    """
    if arguments.check:
        return _check(url)
    if arguments.adopt:
        _adopt(settings, url, arguments.media, max(LEAST_SAMPLE, arguments.sample))
    applied = [f"applied {name}" for name in migrations.migrate_directly(settings, url)]
    if applied:
        print("\n".join(applied))
    elif not arguments.adopt:
        print("The schema is up to date.")
    _isolate(settings, url)
    return 0


def _isolate(settings: Settings, url: str) -> None:
    """Make the role that serves, or say what an administrator must run for that."""
    found = isolation.arrange(url, settings.serving_url)
    print(found.sentence)
    if found.statements:
        print("An administrator of the database can change that; then start the servers again:")
        print("\n".join(found.statements))


def _check(url: str) -> int:
    with connect(url) as connection:
        state = migrations.look(connection)
    if not state.pending:
        print("The schema is up to date.")
        return 0
    for migration in state.pending:
        print(f"would apply {migration.name}: {migration.about}")
    if state.applied:
        print(
            "Servers of the version before that run go on. Once these are applied, a server of that version cannot be "
            "started on the database any more: the way back is a backup."
        )
    return 1


def _adopt(settings: Settings, url: str, media: Path | None, sample: int) -> None:
    """Adopt the database, unless it is one of Twinlens already, and print what was done.

    Raises DatabaseUnusable when it is no legacy database, or one that cannot be adopted as it is, and ArtifactInvalid.
    Then nothing was changed.
    """
    if media is not None and not media.is_dir():
        raise DatabaseUnusable(f"There is no folder {media} to read pictures from.")
    pictures = Pictures(settings, media)
    artifact = Artifact.read(settings.model)
    direct = direct_of(settings, url)
    migrations.require_same_database(direct.url, url)
    with connect(direct.url, lasting=True, pooling=direct.pooling) as connection:
        migrations.lock_migrations(connection)
        preconditions.require_writable(connection)
        kind = kind_of(connection)
        if kind == "empty":
            raise DatabaseUnusable(
                "The database holds no tables of the older system. For an empty catalogue: python -m server migrate."
            )
        if kind == "legacy":
            print(settings.printable("\n".join(adopt(connection, settings, artifact, pictures, sample))))
        else:
            print("This is a Twinlens database already: there is nothing to adopt.")
