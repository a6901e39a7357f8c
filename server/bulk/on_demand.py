"""A model that is opened when the first picture needs it, and not at all where none does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Self

from server.batching.embedder import Embedded, Embedder
from server.batching.fair_queue import Caller
from server.engine import Engine


class OnDemand:
    """Embeds pictures with an engine that the first of them opens."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Engine]]) -> None:
        """`opened`: gives the engine, to be entered once at most."""
        self._opened = opened
        self._stack = contextlib.AsyncExitStack()
        self._opening: asyncio.Task[Embedder] | None = None
        self.seconds = 0.0
        """That opening took."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opening is not None:
            # A task of its own, so that nobody who leaves ends it in the middle: it is waited for here at the latest.
            await asyncio.wait([self._opening])
        await self._stack.aclose()

    async def embed(self, data: bytes, *, within: float, thumbnail: bool, caller: Caller, digest: bytes) -> Embedded:
        """As `Embedder.embed`, whose seconds count once the engine is open. Raises also what opening raises."""
        embedder = await self._embedder()
        return await embedder.embed(data, within=within, thumbnail=thumbnail, caller=caller, digest=digest)

    async def _embedder(self) -> Embedder:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.wait([self._opening])
        return self._opening.result()

    async def _open(self) -> Embedder:
        began = time.monotonic()
        engine = await self._stack.enter_async_context(self._opened())
        self.seconds = time.monotonic() - began
        return engine.embedder
