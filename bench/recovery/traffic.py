"""Searches and writes at a steady, light pace, and what became of each."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from time import perf_counter

from bench import pictures
from bench.closed_loop import request

_LONGEST = 60.0  # seconds that an answer is waited for


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what became of it; times by `perf_counter`."""

    what: str
    sent: float
    came: float
    status: str
    """The status, with the code of an error; or what broke, for one that had no answer; or `wrong`, for a picture that
    did not find itself."""

    @property
    def answered(self) -> bool:
        return self.status.startswith("2")


class Traffic:
    """Searches and writes at a steady pace, whatever became of those before them; and what was acknowledged."""

    def __init__(self, port: int, pace: float) -> None:
        """`pace`: searches a second; a product with a picture is written a quarter as often."""
        self.asked: list[Asked] = []
        self.products: set[str] = set()
        self.media: dict[str, bytes] = {}
        self._port = port
        self._pace = pace
        self._photographs = [one.data for one in pictures.photographs(16)]
        self._chance = random.Random(16)  # noqa: S311 - a draw, no secret
        self._under_way: set[asyncio.Task[object]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        began = perf_counter()
        for number in range(10**9):
            await asyncio.sleep(max(0.0, began + number / self._pace - perf_counter()))
            if number % 4 == 0:
                self._begin(self._write(number))
            if self.media:
                self._begin(self.search(self._chance.choice(list(self.media))))

    async def end(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _write(self, number: int) -> None:
        product, picture = f"recovery-{number}", self._photographs[number % 16] + number.to_bytes(4)
        named = json.dumps({"name": product}).encode()
        if not (await self._ask("write", f"/v1/products/{product}", named, "application/json", "PUT"))[0].answered:
            return
        self.products.add(product)
        sent = pictures.form(picture)
        if (await self._ask("write", f"/v1/products/{product}/media", sent, pictures.FORM_TYPE))[0].answered:
            self.media[product] = picture

    async def search(self, product: str) -> Asked:
        """Search with the product's picture, which was acknowledged: it must find the product first, at 100 %."""
        sent = pictures.form(self.media[product])
        asked, body = await self._ask("search", "/v1/search", sent, pictures.FORM_TYPE)
        if asked.answered:
            best = [(match["productId"], match["similarity"]) for match in json.loads(body)["results"][:1]]
            if best != [(product, 100.0)]:
                asked = replace(asked, status="wrong")
                self.asked.append(asked)
        return asked

    async def has(self, product: str) -> Asked:
        return (await self._ask("read", f"/v1/products/{product}", method="GET"))[0]

    async def _ask(
        self, what: str, path: str, body: bytes = b"", kind: str = "text/plain", method: str = "POST"
    ) -> tuple[Asked, bytes]:
        sent = perf_counter()
        whole = request(self._port, path, body, method=method, headers={"Content-Type": kind, "Connection": "close"})
        status, answer = "timeout", b""
        try:
            async with asyncio.timeout(_LONGEST):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(whole)
                    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
                    status = _status(head, answer)
                finally:
                    writer.close()
        except OSError as exc:  # TimeoutError is one as well
            status = status if isinstance(exc, TimeoutError) else type(exc).__name__
        asked = Asked(what, sent, perf_counter(), status)
        self.asked.append(asked)
        return asked, answer

    def _begin(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


def _status(head: bytes, body: bytes) -> str:
    """The status, and the code of an error; `cut short` where the connection ended too early."""
    try:
        status, said = head.split()[1].decode(), json.loads(body)
        return status if status < "400" else f"{status} {said['code']}"
    except (ValueError, LookupError, TypeError):
        return "cut short"
