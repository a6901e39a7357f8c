"""python -m server postgres: one of PostgreSQL's own programs, such as psql or pg_dump, on the embedded database."""

from __future__ import annotations

import argparse
import os
import subprocess

from psycopg import conninfo

from server.errors import BadSetting, NotFound
from server.postgres.binaries import reachable_binaries
from server.postgres.server import EmbeddedPostgres
from server.settings import Settings

_VARIABLES = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run one of PostgreSQL's own programs on the embedded database, which is started where no server runs. What "
        "follows the program's name is for the program; the settings come before it."
    )
    parser.add_argument("program", metavar="PROGRAM", help="psql, pg_dump, vacuumdb, ...")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")


def refuse_other_databases(settings: Settings) -> None:
    """Raises BadSetting where the settings name a PostgreSQL that is not the embedded one."""
    if settings.database_url is not None:
        raise BadSetting(
            "TWINLENS_DATABASE_URL names a PostgreSQL of your own: run its programs with that URL. This command is for "
            "the embedded one."
        )


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Run the program on the database at `url`; its exit code. Raises NotFound where there is none of that name."""
    folder = reachable_binaries(None, EmbeddedPostgres(settings.data).cluster)
    program = folder / os.path.basename(arguments.program)
    if not program.is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise NotFound(f"There is no program {arguments.program} of PostgreSQL here. There are: {there}.")
    where = conninfo.conninfo_to_dict(url)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {variable: str(where[name]) for name, variable in _VARIABLES.items() if name in where}
    return subprocess.run(  # noqa: S603 - PostgreSQL's own, of our package
        [str(program), *arguments.arguments], env=environment, check=False
    ).returncode
