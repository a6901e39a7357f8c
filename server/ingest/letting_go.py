"""Objects that no row names any more leave the store, or stay until they are swept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from server.errors import BytesRemain, CatalogueUnavailable
from server.ingest.storage import MediaStore

# Of the objects of a batch, which may be thousands.
_DELETED_AT_ONCE = 200

_log = logging.getLogger(__name__)


class LettingGo:
    """Deletes the objects of rows that are removed."""

    def __init__(
        self,
        store: MediaStore,
        on_remain: Callable[[Sequence[str]], None] = lambda _: None,
        *,
        own: bool = True,
        backup_runs: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`on_remain` is called with the keys of objects that no row names, and that could not be deleted. `own`:
        whether the store is this database's own; where it is that of which this one is a copy, its pictures stay.
        `backup_runs`: whether they stay for now, since a backup may still have to fetch them."""
        self._store = store
        self._on_remain = on_remain
        self._own = own
        self._backup_runs = backup_runs

    async def let_go(self, *keys: str | None) -> None:
        """See to the objects whose rows have just been removed, and that is committed."""
        if not self._own:
            return
        try:
            stay = self._backup_runs is not None and await self._backup_runs()
        except CatalogueUnavailable:
            stay = True  # nobody knows
        if stay:
            self._on_remain([key for key in keys if key])
        else:
            await self.discard(*keys)

    async def discard(self, *keys: str | None, quiet: bool = False) -> None:
        """Delete objects that no row names, whatever runs; what remains is left to those who sweep the store."""
        named = [key for key in keys if key]
        for start in range(0, len(named), _DELETED_AT_ONCE):
            try:
                await self._store.delete(*named[start : start + _DELETED_AT_ONCE])
            except BytesRemain as exc:
                self._on_remain(exc.keys)
                if not quiet:
                    _log.warning("No row names these bytes any more, and they are deleted later: %s", exc.line)
