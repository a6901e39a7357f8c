"""The part of a picture that a search is for: `crop`, of a picture that is sent or one of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from server.catalogue.rows import Media
from server.errors import BadParameter, BytesMissing, MediaNotFound
from server.http.account import account_of
from server.http.bodies import decoded_field
from server.http.memory import room_beside
from server.http.request import Request
from server.http.wire import Crop, QueryPart
from server.lifespan import Services
from server.preprocessing.region import Region, region_of

# Of a stored picture, read with the same call that asks how large it is.
_AT_ONCE_BYTES = 65_536


def crop_of_form(text: str | None) -> list[float] | None:
    """The `crop` of a form, which is JSON. Raises BadParameter."""
    if text is None:
        return None
    return decoded_field("crop", text, Crop)  # type: ignore[no-any-return]


def check_crop(part: QueryPart, at: str = "") -> None:
    """Raises BadParameter where the part is no picture of which something could be cut, or the crop makes no sense.

    `at`: where in the request the part is.
    """
    if part.crop is None:
        return
    if part.file is None and part.media_id is None:
        raise BadParameter(f"{at}crop goes with a picture: file or mediaId.")
    region_of(part.crop, f"{at}crop")


def region_of_part(part: QueryPart) -> Region | None:
    """What is searched with of a part's picture; None where that is all of it."""
    return None if part.crop is None else region_of(part.crop)


async def read_stored(request: Request, services: Services, media: Sequence[Media]) -> list[bytes]:
    """The pictures of these media, as they came. They count as pictures of the caller's, and have room in the memory
    of bodies until the request is done with.

    Raises MediaNotFound for a video, StorageFailed's kinds, Overloaded, RateLimited.
    """
    if any(one.kind != "image" for one in media):
        raise MediaNotFound
    if media and (account := account_of(request.scope)) is not None:
        await account.take_pictures(len(media))
    return [await _read(request, services, one) for one in media]


async def _read(request: Request, services: Services, media: Media) -> bytes:
    store = services.store
    store.require()
    try:
        opened = await store.open(media.s3_key, at_once=_AT_ONCE_BYTES)
    except BytesMissing:
        store.on_failure("missing")
        raise
    room = room_beside(request, opened.size)
    pieces: list[bytes] = []
    while (piece := await room.next(opened.pieces)) is not None:
        pieces.append(piece)
    return b"".join(pieces)
