"""The end of a run: all that the model knows is looked up, in the database and through the API, and nothing else."""

from __future__ import annotations

import asyncio

from bench import pictures
from bench.crash.checks import FOREIGN, LOST, REMOVED, TRACEBACK, WRONG
from bench.crash.database import Connection, states
from bench.crash.keeper import Keeper
from bench.crash.operations import SLOTS, Filter, Operation
from bench.crash.reads import read
from bench.crash.settling import settle
from bench.crash.waiting import until
from bench.crash.world import World

_PATIENCE = 120.0
_LIMIT = 100

_FOREIGN = """
SELECT count(*) FROM media m JOIN products p ON p.id = m."productId" WHERE m."clientId" <> p."clientId"
"""
_VECTORS = """
SELECT count(*) FILTER (WHERE v."clientId" <> m."clientId"),
    count(*) FILTER (WHERE v.active <> (p."isActive" AND m.status = 'ready' AND m.kind = 'image')),
    (SELECT count(*) FROM media) - count(*)
FROM twinlens_space_{number} v JOIN media m ON m.id = v."mediaId" JOIN products p ON p.id = m."productId"
"""


async def audit(keeper: Keeper, world: World) -> int:
    """Look everything up; how many things were. Nothing may be broken any more, nor be under way."""
    database = Connection(keeper.url)
    try:
        await until(lambda: world.surely_over(world.began), _PATIENCE, "the run did not come to rest")
        looked = await look_up(database, world)
        await _between_clients(database, world)
    finally:
        await database.close()
    await _by_commands(keeper, world)
    if traces := keeper.said().count("Traceback (most recent call last)"):
        world.fault(TRACEBACK, f"{traces}")
        world.tally.kinds[TRACEBACK] += traces - 1
    return looked


async def look_up(database: Connection, world: World) -> int:
    """Compare all that the clients have with the model; how many things were looked at."""
    looked = 0
    for client, catalogue in world.catalogues.items():
        for product, entry in enumerate(catalogue.entries):
            if entry.unsure_since is not None:
                await _settle(database, world, client, product)
        looked += await _in_database(database, world, client)
        looked += await _through_api(world, client)
    return looked


async def _settle(database: Connection, world: World, client: str, product: int) -> None:
    await until(lambda: settle(database, world, client, product), _PATIENCE, "the database could not be read")


async def _in_database(database: Connection, world: World, client: str) -> int:
    found = await states(database, world, client)
    if found is None:
        raise RuntimeError("the database cannot be read at the end")
    there, odd = found
    for one in odd:
        world.fault(REMOVED, f"{one} of {client} is there, and nobody put it there")
    looked = 0
    for product, entry in enumerate(world.catalogues[client].entries):
        known, is_ = entry.state, there[product]
        looked += 1 + (sum(one is not None for one in known.media) if known is not None else 0)
        if known == is_:
            continue
        lacks = is_ is None or (known is not None and set(known.media) - set(is_.media) - {None})
        kind = LOST if known is not None and (lacks or set(known.media) == set(is_.media if is_ else ())) else REMOVED
        world.fault(kind, f"product {product} of {client} is {is_} at the end, and should be {known}")
    return looked


async def _through_api(world: World, client: str) -> int:
    """Each product is read, each picture fetched and searched with, by its file, other bytes of it, and its id."""
    number, looked = 10**9, 0
    for product, entry in enumerate(world.catalogues[client].entries):
        held = entry.state.media if entry.state is not None else (None,) * SLOTS
        for slot in range(SLOTS):
            kinds = ["get product"] if slot == 0 else []
            kinds += ["get picture", "get file", "get thumbnail", "search by picture", "search by media"]
            for kind in kinds if held[slot] is not None else kinds[: slot == 0]:
                for exact in (True, False) if kind == "search by picture" else (True,):
                    number += 1
                    asked = Operation(
                        number % 2**31, kind, client, product, slot, True, "", 0, _LIMIT, Filter(), exact, 0.0
                    )
                    answer = await read(world, asked)
                    looked += 1
                    if answer.status != 200 and not (kind == "get product" and entry.state is None):
                        world.fault(LOST, f"{answer.label} to {kind} of product {product} of {client} at the end")
    return looked


async def _between_clients(database: Connection, world: World) -> None:
    live = await database.ask("SELECT number FROM twinlens_spaces WHERE live")
    rows = await database.ask(_FOREIGN)
    vectors = await database.ask(_VECTORS.format(number=live[0][0])) if live else None
    if not rows or not vectors:
        raise RuntimeError("the database cannot be read at the end")
    foreign, odd, without = vectors[0]
    if rows[0][0] or foreign:
        world.fault(FOREIGN, f"{rows[0][0]} pictures and {foreign} vectors belong to another client than their product")
    if odd:
        world.fault(WRONG, f"{odd} vectors are active where their product is not, or the other way round")
    if without:
        world.fault(WRONG, f"{without} pictures have no vector in the live space")


async def _by_commands(keeper: Keeper, world: World) -> None:
    """What an operator would ask: nothing is wrong with the database, and the store is its own."""
    for command in ("doctor", "store"):
        process = await asyncio.create_subprocess_exec(
            *keeper.command(command),
            cwd=pictures.ROOT,
            env=keeper.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            world.fault(WRONG, f"{command} ended with {process.returncode}: {said.decode(errors='replace')[-800:]}")
