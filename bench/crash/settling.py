"""How a write has ended of which nobody was told: the database says it, once nothing more may come."""

from __future__ import annotations

from bench.crash.checks import LOST
from bench.crash.database import Connection, states
from bench.crash.model import UNKNOWN_ID
from bench.crash.world import World


async def settle(database: Connection, world: World, client: str, product: int) -> bool:
    """Read how a write of a product has ended; whether that could be read. What may still come must be over."""
    catalogue = world.catalogues[client]
    entry = catalogue.entries[product]
    found = await states(database, world, client)
    if found is None:
        return False
    there = found[0][product]
    matching = {state for state in entry.possible if _agrees(state, there)}
    if not matching and not entry.doubted:
        world.fault(LOST, f"product {product} of {client} is {there}, and should be one of {set(entry.possible)}")
    world.tally.settled += 1
    if world.changing_space and there is not None:
        catalogue.late |= {one for one in there.media if one is not None and one not in catalogue.media}
    catalogue.set(product, [there])
    entry.unsure_since, entry.pending, entry.doubted = None, None, False
    return True


def _agrees(state: object, there: object) -> bool:
    """Whether this state is what was found, where the ids of some pictures were never told."""
    if state is None or there is None:
        return state is there
    one, other = state, there
    same = (one.name, one.active, one.category, one.price) == (other.name, other.active, other.category, other.price)  # type: ignore[attr-defined]
    pairs = zip(one.media, other.media, strict=True)  # type: ignore[attr-defined]
    return same and all(a == b or (a == UNKNOWN_ID and b is not None) for a, b in pairs)
