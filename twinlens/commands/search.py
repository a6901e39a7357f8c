"""Find the pictures of the catalogue that are most like a picture, words, or another picture of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from twinlens.client import Client
from twinlens.commands.screen import Screen
from twinlens.wire import Match


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `search`."""
    parser.add_argument(
        "picture", nargs="?", metavar="PICTURE", help="a file, an http or https address, or - for stdin"
    )
    parser.add_argument("--text", help="words, in place of a picture")
    parser.add_argument("--visual", action="store_true", help="with --text: ask the pictures alone, not names and SKUs")
    parser.add_argument("--media", metavar="ID", help="a picture of the catalogue, in place of a file")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many (24)")
    parser.add_argument("--min-similarity", type=float, metavar="PER_CENT", help="only what is at least so alike")
    parser.add_argument("--min-grade", metavar="GRADE", help="only identical, near-duplicate or similar ones")
    parser.add_argument("--filter", metavar="JSON", help='such as \'{"attributes": {"category": "shoes"}}\'')


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Search, and print the matches."""
    picture, url = given.picture, None
    if picture is not None and picture.startswith(("http://", "https://")):
        picture, url = None, given.picture
    elif picture == "-":
        picture = sys.stdin.buffer.read()
    if sum(one is not None for one in (picture, url, given.text, given.media)) != 1:
        raise ValueError("Give one thing to search with: PICTURE, --text or --media.")
    answer = client.search(
        picture,
        url=url,
        text=given.text,
        media_id=given.media,
        limit=given.limit,
        min_similarity=given.min_similarity,
        min_grade=given.min_grade,
        filter=_filter(given.filter),
        mode="visual" if given.visual else None,
    )
    if screen.as_json:
        screen.json(answer)
    elif answer.results:
        print_matches(screen, answer.results)
    else:
        screen.print("Nothing was found.")
    return 0


def print_matches(screen: Screen, matches: Iterable[Match]) -> None:
    """A table of them."""
    rows = [(f"{one.similarity:.1f} %", one.grade, one.product_id, one.product_name, one.media_id) for one in matches]
    screen.table(("similarity", "grade", "product", "name", "media"), rows)


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
