"""The demo catalogue: something to search on the first day. Loading it again into the client `demo` changes nothing.

Its products have attributes, for filters to be tried on: a `category`, a `colour` or a list of several, a made-up
`price`, and `tags`. They have no `url`, since there is no page of theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from server.access.clients import DEFAULT_CLIENT
from server.batching.embedder import digest_of
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Expected, ProductPatch
from server.errors import (
    CatalogueConflict,
    PreconditionFailed,
    ProductNotFound,
    StartRefused,
    TwinlensError,
    first_of_ours,
)
from server.ingest.librarian import Librarian

FOLDER = Path(__file__).parent / "demo_catalogue"

# Enough at once to fill batches, and few enough to need little memory.
_AT_ONCE = 32
_PATIENCE = 300.0  # seconds for one picture

_log = logging.getLogger(__name__)


class DemoProduct(msgspec.Struct, frozen=True):
    """A product with one picture, whose path is relative to the folder of the demo catalogue."""

    id: str
    sku: str
    name: str
    picture: str
    attributes: Mapping[str, Any]

    def read(self) -> bytes:
        return (FOLDER / self.picture).read_bytes()


class _Listing(msgspec.Struct):
    products: list[DemoProduct]


def products() -> list[DemoProduct]:
    """What the demo catalogue lists."""
    return msgspec.json.decode((FOLDER / "catalogue.json").read_bytes(), type=_Listing).products


async def load(catalogue: Catalogue, librarian: Librarian) -> int:
    """Add the missing pictures of the demo catalogue; gives how many. Products that somebody changed stay as they are;
    those that an earlier version has loaded, and nobody has changed since, get their attributes.

    A product whose SKU another one has is left out with a warning. Raises StartRefused when the catalogue cannot be
    loaded.
    """
    listed = products()
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
                    await catalogue.put_product(
                        DEFAULT_CLIENT,
                        product.id,
                        name=product.name,
                        sku=product.sku,
                        attributes=product.attributes,
                    )
                _, created = await librarian.add(DEFAULT_CLIENT, product.id, data, within=_PATIENCE)
            except CatalogueConflict as exc:
                _log.warning("Left %s out of the demo catalogue: %s", product.id, exc.sentence)
                return False
            return created

    try:
        await _describe(catalogue, listed)
        with first_of_ours():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(add(product)) for product in listed]
    except TwinlensError as exc:
        raise StartRefused(f"The demo catalogue cannot be loaded: {exc}") from exc
    added = sum(task.result() for task in tasks)
    if added:
        await catalogue.analyse()
        _log.info("Loaded the demo catalogue; pictures added: %d.", added)
    return added


async def _describe(catalogue: Catalogue, listed: Sequence[DemoProduct]) -> None:
    """Give the attributes to products that were loaded when the demo catalogue had none."""
    named = {product.id: product for product in listed}
    for there in await catalogue.products_as_made(DEFAULT_CLIENT, list(named)):
        ours = named[there.id]
        if (there.name, there.sku, there.is_active) != (ours.name, ours.sku, True):
            continue
        try:
            await catalogue.patch_product(
                DEFAULT_CLIENT,
                there.id,
                ProductPatch(attributes=ours.attributes),
                expected=Expected(versions=(there.updated_at,)),
            )
        except (PreconditionFailed, ProductNotFound):  # somebody was quicker
            continue
