"""python -m server keys: make, list, replace and revoke keys, and turn the need for them on and off."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from psycopg import Connection

from server.access import stored_keys
from server.access.clients import DEFAULT_CLIENT
from server.access.keyring import EFFECTIVE_SECONDS
from server.access.keys import StoredKey
from server.access.limits import limits_of
from server.access.scopes import SCOPES, scopes_of
from server.access.stored_keys import Made, Wanted
from server.commands.flags import add_flags
from server.commands.serve import open_database
from server.database import migrations
from server.database.connections import connect
from server.errors import BadParameter, DatabaseUnfit
from server.limits import as_written
from server.settings import Settings, variable_of

GRACE = "7d"
"""For so long, unless it is said otherwise, both keys work after one was rotated."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=36_525)

Work = Callable[[Connection[Any]], None]
"""What is left to do once the arguments were found to make sense."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Keys say who may call, and for which client. A key is shown once, when it is made; the database keeps a "
        f"digest. Changes count within {EFFECTIVE_SECONDS} seconds on every server, without a restart. With no "
        "further word, the keys are listed."
    )
    actions = parser.add_subparsers(dest="what", metavar="ACTION", title="actions")

    def action(name: str, about: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        add_flags(one, suppress=True)
        return one

    create = action("create", "make a key; from the first one on, callers need one")
    create.add_argument("--client", metavar="ID", help="whose catalogue it opens; it need not exist yet")
    create.add_argument(
        "--scope",
        metavar="SCOPES",
        help=f"what it allows, separated by commas: {', '.join(SCOPES)}; admin is every client's, without --client",
    )
    create.add_argument("--expires", metavar="WHEN", help="90d, 12h, or the last day (UTC), as 2027-01-31; else never")
    create.add_argument("--name", help="what it is for, for people")
    create.add_argument(
        "--limit",
        nargs="+",
        default=[],
        metavar="LIMIT",
        help="what it may ask for, such as requests=50/100 concurrent=8",
    )
    listed = action("list", "list the keys, without the keys themselves; when one was last used is not kept")
    listed.add_argument("--client", metavar="ID", help="those of this client alone")
    rotate = action("rotate", "make a new key like this one, which goes on working for a while")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument("--grace", metavar="TIME", default=GRACE, help=f"how long both work ({GRACE})")
    action("revoke", "refuse a key from now on").add_argument("id", metavar="ID")
    action("off", "let everybody call without a key")
    action("on", "have callers need a key again")
    for one in (create, listed, rotate):
        one.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do it and say what was done; 0.

    Raises BadParameter, before anything is begun, for arguments that make no sense, and where there is no such key;
    DatabaseUnusable.
    """
    what = arguments.what or "list"
    work = _WORKS[what](arguments)
    with open_database(settings, beside=True) as url:
        if what == "create":
            _prepare(settings, url)
        else:
            migrations.require_migrated(url, writing=what != "list")
        with connect(url) as connection:
            work(connection)
    return 0


def _prepare(settings: Settings, url: str) -> None:
    """Bring an empty database to this version's schema, as the first start would. Raises DatabaseUnfit for an older
    one: once it is changed, servers of the version before cannot be started on it, which a new key is no reason for."""

    def last_look(_: Connection[Any], catalogue: bool) -> None:
        if catalogue:
            raise DatabaseUnfit(
                "The database is of an older version of Twinlens, and this command does not change that. Make a "
                "backup, then bring it up to date: python -m server migrate"
            )

    migrations.migrate_directly(settings, url, last_look=last_look)


# --- what is done -----------------------------------------------------------------------------------------------------


def _create(arguments: argparse.Namespace) -> Work:
    if arguments.scope is None:
        raise BadParameter(f"Say what the key allows: --scope with some of {', '.join(SCOPES)}, separated by commas.")
    wanted = Wanted(
        arguments.client,
        scopes_of(arguments.scope),
        arguments.name,
        _expiry(arguments.expires) if arguments.expires is not None else None,
        limits_of(" ".join(arguments.limit)) if arguments.limit else {},
    )

    def work(connection: Connection[Any]) -> None:
        first = not stored_keys.are_on(connection)
        made = stored_keys.create(connection, wanted)
        _show(made, as_json=arguments.json)
        if first:
            _say(f"Callers need a key now, on every server within {EFFECTIVE_SECONDS} seconds.", arguments.json)

    return work


def _list(arguments: argparse.Namespace) -> Work:
    # Without an action there are none of its arguments.
    client_id, as_json = getattr(arguments, "client", None), getattr(arguments, "json", False)

    def work(connection: Connection[Any]) -> None:
        keys, on = stored_keys.all_keys(connection, client_id), stored_keys.are_on(connection)
        if as_json:
            print(msgspec.json.encode({"keysOn": on, "keys": [_described(key) for key in keys]}).decode())
            return
        print("Callers need a key." if on else "Callers need no key.")
        _print_table(keys)

    return work


def _rotate(arguments: argparse.Namespace) -> Work:
    grace = _duration(arguments.grace, "--grace")

    def work(connection: Connection[Any]) -> None:
        made, old = stored_keys.rotate(connection, arguments.id, grace)
        _show(made, as_json=arguments.json)
        _say(f"The key {old.id} works until {_time(old.expires_at)}.", arguments.json)

    return work


def _revoke(arguments: argparse.Namespace) -> Work:
    def work(connection: Connection[Any]) -> None:
        key = stored_keys.revoke(connection, arguments.id)
        print(f"The key {key.id} is refused, on every server within {EFFECTIVE_SECONDS} seconds.")
        if stored_keys.are_on(connection) and not stored_keys.usable(connection):
            print(
                "No key is left that could be used: every caller is refused. To have nobody need one: "
                "python -m server keys off"
            )

    return work


def _off(_: argparse.Namespace) -> Work:
    def work(connection: Connection[Any]) -> None:
        stored_keys.turn(connection, on=False)
        print(
            f"Callers need no key, on every server within {EFFECTIVE_SECONDS} seconds. Whoever reaches a server that "
            "listens on loopback can read, change and delete every client's catalogue; there, pages of other sites are "
            f"refused. So can all the world where {variable_of('trust_network')} is on. Other servers that listen "
            "beyond loopback go on asking for keys until they stop, and do not start again without. A request that "
            f"names no clientId and brings no good key is about the client {DEFAULT_CLIENT}."
        )

    return work


def _on(_: argparse.Namespace) -> Work:
    def work(connection: Connection[Any]) -> None:
        stored_keys.turn(connection, on=True)
        print(f"Callers need a key, on every server within {EFFECTIVE_SECONDS} seconds.")

    return work


_WORKS: dict[str, Callable[[argparse.Namespace], Work]] = {
    "create": _create,
    "list": _list,
    "rotate": _rotate,
    "revoke": _revoke,
    "off": _off,
    "on": _on,
}

# --- how it reads -----------------------------------------------------------------------------------------------------


def _show(made: Made, *, as_json: bool) -> None:
    """Print the key: this once."""
    stored = made.stored
    if as_json:
        described: dict[str, Any] = {
            "id": stored.id,
            "key": made.key,
            "clientId": stored.client_id,
            "scopes": stored.scopes,
        }
        described |= {"expiresAt": stored.expires_at, "name": stored.name}
        if stored.replaces is not None:
            described |= {"replaces": stored.replaces}
        print(msgspec.json.encode(described).decode())
        return
    whose = f"for the client {stored.client_id}" if stored.client_id is not None else "for every client"
    print(f"The key {stored.id} {whose}: {', '.join(stored.scopes)}; {_until(stored)}. It is shown this once:")
    print(made.key)


def _say(sentence: str, as_json: bool) -> None:
    """Beside a JSON object, on standard error."""
    print(sentence, file=sys.stderr if as_json else sys.stdout)


def _state(key: StoredKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "usable" if key.good_at(datetime.now(UTC)) else "expired"


def _described(key: StoredKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "clientId": key.client_id,
        "scopes": key.scopes,
        "name": key.name,
        "state": _state(key),
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
        "replaces": key.replaces,
        "limits": key.limits,
    }


def _print_table(keys: Sequence[StoredKey]) -> None:
    if not keys:
        print("There is no key.")
        return
    rows = [("ID", "STATE", "CLIENT", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LIMITS", "NAME")]
    rows += [
        (
            key.id,
            _state(key),
            key.client_id or "(every)",
            ",".join(key.scopes),
            _time(key.created_at),
            _time(key.expires_at),
            _time(key.revoked_at),
            as_written(key.limits) if key.limits else "-",
            key.name or "",
        )
        for key in keys
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _until(key: StoredKey) -> str:
    return "it does not expire" if key.expires_at is None else f"until {_time(key.expires_at)}"


def _time(at: datetime | None) -> str:
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


# --- times as people write them ---------------------------------------------------------------------------------------


def _expiry(text: str) -> datetime:
    """The time that `90d` or `2027-01-31` means: from now, or the end of that day in UTC. Raises BadParameter."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as exc:
            raise BadParameter(f"--expires: there is no day {text}.") from exc
        return day.replace(hour=23, minute=59, second=59)
    return datetime.now(UTC).replace(microsecond=0) + _duration(text, "--expires", ", or a day such as 2027-01-31")


def _duration(text: str, flag: str, more: str = "") -> timedelta:
    found = re.fullmatch(r"(\d{1,7})([mhdw])", text)
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if duration is None or duration > _LONGEST:
        raise BadParameter(f"{flag} accepts a time such as 90d, 12h, 30m or 2w{more}; not {text[:40]!r}.")
    return duration
