"""The demo catalogue: something to search on the first day. Loaded idempotently into the client `demo`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.catalogue import Catalogue
from server.clients import DEFAULT_CLIENT
from server.errors import ProductNotFound
from server.ingest import Librarian

FOLDER = Path(__file__).parent / "demo_catalogue"

# Enough at once to fill batches, few enough to leave memory alone.
_AT_ONCE = 32
_PATIENCE = 300.0

_log = logging.getLogger(__name__)


class _Entry(msgspec.Struct):
    id: str
    sku: str
    name: str
    picture: str


class _Listing(msgspec.Struct):
    products: list[_Entry]


@dataclass(frozen=True, slots=True)
class DemoProduct:
    id: str
    sku: str
    name: str
    picture: Path


def products(folder: Path = FOLDER) -> Iterator[DemoProduct]:
    """What the demo catalogue lists, one picture each."""
    listing = msgspec.json.decode((folder / "catalogue.json").read_bytes(), type=_Listing)
    for entry in listing.products:
        yield DemoProduct(entry.id, entry.sku, entry.name, folder / entry.picture)


async def load(catalogue: Catalogue, librarian: Librarian) -> int:
    """Add what is missing of the demo catalogue; how many pictures that were. What a person changed stays changed."""
    known = await catalogue.digests(DEFAULT_CLIENT)
    room = asyncio.Semaphore(_AT_ONCE)

    async def add(product: DemoProduct) -> bool:
        async with room:
            data = await asyncio.to_thread(product.picture.read_bytes)
            if (product.id, hashlib.sha256(data).digest()) in known:
                return False
            try:
                await catalogue.get_product(DEFAULT_CLIENT, product.id)
            except ProductNotFound:
                await catalogue.put_product(DEFAULT_CLIENT, product.id, name=product.name, sku=product.sku)
            _, created = await librarian.add(DEFAULT_CLIENT, product.id, data, within=_PATIENCE)
            return created

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(add(product)) for product in products()]
    added = sum(task.result() for task in tasks)
    if added:
        _log.info("Loaded %d pictures of the demo catalogue.", added)
    return added
