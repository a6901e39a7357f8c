"""A picture that a request names by URL, in place of sending it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter

from server.http.account import account_of
from server.http.memory import room_instead
from server.http.request import Call, Request
from server.http.timing import note
from server.ingest.fetch import Passage
from server.lifespan import Services

# Of the time that is left: the picture is embedded and stored after it.
_SHARE = 2 / 3


async def fetched(request: Request, services: Services, call: Call, url: str) -> bytes:
    """The picture at a URL, in good time before the request's deadline. The request's body must have been read.

    It counts as a picture of this caller's, its bytes as bytes of the body, and they have room in the memory of bodies
    until the request is done with. Raises UrlRefused, FetchFailed, UploadTooLarge, Overloaded, RateLimited.
    """
    if (account := account_of(request.scope)) is not None:
        await account.take_pictures(1)
    began = perf_counter()
    found = await services.fetcher.fetch(url, within=call.left * _SHARE, through=_counted(request))
    note(request.scope, {"fetch": perf_counter() - began})
    return found.data


def _counted(request: Request) -> Passage:
    async def through(pieces: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[bytes]:
        room, account = room_instead(request, declared), account_of(request.scope)
        while (piece := await room.next(pieces)) is not None:
            if account is not None:
                account.receive(len(piece))
            yield piece

    return through
