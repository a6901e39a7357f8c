"""python -m server: serve, and the operator's commands.

The parent process owns the embedded PostgreSQL and the workers; each worker owns everything else (see lifespan.py).
Order of the start: settings, address, artifact, database, a look at all that speaks against it, migrations, space,
store, workers. The end goes the other way round.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.commands import (
    audit,
    backup,
    clients,
    doctor,
    dump,
    duplicates,
    ingest,
    keys,
    limits,
    load,
    migrate,
    postgres,
    reembed,
    restore,
    spaces,
    store,
    sweep,
    worker,
)
from server.commands.flags import add_flags, flags_of
from server.commands.serve import database_url, open_database, serve
from server.errors import TwinlensError
from server.operations.logs import log_to_stderr, say_refused
from server.settings import Settings, log_form


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, or 2 with a sentence on standard error when the command cannot be carried out."""
    given = _parser().parse_args(arguments)
    flags, command = flags_of(given), given.command or "serve"
    form = log_form(os.environ, flags)
    log_to_stderr(form=form, process=command)
    # SIGTERM must run what closes and cleans up, also before the server has its own handlers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    printable: Callable[[str], str] = str
    try:
        settings = Settings.read(os.environ, flags)
        printable = settings.printable
        log_to_stderr(settings.printable, form, process=command)
        return COMMANDS[command].run(settings, given)
    except TwinlensError as error:
        say_refused(printable(error.sentence), form)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m server", description="Search by image for product catalogues.")
    add_flags(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        about = f"{command.about[0].upper()}{command.about[1:]}."
        one = commands.add_parser(name, help=command.about, description=about)
        add_flags(one, suppress=True)
        command.add_arguments(one)
    return parser


def _nothing(parser: argparse.ArgumentParser) -> None:
    """For a command that has no arguments beside the settings."""


@dataclass(frozen=True)
class Command:
    """One of the operator's commands."""

    about: str
    run: Callable[[Settings, argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _nothing


def _with_database(
    run: Callable[[Settings, argparse.Namespace, str], int],
) -> Callable[[Settings, argparse.Namespace], int]:
    """For a command that works on the database, also while a server runs on it."""

    def run_with_database(settings: Settings, arguments: argparse.Namespace) -> int:
        with open_database(settings, beside=True) as url:
            return run(settings, arguments, url)

    return run_with_database


def _with_embedded_database(
    run: Callable[[Settings, argparse.Namespace, str], int],
) -> Callable[[Settings, argparse.Namespace], int]:
    """For a command that works on the embedded database alone."""

    def run_with_database(settings: Settings, arguments: argparse.Namespace) -> int:
        postgres.refuse_other_databases(settings)
        return _with_database(run)(settings, arguments)

    return run_with_database


COMMANDS = {
    "serve": Command("serve until stopped (the default)", lambda settings, _: serve(settings)),
    "migrate": Command("bring the database's schema up to date", _with_database(migrate.run), migrate.add_arguments),
    "ingest": Command(
        "bring a folder, a table or a bucket into the catalogue, or in step with it", ingest.run, ingest.add_arguments
    ),
    "reembed": Command(
        "embed the catalogue with another model beside the live one, then switch",
        _with_database(reembed.run),
        reembed.add_arguments,
    ),
    "spaces": Command(
        "list the embedding spaces, switch to another, drop one", _with_database(spaces.run), spaces.add_arguments
    ),
    "doctor": Command(
        "report what is wrong with a database, and how to mend it", _with_database(doctor.run), doctor.add_arguments
    ),
    "duplicates": Command(
        "list the pictures that a client's catalogue holds more than once",
        _with_database(duplicates.run),
        duplicates.add_arguments,
    ),
    "clients": Command(
        "list the clients with what they have, or remove one", _with_database(clients.run), clients.add_arguments
    ),
    "limits": Command(
        "list the limits of clients, set a client's, clear them", _with_database(limits.run), limits.add_arguments
    ),
    "audit": Command("list who wrote what, and from where", _with_database(audit.run), audit.add_arguments),
    "store": Command(
        "say where pictures are stored, or have the database adopt another store",
        _with_database(store.run),
        store.add_arguments,
    ),
    "sweep": Command(
        "remove from the store what no picture of the catalogue needs", _with_database(sweep.run), sweep.add_arguments
    ),
    "backup": Command(
        "save the catalogue and its pictures as one file, while servers go on",
        _with_database(backup.run),
        backup.add_arguments,
    ),
    "restore": Command(
        "make an empty database and an empty store what a backup holds", restore.run, restore.add_arguments
    ),
    "dump": Command(
        "write the catalogue as Parquet files that other programs read, while servers go on",
        _with_database(dump.run),
        dump.add_arguments,
    ),
    "load": Command("add what a dump holds to a database and its store", load.run, load.add_arguments),
    "worker": Command(
        "embed pictures whose rows another system writes", _with_database(worker.run), worker.add_arguments
    ),
    "keys": Command("make, list, rotate and revoke the keys of those who may call", keys.run, keys.add_arguments),
    "postgres": Command(
        "run a program of PostgreSQL's, such as psql or pg_dump, on the embedded database",
        _with_embedded_database(postgres.run),
        postgres.add_arguments,
    ),
    "database-url": Command(
        "print the URL of the database in use, also while the server runs", lambda settings, _: database_url(settings)
    ),
}


if __name__ == "__main__":
    sys.exit(main())
