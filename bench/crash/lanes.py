"""Those who carry out the operations, and hold each answer against the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

from bench import pictures
from bench.crash.checks import LATE, LOST, SERVER_ERROR, WRONG
from bench.crash.database import Connection
from bench.crash.feeder import Feeder
from bench.crash.model import Entry
from bench.crash.operations import Operation, product_id
from bench.crash.reads import read
from bench.crash.settling import settle
from bench.crash.talk import UNKNOWN, Answer, ask
from bench.crash.world import SLACK, World

# An operation ends here whatever the server does; what is refused at once must not make the clients race.
_AFTER_REFUSAL = 0.2


async def _pause(operation: Operation) -> None:
    await asyncio.sleep(operation.pause)


class Lane:
    """One caller of a client: its operations follow one another."""

    def __init__(
        self,
        world: World,
        operations: Iterator[Operation],
        url: str,
        wait: Callable[[Operation], Awaitable[None]] = _pause,
        feeder: Feeder | None = None,
    ) -> None:
        """`url`: of the database, with the rights of its owner. `wait`: what is awaited before each operation.
        `feeder`: brings the lane's feeds in; without one they are left out."""
        self._world = world
        self._wait = wait
        self._operations = operations
        self._feeder = feeder
        self._database = Connection(url)

    async def run(self) -> None:
        """Until the world ends."""
        try:
            for operation in self._operations:
                if self._world.ended:
                    return
                await self._wait(operation)
                await self._one(operation)
        finally:
            await self._database.close()

    async def _one(self, operation: Operation) -> None:
        if operation.feed is not None:
            if self._feeder is not None:
                await self._feeder.bring(operation, operation.feed, self._database)
            return
        if not operation.writes:
            answer = await read(self._world, operation)
            self._judge(operation, answer)
        else:
            catalogue = self._world.catalogues[operation.client]
            entry = catalogue.entries[operation.product]
            if entry.unsure_since is not None and not await self._settle(operation, entry):
                return
            answer = await self._write(operation, self._deletes(operation, entry))
        if answer.status == 503 or answer.status == 0:
            await asyncio.sleep(_AFTER_REFUSAL)

    def _deletes(self, operation: Operation, entry: Entry) -> str | None:
        """The picture that the operation deletes: what is in its place, or was the last that was deleted from there."""
        if operation.kind != "delete picture":
            return None
        state = entry.state
        held = state.media[operation.slot] if state is not None else None
        return held or entry.deleted.get(operation.slot) or f"never-there-{operation.number}"

    async def _settle(self, operation: Operation, entry: Entry) -> bool:
        """See how a write ended of which that is not known; whether the product may be written to again.

        Before that can be seen for certain, the same write may be sent again, as callers are told to do.
        """
        world = self._world
        if entry.unsure_since is not None and not world.surely_over(entry.unsure_since):
            if entry.pending is None:
                world.tally.skipped += 1
                return False
            again, deletes = entry.pending
            world.tally.repeated += 1
            await self._write(again, deletes)
            return False
        seen = await settle(self._database, world, operation.client, operation.product)
        if not seen:
            world.tally.skipped += 1
        return seen

    async def _write(self, operation: Operation, deletes: str | None) -> Answer:
        world, client = self._world, operation.client
        catalogue = world.catalogues[client]
        entry = catalogue.entries[operation.product]
        before = catalogue.begin(operation, deletes)
        answer = await self._send(operation, deletes)
        self._judge(operation, answer)
        label = answer.label
        told = None
        if operation.kind == "add picture" and label in ("200", "201"):
            told = str(answer.json["id"])
        if label in UNKNOWN or (answer.status >= 500 and answer.status != 503):
            world.tally.unknown += label in UNKNOWN
            entry.unsure_since, entry.pending = perf_counter(), (operation, deletes)
        elif answer.status == 503 or label == "not sent" or self._may_conflict(entry, label):
            catalogue.set(operation.product, before)  # the server says that nothing was written
        elif catalogue.end(operation, before, label, deletes=deletes, told=told):
            world.tally.acknowledged += label[:3] in ("200", "201", "1 r")
            entry.pending = None
            if told is not None and world.changing_space:
                catalogue.late.add(told)
        else:
            said = f"{label} to {operation.kind} of product {operation.product} of {client}, known as {set(before)}"
            world.fault(LOST if label.startswith(("404", "0 rows")) or told else WRONG, said)
            entry.unsure_since, entry.pending, entry.doubted = perf_counter(), None, True
        return answer

    def _may_conflict(self, entry: Entry, label: str) -> bool:
        """Whether the same write, sent before, may be under way beside this one."""
        return label == "409 conflict" and entry.unsure_since is not None

    async def _send(self, operation: Operation, deletes: str | None) -> Answer:
        port, client, id_ = self._world.port, operation.client, product_id(operation.product)
        if operation.kind == "switch by SQL":
            began = perf_counter()
            return Answer(await self._database.switch(operation), b"", perf_counter() - began)
        if operation.kind == "put product":
            body = {
                "clientId": client,
                "name": operation.name,
                "sku": f"sku-{operation.product}",
                "isActive": operation.active,
                "attributes": {"category": operation.category, "price": operation.price},
            }
            return await ask(port, "PUT", f"/v1/products/{id_}", json.dumps(body).encode())
        if operation.kind == "delete product":
            return await ask(port, "DELETE", f"/v1/products/{id_}?clientId={client}")
        if operation.kind == "delete picture":
            return await ask(port, "DELETE", f"/v1/media/{deletes}?clientId={client}")
        form = pictures.form(self._world.picture(operation.product, operation.slot), {"clientId": client})
        return await ask(port, "POST", f"/v1/products/{id_}/media", form, pictures.FORM_TYPE)

    def _judge(self, operation: Operation, answer: Answer) -> None:
        """What holds for every answer."""
        world = self._world
        world.count(operation, answer)
        if answer.status >= 500 and answer.status != 503:
            world.fault(SERVER_ERROR, f"{answer.label} to {operation.kind}: {answer.sentence}")
        if answer.seconds > world.deadline + SLACK and operation.kind != "switch by SQL":
            world.fault(LATE, f"{answer.label} to {operation.kind} after {answer.seconds:.1f} s")
