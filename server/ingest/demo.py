"""The demo catalogue: something to search on the first day. Loaded idempotently into the client `demo`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from server.access.clients import DEFAULT_CLIENT
from server.batching.embedder import digest_of
from server.catalogue.catalogue import Catalogue
from server.errors import CatalogueConflict, ProductNotFound, StartRefused, TwinlensError
from server.ingest.librarian import Librarian

FOLDER = Path(__file__).parent / "demo_catalogue"

# Enough at once to fill batches, few enough to leave memory alone.
_AT_ONCE = 32
_PATIENCE = 300.0

_log = logging.getLogger(__name__)


class DemoProduct(msgspec.Struct, frozen=True):
    """A thing with a name and one picture, whose place is relative to the catalogue's folder."""

    id: str
    sku: str
    name: str
    picture: str

    def read(self) -> bytes:
        return (FOLDER / self.picture).read_bytes()


class _Listing(msgspec.Struct):
    products: list[DemoProduct]


def products() -> list[DemoProduct]:
    """What the demo catalogue lists."""
    return msgspec.json.decode((FOLDER / "catalogue.json").read_bytes(), type=_Listing).products


async def load(catalogue: Catalogue, librarian: Librarian) -> int:
    """Add what is missing of the demo catalogue; how many pictures that were. What a person changed stays changed.

    Raises StartRefused when it cannot be loaded; an id or SKU that somebody else uses is left out with a warning.
    """
    known = await catalogue.digests(DEFAULT_CLIENT)
    room = asyncio.Semaphore(_AT_ONCE)

    async def add(product: DemoProduct) -> bool:
        async with room:
            data = await asyncio.to_thread(product.read)
            if (product.id, await digest_of(data)) in known:
                return False
            try:
                try:
                    await catalogue.get_product(DEFAULT_CLIENT, product.id)
                except ProductNotFound:
                    await catalogue.put_product(DEFAULT_CLIENT, product.id, name=product.name, sku=product.sku)
                _, created = await librarian.add(DEFAULT_CLIENT, product.id, data, within=_PATIENCE)
            except CatalogueConflict as exc:
                _log.warning("Left %s out of the demo catalogue: %s", product.id, exc.sentence)
                return False
            return created

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(product)) for product in products()]
    except ExceptionGroup as exc:
        if (ours := exc.subgroup(TwinlensError)) is None:
            raise
        raise StartRefused(f"The demo catalogue cannot be loaded: {ours.exceptions[0]}") from exc
    added = sum(task.result() for task in tasks)
    if added:
        await catalogue.analyse()
        _log.info("Loaded the demo catalogue; pictures added: %d.", added)
    return added
