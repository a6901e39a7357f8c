"""The memory of request bodies: all bodies that a worker holds fit into one bound, however many callers send.

A picture that is fetched because a request names its URL counts like a body.

A body that says it is small is counted as it comes. A larger one must show that it is being sent: once its first bytes
are there, it gets room for all of it or waits, with the sender held up by not being read. So nobody holds room for what
was only announced, and a body that was begun can always be finished. An eighth is kept for small bodies. Who waits for
too long is refused; and while somebody waits, a sender who hardly sends loses its room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from litestar.types import ASGIApp, Middleware, Receive, Scope, Send

from server.errors import Overloaded
from server.http.request import Request

SMALL = 1_000_000
"""Bytes: a body that declares no more is small."""

_TINY = 65_536  # bytes: a sixteenth is kept for bodies that are no larger
_FIRST = 65_536  # bytes of a large body that are read before it has room
_PATIENCE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
# Bytes a second. A sender below it could not send an ordinary picture within an ordinary deadline.
_SLOW = 50_000
_GRACE_SECONDS = 2.0

_ROOM = "room"
_BESIDE = "rooms_beside"


@dataclass(slots=True, eq=False)
class _Waiting:
    room: Room
    need: int
    turn: asyncio.Future[None]


class BodyMemory:
    """Gives room to bodies, small ones first, else in the order that they ask. Only the event loop's thread may use
    it."""

    def __init__(self, most: int, largest: int) -> None:
        """`most`: bytes of all bodies together, at least twice `largest`; `largest`: bytes of one body."""
        self._most = max(most, 2 * largest)
        self._largest = largest
        self.held = 0
        """Bytes that are held or promised at the moment."""
        self._receiving: set[Room] = set()
        self._small: deque[_Waiting] = deque()
        self._large: deque[_Waiting] = deque()

    def room(self, declared: int | None) -> Room:
        """For one request's body of so many bytes; None where nobody knows how many will come."""
        room = Room(self, self._largest if declared is None else declared)
        self._receiving.add(room)
        return room

    async def give(self, room: Room, need: int) -> None:
        """Wait until so many more bytes fit, and hold them for this room. Raises Overloaded."""
        queue = self._large if room.large else self._small
        # Of small bodies the smallest goes first: one of a few KB never waits behind many that are almost large.
        place = len(queue)
        if not room.large:
            place = next((at for at, one in enumerate(queue) if one.room.whole > room.whole), place)
        if place == 0 and self._fits(room, need):
            self._hold(room, need)
            return
        waiting = _Waiting(room, need, asyncio.get_running_loop().create_future())
        queue.insert(place, waiting)
        room.waits = True
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not waiting.turn.done():
                    if queue[0] is waiting:
                        self._hurry(waiting)
                    await asyncio.wait((waiting.turn,), timeout=_LOOK_SECONDS)
        except TimeoutError as exc:
            raise Overloaded(
                "The server holds as many bodies of other requests as it has memory for; please try again shortly."
            ) from exc
        finally:
            room.waits = False
            room.begin()
            if not waiting.turn.done():
                queue.remove(waiting)
                self._serve()

    def _bound(self, room: Room) -> int:
        if room.large:
            return self._most - self._most // 8
        return self._most if room.whole <= _TINY else self._most - self._most // 16

    def _fits(self, room: Room, need: int) -> bool:
        return self.held + need <= self._bound(room)

    def _hold(self, room: Room, need: int) -> None:
        self.held += need
        room.held += need

    def keep(self, room: Room, size: int) -> None:
        """Nothing more comes for this room, and only so many bytes are kept in it."""
        self._receiving.discard(room)
        self.held -= room.held - size
        room.held = size
        self._serve()

    def _serve(self) -> None:
        """Give room to those who have waited longest, as far as there is room."""
        for queue in (self._small, self._large):
            while queue and self._fits(queue[0].room, queue[0].need):
                served = queue.popleft()
                if not served.turn.done():  # else its caller has left
                    self._hold(served.room, served.need)
                    served.turn.set_result(None)

    def _hurry(self, waiting: _Waiting) -> None:
        """Refuse senders who are slow, the slowest first, until what they hold makes room for this one."""
        missing = self.held + waiting.need - self._bound(waiting.room)
        for room in sorted((room for room in self._receiving if room.slow), key=lambda room: room.pace):
            if missing <= 0:
                return
            missing -= room.held
            room.refuse()


class Room:
    """What one request's body holds of the memory, until `close`."""

    def __init__(self, memory: BodyMemory, whole: int) -> None:
        self.memory = memory
        self.whole = whole
        self.large = whole > SMALL
        self.held = 0
        self.received = 0
        self.waits = False
        self._refused = False
        self._limit: asyncio.Timeout | None = None
        self.begin()

    def begin(self) -> None:
        """From here on the sender's pace is measured."""
        self._since = self._latest = _now()
        self._before = self.received

    @property
    def pace(self) -> float:
        """Bytes a second; 0 where nothing has come of late."""
        now = _now()
        return 0.0 if now - self._latest > _GRACE_SECONDS else (self.received - self._before) / (now - self._since)

    @property
    def slow(self) -> bool:
        """Whether it keeps others waiting by sending hardly anything."""
        if self.waits or self._refused or not self.held:
            return False
        return _now() - self._since > _GRACE_SECONDS and self.pace < _SLOW

    def refuse(self) -> None:
        """End the wait for its next bytes: `next` raises Overloaded."""
        self._refused = True
        if self._limit is not None:
            self._limit.reschedule(_now())

    async def next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """The body's next chunk, once there is room for it; None at its end. Raises Overloaded."""
        try:
            async with asyncio.timeout(None) as self._limit:
                if self._refused:
                    raise TimeoutError
                chunk = await anext(chunks, None)
        except TimeoutError as exc:
            if not self._refused:
                raise
            raise Overloaded("The body came too slowly while others waited; please send it again.") from exc
        finally:
            self._limit = None
        if chunk is None:
            self.memory.keep(self, self.received)
            return None
        self.received += len(chunk)
        self._latest = _now()
        if self.received > self.held:
            begun = self.large and self.received > _FIRST
            await self.memory.give(self, (max(self.whole, self.received) if begun else self.received) - self.held)
        return chunk

    def close(self) -> None:
        """The body is not used any more."""
        self.memory.keep(self, 0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def within_memory(memory: BodyMemory) -> Middleware:
    """Give each request's body its room until the request is done with: the innermost of all that wraps a handler."""

    def create(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"][_ROOM] = memory.room(_declared(scope))
            try:
                await app(scope, receive, send)
            finally:
                for room in (scope["state"][_ROOM], *scope["state"].get(_BESIDE, ())):
                    room.close()

        return middleware

    return create


def room_of(request: Request) -> Room:
    """The room of a request's body."""
    room: Room = request.scope["state"][_ROOM]
    return room


def room_instead(request: Request, declared: int | None) -> Room:
    """Room for so many bytes that the request has fetched, in place of its body's room: that body is not used any more.

    As `BodyMemory.room` gives it, and until the request is done with.
    """
    room = room_of(request)
    room.close()
    instead = request.scope["state"][_ROOM] = room.memory.room(declared)
    return instead


def room_beside(request: Request, declared: int) -> Room:
    """Room for so many bytes that the request has read elsewhere, beside its body's, until the request is done with.

    It waits as every room does, for seconds at most, while the body's room stays held.
    """
    beside = room_of(request).memory.room(declared)
    request.scope["state"].setdefault(_BESIDE, []).append(beside)
    return beside


def _declared(scope: Scope) -> int | None:
    """How many bytes the body will have; None where that is not known before: in chunks, or compressed."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers or b"content-encoding" in headers:
        return None
    return int(headers.get(b"content-length", 0))
