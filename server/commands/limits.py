"""python -m server limits: what each client may ask for in all, beside the limits of its keys."""

from __future__ import annotations

import argparse

from psycopg.rows import args_row
from psycopg.types.json import Jsonb

from server.access.audit import record
from server.access.clients import check_id
from server.access.limits import limits_of
from server.database.connections import connect
from server.database.migrations import require_migrated
from server.database.queries import Queries
from server.errors import BadParameter, NotFound
from server.limits import FORM, as_written
from server.settings import Settings

_QUERIES = "limits.sql"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m server limits`."""
    parser.description = (
        "What a client may ask for in all, beside the limits of its keys. Servers that run heed a change within 5 "
        f"seconds. Limits are written {FORM.replace(',', ' ')}: so many a second / so many at once."
    )
    parser.add_argument("what", nargs="?", default="list", choices=("list", "set", "clear"))
    parser.add_argument("--client", metavar="ID", help="whose limits")
    parser.add_argument("--limit", nargs="+", default=[], metavar="LIMIT", help="such as requests=50/100 concurrent=8")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """List the limits of clients, set those of one, or clear them. Raises BadParameter, NotFound, DatabaseUnusable."""
    require_migrated(url, writing=arguments.what != "list")
    client_id = None if arguments.client is None else check_id("The client", arguments.client)
    if arguments.what == "list":
        _print_list(url, client_id, settings.client_limits)
        return 0
    if client_id is None:
        raise BadParameter(f"Say whose limits to {arguments.what}: --client ID.")
    if arguments.what == "set":
        limits = limits_of(" ".join(arguments.limit))
        with connect(url) as connection, connection.transaction():
            connection.execute(
                Queries.read(_QUERIES)["set_client_limits"], {"client_id": client_id, "limits": Jsonb(limits)}
            )
            record(connection, "limits set", client_id=client_id, object=client_id)
        print(f"{client_id}: {as_written(limits)}")
        return 0
    with connect(url) as connection, connection.transaction():
        cursor = connection.execute(Queries.read(_QUERIES)["clear_client_limits"], {"client_id": client_id})
        if cursor.fetchone() is None:
            raise NotFound(f"The client {client_id} has no limits of its own.")
        record(connection, "limits clear", client_id=client_id, object=client_id)
    print(f"{client_id}: no limits of its own any more")
    return 0


def _print_list(url: str, client_id: str | None, usual: str | None) -> None:
    with connect(url) as connection:
        cursor = connection.cursor(row_factory=args_row(lambda name, limits: (str(name), limits)))
        found = cursor.execute(Queries.read(_QUERIES)["limits_of_clients"]).fetchall()
    for name, limits in found:
        if client_id in (None, name):
            print(f"{name}: {as_written(limits)}")
    print(f"every other client: {usual or 'no limits'}")
