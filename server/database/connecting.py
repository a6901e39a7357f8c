"""psycopg's `connect` with asyncio, such that nothing of it remains where it is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from psycopg import AsyncConnection

Made = TypeVar("Made", bound=AsyncConnection[Any])


async def connected(kind: type[Made], **parameters: Any) -> Made:
    """A new connection of this kind. Raises psycopg's errors.

    Cancelled, psycopg leaves what it has begun to the garbage collector, and the exception's traceback holds it. So it
    stayed open, idle, for as long as anybody kept the exception: a task, or a record of the log.
    """
    try:
        return await kind.connect(**parameters)
    except asyncio.CancelledError as exc:
        exc.__traceback__ = None
        raise
