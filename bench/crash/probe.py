"""Whether the server answers again: a search and a write of a client that nobody else uses."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter

from bench import pictures
from bench.crash.checks import AWAY, NOT_FIRST
from bench.crash.operations import PRODUCTS, SLOTS
from bench.crash.talk import ask
from bench.crash.world import World

CLIENT = "probe"
LONGEST = 90.0
"""Seconds after which a server that does not answer counts as one that never will."""
_PAUSE = 0.05


class Probe:
    """Asks until it is answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        picture = pictures.demo()[PRODUCTS * SLOTS].data
        self._form = pictures.form(picture, {"clientId": CLIENT})
        self._put = json.dumps({"clientId": CLIENT, "name": "probe"}).encode()

    async def prepare(self) -> None:
        """Make the one product. Raises RuntimeError."""
        put = await ask(self._world.port, "PUT", "/v1/products/probe", self._put)
        added = await ask(self._world.port, "POST", "/v1/products/probe/media", self._form, pictures.FORM_TYPE)
        if put.status != 201 or added.status != 201:
            raise RuntimeError(f"the server took no product: {put.label} {put.sentence} {added.label} {added.sentence}")

    async def again(self) -> float:
        """Seconds until both were answered well; infinite where they never were."""
        began = perf_counter()
        while (seconds := perf_counter() - began) < LONGEST:
            if await self._searched() and await self._written():
                return perf_counter() - began
            await asyncio.sleep(_PAUSE)
        self._world.fault(AWAY, f"not within {seconds:.0f} s")
        return float("inf")

    async def _written(self) -> bool:
        return (await ask(self._world.port, "PUT", "/v1/products/probe", self._put)).status in (200, 201)

    async def _searched(self) -> bool:
        answer = await ask(self._world.port, "POST", "/v1/search", self._form, pictures.FORM_TYPE)
        if answer.status != 200:
            return False
        found = [(match["productId"], match["similarity"]) for match in answer.json["results"]]
        if found != [("probe", 100.0)]:
            self._world.fault(NOT_FIRST, f"the only picture of the client {CLIENT} found {found}")
        return True
