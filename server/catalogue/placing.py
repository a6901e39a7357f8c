"""Media that are put where their caller says: under an id of the caller's own, and with another product.

Both lock the products that are concerned before the media, those of a lower id first, and keep all others from adding
pictures or vectors to them meanwhile: so what is found there stays true until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from numpy.typing import ArrayLike
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, kwargs_row, scalar_row

from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import Digest, Media, NewMedia, SpaceRow
from server.catalogue.turns import Turns
from server.catalogue.vectors import halves
from server.database.locks import LOCKS_OF_MEDIA
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import CatalogueConflict, MediaNotFound, PictureTaken, ProductNotFound, StoreUnavailable
from server.preprocessing.readings import READING

_TRIES = 3  # where the media is moved or made by another request between two statements


class Put(NamedTuple):
    """What came of a picture that was put under an id."""

    media: Media
    created: bool
    gone: tuple[str | None, ...]
    """The keys of the bytes and the thumbnail that the media had before."""


@dataclass(frozen=True, slots=True)
class _There:
    """A media as it is, locked: its id and its product's in the database, and what its bytes are."""

    key: str
    product_key: str
    s3_key: str
    thumbnail_key: str | None
    digest: Digest | None


class Placing:
    """Puts media where their caller says. Every method may raise CatalogueUnavailable's kinds."""

    def __init__(self, queries: Queries, runner: Runner, turns: Turns, space: SpaceRow) -> None:
        self._queries = queries
        self._runner = runner
        self._turns = turns
        self._space = space

    async def put_media(self, media: NewMedia, embedding: ArrayLike, *, blank: bool = False) -> Put:
        """Make a media of this id with this picture, or give it this picture and this product; with its vector.

        The vectors of an earlier picture are gone, in every space. Raises ProductNotFound, VectorRefused; PictureTaken
        where another media of the product has these bytes; StoreUnavailable where the upload was held up for so long
        that a sweep of the store has removed its bytes.
        """
        parameters = {**asdict(media), "elsewhere": id_elsewhere(media.client_id, media.id), "locks": LOCKS_OF_MEDIA}
        vector = halves(embedding, self._space.dimensions)

        async def put(connection: AsyncConnection[TupleRow]) -> Put:
            async with connection.transaction():
                await connection.execute(self._queries["hold_upload"], parameters)
                if (await connection.execute(self._queries["was_swept"], parameters)).rowcount:
                    raise StoreUnavailable("This upload took too long to be kept; please send the picture again.")
                for _ in range(_TRIES):
                    held = await self._hold(connection, parameters)
                    if held is None:
                        continue
                    product_key, there = held
                    row = {**parameters, "product_key": product_key, "key": there.key if there is not None else None}
                    await self._require_free(connection, row)
                    stored = await self._store(connection, "add_media" if there is None else "replace_media", row)
                    if stored is None:  # another request is just making a media of this id
                        continue
                    found, key = stored
                    vector_row = {
                        "space": self._space.number,
                        "key": key,
                        "embedding": vector,
                        "blank": blank,
                        "reading": READING,
                    }
                    if (await connection.execute(self._queries["add_vector"], vector_row)).rowcount:
                        found = replace(found, blank=blank)
                    return Put(found, there is None, (there.s3_key, there.thumbnail_key) if there is not None else ())
                raise CatalogueConflict("This media was being made or moved at this moment; please try again.")

        async with self._turns.turn((media.client_id, "media", media.id)):
            return await self._runner.write(
                put, "put_media", client=media.client_id, answers=lambda made: (made.media, made.created)
            )

    async def move_media(
        self, client_id: str, media_id: str, product_id: str, *, digest: Digest | None = None
    ) -> Media:
        """Have a media belong to this product; gives it. `digest`: what its bytes must be, where that matters.

        Raises MediaNotFound, ProductNotFound; PictureTaken where another media of the product has its bytes;
        CatalogueConflict where its bytes are others by now.
        """
        parameters = {"id": media_id, "client_id": client_id, "product_id": product_id}

        async def move(connection: AsyncConnection[TupleRow]) -> Media:
            async with connection.transaction():
                for _ in range(_TRIES):
                    held = await self._hold(connection, parameters)
                    if held is None:
                        continue
                    product_key, there = held
                    if there is None:
                        raise MediaNotFound
                    if digest is not None and there.digest != digest:
                        raise CatalogueConflict(
                            "This media was given another picture at this moment; please try again."
                        )
                    row = {
                        "client_id": client_id,
                        "key": there.key,
                        "product_key": product_key,
                        "content_digest": there.digest,
                    }
                    await self._require_free(connection, row)
                    stored = await self._store(connection, "move_media", row)
                    if stored is not None:
                        return stored[0]
                raise CatalogueConflict("This media was being moved at this moment; please try again.")

        async with self._turns.turn((client_id, "media", media_id)):
            return await self._runner.write(move, "move_media", client=client_id, answers=lambda media: media)

    async def _hold(
        self, connection: AsyncConnection[TupleRow], parameters: Mapping[str, Any]
    ) -> tuple[str, _There | None] | None:
        """Lock the product that is named, that of the media, and the media, if there is one; the first one's id in the
        database, and the media. None where the media was moved meanwhile. Raises ProductNotFound."""
        there = connection.cursor(row_factory=class_row(_There))
        before = await (await there.execute(self._queries["find_there"], parameters)).fetchone()
        at = {**parameters, "product_key": before.product_key if before is not None else None}
        keys = connection.cursor(row_factory=scalar_row)
        locked = await (await keys.execute(self._queries["lock_products"], at)).fetchall()
        product_key = await (await keys.execute(self._queries["find_product"], parameters)).fetchone()
        if product_key is None or product_key not in locked:
            raise ProductNotFound
        media = await (await there.execute(self._queries["lock_there"], parameters)).fetchone()
        return None if media is not None and media.product_key not in locked else (product_key, media)

    async def _require_free(self, connection: AsyncConnection[TupleRow], row: Mapping[str, Any]) -> None:
        """Raises PictureTaken where another media of the product has these bytes."""
        if (await connection.execute(self._queries["same_in_product"], row)).rowcount:
            raise PictureTaken

    async def _store(
        self, connection: AsyncConnection[TupleRow], name: str, row: Mapping[str, Any]
    ) -> tuple[Media, str] | None:
        cursor = connection.cursor(row_factory=kwargs_row(_stored))
        return await (await cursor.execute(self._queries[name], row)).fetchone()


def _stored(*, key: str, **media: Any) -> tuple[Media, str]:
    """A media, and its id in the database."""
    return Media(**media), key
