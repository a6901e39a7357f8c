"""The picture of a request: sent in a form, or named by its URL in JSON, and fetched then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import TypeVar

import msgspec

from server.errors import UnsupportedBody
from server.http.account import account_of
from server.http.bodies import JSON, MULTIPART, content_type, read_form, read_json
from server.http.memory import room_instead
from server.http.request import Call, Request
from server.http.timing import note
from server.http.wire import MediaByUrl
from server.ingest.fetch import Passage
from server.lifespan import Services

Sent = TypeVar("Sent", bound=msgspec.Struct)
Named = TypeVar("Named", bound=MediaByUrl)

# Of the time that is left: the picture is embedded and stored after it.
_SHARE = 2 / 3


async def read_picture(request: Request, in_form: type[Sent], in_json: type[Named]) -> tuple[Sent | Named, bytes | str]:
    """What a body says beside its picture, and the picture's bytes or its URL.

    Raises UnsupportedBody, and as `read_form` and `read_json`.
    """
    kind = content_type(request)
    if kind == JSON:
        asked = await read_json(request, in_json)
        return asked, asked.url
    if kind == MULTIPART:
        form = await read_form(request)
        return form.read(in_form), form.file
    raise UnsupportedBody(f"Send the picture as {MULTIPART}, in a part named file, or its url as {JSON}.")


async def bytes_of(request: Request, services: Services, call: Call, product_id: str, picture: bytes | str) -> bytes:
    """The bytes of a picture for a product of the caller's, fetched where it is a URL.

    Raises ProductNotFound before anything is fetched, and as `fetched`.
    """
    if not isinstance(picture, str):
        return picture
    await services.catalogue.get_product(call.client_id, product_id)
    return await fetched(request, services, call, picture)


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
