"""Whether the model still answers: readiness, and with it who gets the next request, goes by this.

Two things are noticed. A run that lasts longer than a request may take is stuck: nobody who waits for it can be
answered in time. That is seen whenever somebody asks, with no work of its own. And where a run of a single entry fails,
the model or the entry is at fault. So an entry of our own is tried, and while that fails, the model does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from server.batching.batcher import Batcher, Lanes
from server.batching.embedder import Tower
from server.batching.fair_queue import Caller, Lane
from server.errors import EncoderFailed, ModelFailing, ModelStuck, NotReady, TwinlensError

_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Pulse:
    """Looks after the batchers of a server."""

    def __init__(
        self, towers: Mapping[Tower, Batcher | Lanes], samples: Mapping[Tower, NDArray[Any]], longest: float
    ) -> None:
        """`samples`: by tower, an entry that its model has encoded before; `longest`: seconds that a run may last."""
        self._towers = towers
        self._samples = samples
        self._longest = longest
        self._failing: TwinlensError | None = None

    @property
    def trouble(self) -> TwinlensError | None:
        """What is wrong with the model at this moment: ModelStuck, ModelFailing; asks nobody."""
        if self.longest_run() > self._longest:
            return ModelStuck()
        return self._failing

    def longest_run(self) -> float:
        """Seconds since the oldest of the runs began that have not ended."""
        return max(batcher.longest_run() for batcher in self._towers.values())

    async def run(self) -> None:
        """Try what seems to fail, and log when trouble begins and when it ends, for as long as the server runs."""
        known: str | None = None
        while True:
            self._failing = await self._try_what_failed()
            trouble = self.trouble
            code = trouble.code if trouble is not None else None
            if trouble is not None and code != known:
                _log.error("This server is not ready, since it cannot embed: %s", trouble.line)
            elif known is not None and code is None:
                _log.info("The model answers again.")
            known = code
            await asyncio.sleep(_LOOK_SECONDS)

    async def _try_what_failed(self) -> TwinlensError | None:
        for tower, sample in self._samples.items():
            for lane, batcher in self._towers[tower].lanes.items():
                if batcher.failing and (found := await self._try(batcher, sample, lane)) is not None:
                    return found
        return None

    async def _try(self, batcher: Batcher, sample: NDArray[Any], lane: Lane) -> TwinlensError | None:
        try:
            async with asyncio.timeout(self._longest):
                await batcher.encode(sample, Caller(lane=lane))
        except EncoderFailed as exc:
            failing = ModelFailing()
            failing.__cause__ = exc.__cause__
            return failing
        except TimeoutError:
            return ModelStuck()
        except NotReady:  # it is closing
            return None
        return None
