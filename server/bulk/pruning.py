"""What has left a feed: products and pictures that the feed brought once, and that it no longer has.

A feed takes out only what it made itself. A picture goes with its vector and its bytes. A product goes when it has no
picture left: one to which somebody else has added a picture, or that another feed has as well, stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from server.errors import IngestRefused
from server.ingest.feed_writer import Brought, FeedWriter
from server.ingest.spool import Spool
from server.wording import counted

LetGo = Callable[[Sequence[str]], Awaitable[None]]
"""Sees to objects that no row names any more."""


@dataclass(slots=True)
class Gone:
    """How much the feed made, and how much of it has left the feed."""

    products: int = 0
    pictures: int = 0
    products_gone: int = 0
    pictures_gone: int = 0

    @property
    def share(self) -> float:
        """The larger of the two shares that would go, of products and of pictures; 0 to 1."""
        products = self.products_gone / self.products if self.products else 0.0
        return max(products, self.pictures_gone / self.pictures if self.pictures else 0.0)


async def look(writer: FeedWriter, spool: Spool) -> Gone:
    """How much would go; changes nothing."""
    gone = Gone()
    async for page in writer.brought():
        left = set(await asyncio.to_thread(_left, page, spool))
        for one in page:
            if one.made and one.place:
                gone.pictures += 1
                gone.pictures_gone += one in left
            elif one.made:
                gone.products += 1
                gone.products_gone += one in left
    return gone


def require(gone: Gone, at_most: float) -> None:
    """Raises IngestRefused where a larger share would go than this one, 0 to 1."""
    if gone.share > at_most:
        raise IngestRefused(
            f"The feed no longer has {gone.products_gone:,} of the {counted(gone.products, 'product')} and "
            f"{gone.pictures_gone:,} of the {counted(gone.pictures, 'picture')} that it brought, which is more than "
            f"{at_most:.0%}: most likely it is not whole, so nothing was written. Where it is right all the same, "
            "run this again with a larger --prune-at-most, such as 100%."
        )


async def prune(writer: FeedWriter, spool: Spool, let_go: LetGo) -> tuple[int, int]:
    """Take out what has left the feed; how many products and pictures went."""
    async for page in writer.brought():
        if pictures := [one for one in await asyncio.to_thread(_left, page, spool) if one.place]:
            await writer.leave(pictures)
    removed = await clear(writer, let_go)
    products = 0
    async for page in writer.brought():
        gone = [one for one in await asyncio.to_thread(_left, page, spool) if not one.place]
        for client_id, many in groupby(gone, key=attrgetter("client_id")):
            products += await writer.remove_products(client_id, list(many))
    return products, removed


async def clear(writer: FeedWriter, let_go: LetGo) -> int:
    """Remove the pictures that rows of the feed made, and that no row names any more; how many."""
    removed, before = 0, -1
    while removed != before and (left := await writer.left()):
        before = removed
        for client_id, many in groupby(sorted(left, key=attrgetter("client_id")), key=attrgetter("client_id")):
            count, keys = await writer.remove_media(client_id, [one.key for one in many])
            await let_go(keys)
            removed += count
    return removed


def _left(page: Sequence[Brought], spool: Spool) -> list[Brought]:
    """Those that the feed no longer has."""
    left = []
    for (client_id, product_id), many in groupby(page, key=attrgetter("client_id", "id")):
        pictures = spool.pictures(client_id, product_id)
        left += [one for one in many if pictures is None or one.place > pictures]
    return left
