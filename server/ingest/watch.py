"""Whether the store is there, looked at again and again, so that nobody who asks has to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from server.errors import StorageFailed, StoreUnavailable
from server.ingest.storage import MediaStore

_AGAIN_SECONDS = 1.0
# A store in the network may be slow once.
_FAILURES_THAT_COUNT = 2

_log = logging.getLogger(__name__)


async def watch(store: MediaStore, each: float) -> None:
    """Keep `store.trouble` up to date, and log when it begins and when it ends, for as long as the server runs.

    `each`: seconds between two looks, and the most that one may take. A network drive that hangs holds one look, and no
    other one is begun meanwhile.
    """
    failures, look = 0, None
    try:
        while True:
            if look is None:
                look = asyncio.create_task(store.look())
            trouble: StorageFailed | None = None
            if not (await asyncio.wait({look}, timeout=each))[0]:
                trouble = StoreUnavailable(reason=f"{store.where} has not answered in {each:.0f} seconds")
            else:
                trouble, look = await _failure(look), None
            failures = failures + 1 if trouble else 0
            if trouble is None and store.trouble is not None:
                _log.info("The store of pictures is back: %s.", store.where)
                store.trouble = None
            elif trouble is not None and failures >= _FAILURES_THAT_COUNT:
                if store.trouble is None:
                    _log.error("The store of pictures is away, and uploads are refused: %s", trouble.reason)
                store.trouble = trouble
            if look is None:
                await asyncio.sleep(min(each, _AGAIN_SECONDS) if failures else each)
    finally:
        if look is not None:
            look.cancel()
            with contextlib.suppress(asyncio.CancelledError, StorageFailed):
                await look


async def _failure(look: asyncio.Task[None]) -> StorageFailed | None:
    try:
        await look
    except StorageFailed as exc:
        return exc
    except Exception as exc:
        _log.exception("The store of pictures could not be looked at.")
        return StoreUnavailable(reason=str(exc))
    return None
