"""python -m server audit: who wrote what, from where, and what came of it."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta

from server.access.audit import KeptEntry, read
from server.database.connections import connect
from server.database.migrations import require_migrated
from server.settings import Settings

_LIMIT = 100
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HEADS = ("at", "who", "from", "client", "action", "object", "result", "request")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client", metavar="CLIENT", help="only what was done to this client's catalogue or keys")
    parser.add_argument("--key", metavar="ID", help="only what was done with this key, or to it")
    parser.add_argument(
        "--since", type=_time, metavar="WHEN", help="only later: 30m, 2h, 7d ago, or a time such as 2026-11-01T08:00"
    )
    parser.add_argument("--until", type=_time, metavar="WHEN", help="only earlier, written as --since")
    parser.add_argument("--action", metavar="TEXT", help="only actions with this in them, such as DELETE or keys")
    parser.add_argument("--limit", type=_above_0, default=_LIMIT, metavar="N", help=f"the newest so many ({_LIMIT})")
    parser.add_argument("--json", action="store_true", help="an object a line, with every column")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Print entries, the oldest first; 0. Raises DatabaseUnusable."""
    require_migrated(url)
    with connect(url) as connection:
        entries = read(
            connection,
            client_id=arguments.client,
            key_id=arguments.key,
            since=arguments.since,
            until=arguments.until,
            action=arguments.action,
            limit=arguments.limit,
        )
    if arguments.json:
        for one in entries:
            print(_as_json(one))
    elif entries:
        _print_table([_HEADS, *map(_row, entries)])
    else:
        print("Nothing of that kind is in the audit.")
    return 0


def _as_json(entry: KeptEntry) -> str:
    names = {one.name: _camel(one.name) for one in fields(KeptEntry)}
    return json.dumps({camel: getattr(entry, name) for name, camel in names.items()}, default=datetime.isoformat)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(one.title() for one in others)


def _row(entry: KeptEntry) -> tuple[str, ...]:
    who = entry.operator or (f"key {entry.key_id}" if entry.key_id else "")
    of_key = f"key {entry.key_id}" if entry.operator and entry.key_id else None
    result = " ".join(str(one) for one in (entry.status, entry.code) if one is not None)
    return (
        f"{entry.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        who,
        entry.address or "",
        entry.client_id or "",
        entry.action,
        entry.object or of_key or "",
        f"{result} x {entry.count:,}" if entry.count > 1 else result,
        entry.request_id or "",
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    # A caller may have put into an id what moves a terminal's cursor.
    plain = [["".join(one if one.isprintable() else "?" for one in cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    for row in plain:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _time(text: str) -> datetime:
    """A time ago, `2h`, or a point in time in ISO's form, in UTC where it names no zone."""
    if ago := re.fullmatch(r"([0-9]{1,5})([smhdw])", text.strip()):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a time ago, as 2h, nor a time, as 2026-11-01") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _above_0(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not int(text):
        raise argparse.ArgumentTypeError("a whole number above 0")
    return int(text)
