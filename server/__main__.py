"""python -m server: serve, and the operator's commands.

The parent process owns the embedded PostgreSQL and the worker; the worker owns everything else (see lifespan.py).
Order of the start: settings, artifact, database, migrations, space, worker. The end goes the other way round.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from server import lifespan
from server.artifact.artifact import Artifact
from server.catalogue import duplicates
from server.database import connections
from server.doctor import adopt, doctor
from server.errors import FolderInUse, TwinlensError
from server.operations.metrics import SHARED
from server.operations.workers import PLACES, wanted
from server.postgres.server import EmbeddedPostgres
from server.settings import Settings, add_flags, flags_of, variable_of
from server.spaces import reembed, spaces

# A worker that has not drained by then is ended: a little more than the longest request may take.
_DRAIN_MARGIN = 10

_log = logging.getLogger("server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code, or 2 with a sentence on standard error where it cannot be done."""
    given = _parser().parse_args(arguments)
    lifespan.log_to_stderr()
    # A polite end must run the way out, also before the server has its own handlers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        settings = Settings.read(os.environ, flags_of(given))
        return COMMANDS[given.command or "serve"].run(settings, given)
    except TwinlensError as error:
        print(f"twinlens: {error.sentence}", file=sys.stderr)
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


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered."""
    if settings.exposed:
        _log.warning("Listening on %s without keys: whoever can reach it can read and delete.", settings.host)
    artifact = Artifact.read(settings.model)
    artifact.check_files(artifact.files_to_run(settings.precision))
    with _database(settings) as url:
        connections.migrate(url)
        lifespan.claim_space(url, artifact, settings.precision)
        return _run_worker(settings, url)


def bring_up_to_date(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Bring the database's schema up to date, an older system's with `--adopt`."""
    if arguments.adopt:
        return adopt.run(settings, arguments, url)
    applied = connections.migrate(url)
    print("\n".join(f"applied {name}" for name in applied) or "The schema is up to date.")
    return 0


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adopt", action="store_true", help="take over the tables of the older system")
    adopt.add_arguments(parser)


def database_url(settings: Settings) -> int:
    """Print the URL of the database that `serve` uses with these settings."""
    print(settings.database_url or EmbeddedPostgres(settings.data).url)
    return 0


@contextlib.contextmanager
def _database(settings: Settings, *, beside: bool = False) -> Iterator[str]:
    """The URL of the database: the one given, or an embedded one that lives as long as this block.

    `beside`: where a server runs with the same folder, its database does.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    postgres = EmbeddedPostgres(settings.data)
    try:
        postgres.start()
    except FolderInUse:
        if not beside:
            raise
        yield postgres.url
        return
    with postgres:
        yield postgres.url


def _nothing(parser: argparse.ArgumentParser) -> None:
    """A command that takes no more than the settings."""


@dataclass(frozen=True)
class Command:
    """One of the operator's commands."""

    about: str
    run: Callable[[Settings, argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _nothing


def _with_database(
    run: Callable[[Settings, argparse.Namespace, str], int],
) -> Callable[[Settings, argparse.Namespace], int]:
    """A command that works on the database, also while a server runs on it."""

    def run_with_it(settings: Settings, arguments: argparse.Namespace) -> int:
        with _database(settings, beside=True) as url:
            return run(settings, arguments, url)

    return run_with_it


COMMANDS = {
    "serve": Command("serve until told to stop (the default)", lambda settings, _: serve(settings)),
    "migrate": Command("bring the database's schema up to date", _with_database(bring_up_to_date), _migrate_arguments),
    "reembed": Command(
        "embed the catalogue with another model beside the live one, then switch",
        _with_database(reembed.run),
        reembed.add_arguments,
    ),
    "spaces": Command(
        "list the embedding spaces, switch to another, drop one", _with_database(spaces.run), spaces.add_arguments
    ),
    "doctor": Command(
        "say what is wrong with a database, and what mends it", _with_database(doctor.run), doctor.add_arguments
    ),
    "duplicates": Command(
        "list the pictures that a client's catalogue holds more than once",
        _with_database(duplicates.run),
        duplicates.add_arguments,
    ),
    "database-url": Command(
        "print the URL of the database in use, also while the server runs", lambda settings, _: database_url(settings)
    ),
}


def _run_worker(settings: Settings, url: str) -> int:
    # Spawned, not forked: this process has threads (the one that keeps PostgreSQL), and locks do not survive a fork.
    multiprocessing.set_start_method("spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="twinlens-") as folder:
        refusal = Path(folder) / "refusal"
        os.environ.update(_environment(settings, url))
        os.environ[lifespan.REFUSAL] = str(refusal)
        os.environ[PLACES] = folder
        count = wanted(settings)
        os.environ.pop(SHARED, None)
        if count > 1:
            shared = Path(folder) / "metrics"
            shared.mkdir()
            os.environ[SHARED] = str(shared)
        server = Server(
            "server.app:from_environment",
            factory=True,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            workers=count,
            respawn_failed_workers=True,
            workers_kill_timeout=int(settings.deadline) + _DRAIN_MARGIN,
            log_level=LogLevels.warning,
        )
        with contextlib.suppress(SystemExit):
            server.serve()
        if refusal.exists():
            print(f"twinlens: {refusal.read_text()}", file=sys.stderr)
            return 2
        return 0 if server.interrupt_signal else 1


def _environment(settings: Settings, url: str) -> dict[str, str]:
    """The settings as variables, flags included, for the worker."""
    values = {one.name: getattr(settings, one.name) for one in fields(settings)} | {"database_url": url}
    return {variable_of(name): _spelt(value) for name, value in values.items()}


def _spelt(value: object) -> str:
    """As `Settings.read` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.9f}"  # not 1e-05
    return "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
