"""python -m server migrate: bring the schema up to date, or take over the tables of the older system."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.artifact.artifact import Artifact
from server.database import migrations
from server.database.connections import connect
from server.doctor.adopt import LEAST_SAMPLE, SAMPLE, adopt
from server.doctor.comparison import Pictures
from server.doctor.legacy import kind_of
from server.errors import DatabaseUnusable
from server.settings import Settings


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Bring the database's schema up to date, an older system's with `--adopt`."""
    if arguments.adopt:
        return _adopt_run(settings, arguments, url)
    applied = migrations.migrate(url)
    print("\n".join(f"applied {name}" for name in applied) or "The schema is up to date.")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adopt", action="store_true", help="take over the tables of the older system")
    _adopt_arguments(parser)


def _adopt_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `--adopt` brings."""
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
        help=f"with --adopt: pictures to embed anew before the older vectors are believed ({SAMPLE}; at least "
        f"{LEAST_SAMPLE})",
    )


def _adopt_run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Adopt the database and say what became of it; the exit code.

    Raises DatabaseUnusable when it is no database of the older system, or one that cannot be adopted as it is, and
    ArtifactInvalid; then nothing was changed.
    """
    if arguments.media is not None and not arguments.media.is_dir():
        raise DatabaseUnusable(f"There is no folder {arguments.media} to read pictures from.")
    pictures = Pictures(settings, arguments.media)
    artifact = Artifact.read(settings.model)
    with connect(url) as connection:
        migrations.begin_migrating(connection)
        if (kind := kind_of(connection)) == "twinlens":
            print("This is a Twinlens database already: there is nothing to adopt.")
        elif kind == "empty":
            raise DatabaseUnusable(
                "The database holds no tables of the older system. For an empty catalogue: python -m server migrate."
            )
        else:
            print("\n".join(adopt(connection, settings, artifact, pictures, max(LEAST_SAMPLE, arguments.sample))))
    for name in migrations.migrate(url):
        print(f"applied {name}")
    return 0
