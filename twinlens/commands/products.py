"""List the products of the catalogue, or the pictures of one product."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from twinlens.client import Client
from twinlens.commands.screen import Screen

_AT_FIRST = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `list`."""
    parser.add_argument("--media", metavar="PRODUCT", help="the pictures of this product, in place of products")
    parser.add_argument("--sku", help="only the product that has it")
    parser.add_argument("--active", action=argparse.BooleanOptionalAction, help="only those that searches find, or not")
    parser.add_argument("--attributes", metavar="JSON", help='only those with these, such as \'{"category": "shoes"}\'')
    parser.add_argument(
        "--updated-since", metavar="TIME", help="only those changed since, such as 2026-01-31T06:00:00Z, by that time"
    )
    parser.add_argument(
        "--limit", type=int, default=_AT_FIRST, metavar="N", help=f"at most so many; 0: all ({_AT_FIRST})"
    )


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Print them, as JSON one a line."""
    if given.limit < 0:
        raise ValueError("--limit must be 0 or more.")
    found = _found(client, given)
    shown: Iterator[Any] = islice(found, given.limit) if given.limit else found
    if screen.as_json:
        for one in shown:
            screen.json(one)
    elif given.media is not None:
        media = [(one.id, one.content_type, _size(one), one.bytes, one.status, one.created_at) for one in shown]
        screen.table(("media", "type", "size", "bytes", "status", "added"), media)
    else:
        products = [(one.id, one.name, one.sku, one.is_active, one.updated_at) for one in shown]
        screen.table(("product", "name", "sku", "active", "changed"), products)
    if given.limit and next(found, None) is not None:
        screen.say(f"There are more than {given.limit:,}; --limit 0 lists all.")
    return 0


def _found(client: Client, given: argparse.Namespace) -> Iterator[Any]:
    if given.media is not None:
        if (given.sku, given.active, given.attributes, given.updated_since) != (None, None, None, None):
            raise ValueError("--media lists all pictures of one product, and goes with no other choice.")
        return client.list_media(given.media)
    return client.list_products(
        updated_since=_time(given.updated_since),
        is_active=given.active,
        sku=given.sku,
        attributes=_object(given.attributes),
        page_size=min(given.limit, 1000) or 1000,
    )


def _size(media: Any) -> str:
    return f"{media.width} x {media.height}" if media.width else ""


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"--updated-since must be a time with its zone, such as 2026-01-31T06:00:00Z, not {text!r}.")
    return time


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        read: dict[str, Any] = msgspec.convert(json.loads(text), dict[str, Any])
    except (ValueError, msgspec.ValidationError) as exc:
        raise ValueError(f"--attributes must be a JSON object: {exc}.") from exc
    return read
