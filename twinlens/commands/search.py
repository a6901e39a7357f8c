"""Find the pictures of the catalogue that are most like a picture, words, or another picture of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from twinlens.client import Client
from twinlens.commands.screen import Screen
from twinlens.query import Part
from twinlens.wire import Match


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `search`."""
    parser.add_argument(
        "picture", nargs="?", metavar="PICTURE", help="a file, an http or https address, or - for stdin"
    )
    parser.add_argument("--text", help="words, in place of a picture")
    parser.add_argument("--visual", action="store_true", help="with --text: ask the pictures alone, not names and SKUs")
    parser.add_argument("--media", metavar="ID", help="a picture of the catalogue, in place of a file")
    parser.add_argument(
        "--query",
        metavar="JSON",
        help='several of these at once: \'[{"file": "shoe.jpg"}, {"text": "in red", "weight": 2}]\', or mediaId',
    )
    parser.add_argument("--crop", metavar="L,T,R,B", help="only this part of the picture, such as 0.1,0.2,0.5,0.9")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many (24)")
    parser.add_argument("--min-similarity", type=float, metavar="PER_CENT", help="only what is at least so alike")
    parser.add_argument("--min-grade", metavar="GRADE", help="only identical, near-duplicate or similar ones")
    parser.add_argument("--filter", metavar="JSON", help='such as \'{"attributes": {"category": "shoes"}}\'')
    parser.add_argument(
        "--fields",
        metavar="NAMES",
        help="what is shown of products besides, such as sku,url,isActive,attributes.price; attributes: all of them",
    )


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Search, and print the matches."""
    if sum(one is not None for one in (given.picture, given.text, given.media, given.query)) != 1:
        raise ValueError("Give one thing to search with: PICTURE, --text, --media or --query.")
    picture, url = (None, None) if given.picture is None else _picture(given.picture)
    fields = [name.strip() for name in given.fields.split(",")] if given.fields is not None else None
    answer = client.search(
        picture,
        url=url,
        text=given.text,
        media_id=given.media,
        query=_query(given.query),
        crop=_crop(given.crop),
        limit=given.limit,
        min_similarity=given.min_similarity,
        min_grade=given.min_grade,
        filter=_filter(given.filter),
        mode="visual" if given.visual else None,
        fields=fields,
    )
    if screen.as_json:
        screen.json(answer)
    elif answer.results:
        print_matches(screen, answer.results, fields or ())
    else:
        screen.print("Nothing was found.")
    return 0


def print_matches(screen: Screen, matches: Iterable[Match], fields: Sequence[str] = ()) -> None:
    """A table of them, with a column for each of the fields that the search named."""
    rows = [
        (
            *(f"{one.similarity:.1f} %", one.grade, one.product_id, one.product_name, one.media_id),
            *(_shown(one, field) for field in fields),
        )
        for one in matches
    ]
    titles = [field.removeprefix("attributes.") for field in fields]
    screen.table(("similarity", "grade", "product", "name", "media", *titles), rows)


def _shown(match: Match, field: str) -> object:
    """What the match has in this field, as a cell of the table."""
    if not field.startswith("attributes"):
        return {"sku": match.sku, "url": match.url, "isActive": match.is_active}.get(field)
    attributes = match.attributes or {}
    value = attributes if field == "attributes" else attributes.get(field.removeprefix("attributes."))
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


def _picture(named: str) -> tuple[str | bytes | None, str | None]:
    """What `search` takes as `picture`, and what as `url`."""
    if named.startswith(("http://", "https://")):
        return None, named
    return (sys.stdin.buffer.read() if named == "-" else named), None


class _Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """As the API has a part, but for `file`: it names a file, or an address."""

    file: str | None = None
    text: str | None = None
    media_id: str | None = None
    embedding: list[float] | None = None
    space: str | None = None
    crop: list[float] | None = None
    weight: float = 1.0


def _query(text: str | None) -> list[Part] | None:
    if text is None:
        return None
    try:
        read = msgspec.json.decode(text, type=list[_Part])
    except msgspec.MsgspecError as exc:
        raise ValueError(f"--query must be a JSON list of parts, and cannot be read: {exc}.") from exc
    parts = []
    for one in read:
        picture, url = (None, None) if one.file is None else _picture(one.file)
        more = {name: getattr(one, name) for name in ("text", "media_id", "embedding", "space", "crop", "weight")}
        parts.append(Part(picture=picture, url=url, **more))
    return parts


def _crop(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise ValueError("--crop must be four numbers: left,top,right,bottom, such as 0.1,0.2,0.5,0.9.") from None
    return [left, top, right, bottom]


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        read = json.loads(text)
    except ValueError as exc:
        raise ValueError(f"--filter must be JSON, and cannot be read: {exc}.") from exc
    if not isinstance(read, dict):
        raise ValueError("--filter must be a JSON object.")  # noqa: TRY004  # of what somebody typed
    return read
