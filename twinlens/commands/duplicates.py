"""List where else in the catalogue a picture is, or each picture of a product."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from twinlens.client import Client
from twinlens.commands.screen import Screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `duplicates`."""
    parser.add_argument("media", nargs="*", metavar="MEDIA", help="ids of pictures of the catalogue")
    parser.add_argument("--product", metavar="ID", help="each picture of this product")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many for each (24)")


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Print them; as JSON a line for each picture that was asked for."""
    if not given.media and given.product is None:
        raise ValueError("Give the id of a picture, or --product.")
    rows = []
    for media_id in _asked(client, given):
        found = client.list_duplicates(media_id, limit=given.limit)
        if screen.as_json:
            screen.json({"mediaId": media_id, "exact": found.exact, "near": found.near, "space": found.space})
        for same, how in ((found.exact, "the same file"), (found.near or [], "nearly the same")):
            rows += [(media_id, one.media_id, how, f"{one.similarity:.1f} %", one.product_id) for one in same]
    if not screen.as_json:
        if rows:
            screen.table(("media", "also", "how", "similarity", "of product"), rows)
        else:
            screen.print("There are none.")
    return 0


def _asked(client: Client, given: argparse.Namespace) -> Iterator[str]:
    yield from given.media
    if given.product is not None:
        yield from (media.id for media in client.list_media(given.product))
