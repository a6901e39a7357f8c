"""python -m server clients: list the clients of a database, and remove one with all that it has."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from server.commands.flags import add_flags
from server.database.connections import direct_of
from server.database.migrations import require_migrated
from server.database.pool import Pool, open_pool
from server.errors import BadParameter, NotFound
from server.ingest.client_removal import ClientRemoval, ClientSize, Removed, sizes
from server.ingest.mark import settle
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted

T = TypeVar("T")

_CONNECTION_TIMEOUT_SECONDS = 30.0
_STATEMENT_TIMEOUT_SECONDS = 3600.0
_HEADS = ("client", "products", "media", "vectors", "keys", "bytes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the clients that have anything, or remove one. With no further word, they are listed."
    actions = parser.add_subparsers(dest="what", metavar="ACTION", title="actions")
    listed = actions.add_parser("list", help="list the clients, with what they have")
    delete = actions.add_parser(
        "delete",
        help="remove a client: its keys, products, media, vectors, pictures and limits",
        description="Remove a client: its keys, products, media, vectors, pictures and limits. Servers may go on. What "
        "is in the audit stays there for as long as it is kept. Killed half-way, the same command goes on.",
    )
    delete.add_argument("client", metavar="CLIENT")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for one in (listed, delete):
        add_flags(one, suppress=True)
    for one in (parser, listed, delete):
        one.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """List clients, or remove one; 1 where bytes of it are left in the store, else 0.

    Raises BadParameter where it is not confirmed, NotFound, StoreRefused, DatabaseUnusable, CatalogueUnavailable.
    """
    deleting = arguments.what == "delete"
    require_migrated(url, writing=deleting)
    if deleting:
        return _delete(settings, arguments, url)
    found = asyncio.run(_with_pool(settings, url, sizes))
    if arguments.json:
        print(msgspec.json.encode({"clients": [_described(one) for one in found]}).decode())
    else:
        _print_table([_HEADS, *map(_row, found)])
    return 0


def _delete(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    client_id = str(arguments.client)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    standing = settle(url, store)
    direct = direct_of(settings, url)

    async def remove(pool: Pool) -> Removed:
        removal = ClientRemoval(pool, store, standing, direct)
        media = await removal.count(client_id)
        if not arguments.yes:
            _confirm(client_id, media)
        progress = Progress(sys.stderr, media, "media")
        try:
            return await removal.remove(client_id, on_removed=progress.add)
        finally:
            progress.clear()

    removed = asyncio.run(_with_pool(settings, url, remove))
    if not removed.anything and not removed.remaining:
        raise NotFound(f"There is nothing of a client {client_id[:128]!r}: python -m server clients shows them.")
    said = sys.stderr if arguments.json else sys.stdout
    print(
        f"Removed of {client_id}: {counted(removed.products, 'product')}, {removed.media:,} media, "
        f"{counted(removed.objects, 'object')} of the store, {counted(removed.keys, 'key')}.",
        file=said,
    )
    for one in removed.remaining:
        print(settings.printable(f"Bytes may be left. {one} The same command removes them."), file=sys.stderr)
    if arguments.json:
        print(
            msgspec.json.encode(
                {
                    "client": client_id,
                    "products": removed.products,
                    "media": removed.media,
                    "objects": removed.objects,
                    "keys": removed.keys,
                    "complete": not removed.remaining,
                }
            ).decode()
        )
    return 1 if removed.remaining else 0


def _confirm(client_id: str, media: int) -> None:
    """Raises BadParameter where whoever runs it does not write the client's name."""
    refusal = BadParameter(
        f"Nothing was removed. To remove the client {client_id[:128]!r} without a question, add --yes."
    )
    if not sys.stdin.isatty():
        raise refusal
    print(f"This removes the client {client_id} with {media:,} media, for good. Write its name to go on: ", end="")
    if sys.stdin.readline().strip() != client_id:
        raise refusal


async def _with_pool(settings: Settings, url: str, work: Callable[[Pool], Awaitable[T]]) -> T:
    pool = open_pool(
        url,
        min_size=1,
        max_size=2,
        timeout=_CONNECTION_TIMEOUT_SECONDS,
        longest=_STATEMENT_TIMEOUT_SECONDS,
        pooling=settings.pooling,
    )
    async with pool:
        return await work(pool)


def _described(one: ClientSize) -> dict[str, object]:
    return {
        "id": one.client_id,
        "products": one.products,
        "media": one.media,
        "vectors": one.vectors,
        "keys": one.keys,
        "bytes": one.bytes,
    }


def _row(one: ClientSize) -> tuple[str, ...]:
    numbers = (one.products, one.media, one.vectors, one.keys, one.bytes)
    # Whoever writes into the tables may have put into an id what moves a terminal's cursor.
    name = "".join(letter if letter.isprintable() else "?" for letter in one.client_id)
    return (name, *(f"{number:,}" for number in numbers))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
