"""A picture joins the catalogue or it does not: the librarian with a real PostgreSQL and a real folder of media.

Only the model is a stand-in. Whatever happens, a row never points at nothing, and no bytes stay without a row unless
nobody can know whether the row is there.
"""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec, Vectors
from server.batching.batcher import Batcher
from server.batching.embedder import Embedder
from server.catalogue.catalogue import Catalogue
from server.database.connections import open_pool
from server.errors import CatalogueBusy, MediaNotFound, NotAPicture, OutcomeUnknown, ProductNotFound, StorageFailed
from server.ingest.librarian import Librarian
from server.ingest.storage import MediaStore
from tests.support.catalogue import D, open_test_space
from tests.support.databases import run_sql
from tests.support.pictures import in_format

pytestmark = pytest.mark.anyio

SPEC = PreprocessingSpec(
    size=4, resize="squash", edge=4, resample="bilinear", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)
LONG = 60.0


def picture(value: int = 7, size: tuple[int, int] = (8, 6)) -> bytes:
    return in_format(Image.new("L", size, value), "PNG")


class Model:
    """A stand-in for the model: one direction for each grey, of unit length."""

    most = 16

    def __call__(self, entries: Sequence[NDArray[np.uint8]]) -> Vectors:
        return np.eye(D, dtype=np.float32)[np.stack(entries)[:, 0, 0, 0] % D]

    def close(self) -> None: ...


class House:
    """A librarian with all that belongs to it, and what an onlooker sees of the store and the database."""

    def __init__(self, librarian: Librarian, catalogue: Catalogue, folder: Path, url: str) -> None:
        self.librarian, self.catalogue, self.folder, self.url = librarian, catalogue, folder, url

    async def add(self, data: bytes | None = None, product: str = "p") -> Any:
        return await self.librarian.add("acme", product, data or picture(), within=LONG)

    @property
    def objects(self) -> set[str]:
        """The keys that the store holds, unfinished ones included."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    @property
    def rows(self) -> set[tuple[str, ...]]:
        """The keys that the database's media point at."""
        return set(run_sql(self.url, 'SELECT "s3Key", "thumbnailKey" FROM media'))

    @property
    def consistent(self) -> bool:
        """Whether each row has its bytes and a vector, and all bytes have their row."""
        vectors = run_sql(self.url, "SELECT count(*) FROM image_embeddings")
        return self.objects == {key for keys in self.rows for key in keys} and vectors == [(len(self.rows),)]

    @contextmanager
    def holding(self, product: str = "p") -> Iterator[psycopg.Connection[Any]]:
        """Another transaction that has the product locked."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT FROM products WHERE id = %s FOR UPDATE", (product,))
            yield connection
            connection.rollback()

    async def blocked(self, many: int = 1) -> list[int]:
        """Backends that wait for a lock, once there are so many."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with psycopg.connect(self.url, autocommit=True) as connection:
            while len(found := [row[0] for row in connection.execute(query.encode())]) < many:
                await asyncio.sleep(0.005)
        return found


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    folder = tmp_path / "store"
    space = open_test_space(database_url)
    async with Batcher([Model()]) as batcher, open_pool(database_url, min_size=1, max_size=8, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        embedder = Embedder(batcher, SPEC, max_pixels=1_000_000, threads=2)
        librarian = Librarian(embedder, catalogue, MediaStore.at(None, folder))
        await catalogue.put_product("acme", "p", name="A thing")
        yield House(librarian, catalogue, folder, database_url)
        await librarian.close()
        embedder.close()


# --- adding ----------------------------------------------------------------------------------------------------------


async def test_an_added_picture_has_its_row_its_vector_its_bytes_and_its_thumbnail(house: House) -> None:
    media, created = await house.add(picture(7))
    assert created
    assert (media.s3_key, media.thumbnail_key) == (f"media/acme/{media.id}.png", f"thumbnails/acme/{media.id}.webp")
    assert (media.content_type, media.width, media.height, media.bytes) == ("image/png", 8, 6, len(picture(7)))
    assert (house.folder / media.s3_key).read_bytes() == picture(7)
    with Image.open(house.folder / media.thumbnail_key) as thumbnail:
        assert thumbnail.format == "WEBP"
    vector = await house.catalogue.media_vector("acme", media.id)
    assert vector is not None
    assert vector.argmax() == 7
    assert house.consistent


async def test_the_same_bytes_again_are_the_media_that_is_there_and_are_not_stored_twice(house: House) -> None:
    first, _ = await house.add()
    assert await house.add() == (first, False)
    assert len(house.objects) == 2
    assert house.consistent


async def test_a_media_that_lost_its_vector_gets_it_back_with_the_same_bytes(house: House) -> None:
    first, _ = await house.add()
    run_sql(house.url, f"DELETE FROM {house.catalogue.space.table}")
    assert await house.add() == (first, False)
    assert await house.catalogue.media_vector("acme", first.id) is not None
    assert house.consistent


async def test_the_same_bytes_many_times_at_once_make_one_media_and_leave_no_orphans(house: House) -> None:
    outcomes = await asyncio.gather(*(house.add() for _ in range(12)))
    assert len({media.id for media, _ in outcomes}) == 1
    assert [created for _, created in outcomes].count(True) == 1
    assert len(house.rows) == 1
    assert house.consistent


# --- what goes wrong leaves nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["media", "thumbnails"])
async def test_a_store_that_cannot_be_written_leaves_no_row_and_no_object(house: House, kind: str) -> None:
    obstacle = house.folder / kind / "acme"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    with pytest.raises(StorageFailed):
        await house.add()
    assert house.rows == set()
    assert house.objects == {f"{kind}/acme"}
    obstacle.unlink()
    await house.add()
    assert house.consistent


async def test_no_picture_and_no_product_leave_nothing(house: House) -> None:
    with pytest.raises(NotAPicture):
        await house.add(b"text")
    with pytest.raises(ProductNotFound):
        await house.add(product="nobody's")
    assert (house.rows, house.objects) == (set(), set())


async def test_a_product_that_is_deleted_between_the_check_and_the_row_leaves_nothing(house: House) -> None:
    with house.holding() as other:
        other.execute("DELETE FROM products")
        adding = asyncio.create_task(house.add())
        await house.blocked()
        assert len(house.objects) == 2  # the bytes come first
        other.commit()
        with pytest.raises(ProductNotFound):
            await adding
    assert (house.rows, house.objects) == (set(), set())


async def test_a_product_that_stays_locked_is_a_busy_catalogue_and_leaves_nothing(house: House) -> None:
    with house.holding(), pytest.raises(CatalogueBusy):
        await house.add()
    assert (house.rows, house.objects) == (set(), set())
    await house.add()
    assert house.consistent


async def test_a_connection_that_breaks_during_the_write_keeps_the_bytes(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with house.holding() as other:
        adding = asyncio.create_task(house.add())
        (backend,) = await house.blocked()
        other.execute("SELECT pg_terminate_backend(%s)", (backend,))
        with pytest.raises(OutcomeUnknown):
            await adding
    assert house.rows == set()
    (key,) = {key for key in house.objects if key.startswith("media/")}
    assert len(house.objects) == 2
    assert any(key in record.getMessage() for record in caplog.records)
    # Asked again, as the error says, it is added like any other; what nobody could know about stays beside it.
    media, created = await house.add()
    assert created
    assert house.objects >= {key, media.s3_key}


# --- those who leave -------------------------------------------------------------------------------------------------


async def test_a_caller_who_leaves_while_the_row_is_written_ends_with_row_and_bytes(house: House) -> None:
    with house.holding() as other:
        adding = asyncio.create_task(house.add())
        await house.blocked()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        closing = asyncio.create_task(house.librarian.close())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        assert house.rows == set()
        other.rollback()
        await closing
    assert len(house.rows) == 1
    assert house.consistent


async def test_a_caller_who_leaves_while_the_row_is_refused_ends_with_neither(house: House) -> None:
    with house.holding() as other:
        other.execute("DELETE FROM products")
        adding = asyncio.create_task(house.add())
        await house.blocked()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        other.commit()
        await house.librarian.close()
    assert (house.rows, house.objects) == (set(), set())


async def test_a_change_that_fails_after_its_caller_has_left_is_one_line_of_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    media, _ = await house.add()
    never_looked_at: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: never_looked_at.append(context))
    caplog.clear()
    with house.holding():
        removing = asyncio.create_task(house.librarian.remove_product("acme", "p"))
        await house.blocked()
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        while not caplog.records:  # the lock is waited for, in vain
            await asyncio.sleep(0.05)
    gc.collect()
    await asyncio.sleep(0)
    assert not never_looked_at
    (record,) = caplog.records
    assert "after its request had ended" in record.getMessage()
    assert record.exc_info is None
    assert (await house.catalogue.get_media("acme", media.id)) == media


async def test_a_store_that_fails_is_not_told_of_a_second_time(house: House, caplog: pytest.LogCaptureFixture) -> None:
    (house.folder / "media").parent.mkdir(parents=True, exist_ok=True)
    (house.folder / "media").write_text("a file where a folder should be")
    with pytest.raises(StorageFailed):
        await house.add()
    assert not caplog.records  # whoever asked logs it, with the request


async def test_a_caller_who_leaves_while_a_media_is_removed_ends_with_neither(house: House) -> None:
    media, _ = await house.add()
    with psycopg.connect(house.url) as other:
        other.execute("SELECT FROM media FOR UPDATE")
        removing = asyncio.create_task(house.librarian.remove("acme", media.id))
        await house.blocked()
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        other.rollback()
        await house.librarian.close()
    assert (house.rows, house.objects) == (set(), set())


# --- removing --------------------------------------------------------------------------------------------------------


async def test_a_media_is_removed_with_both_its_objects_and_no_others(house: House) -> None:
    gone, _ = await house.add(picture(1))
    kept, _ = await house.add(picture(2))
    assert await house.librarian.remove("acme", gone.id) == gone
    assert house.objects == {kept.s3_key, kept.thumbnail_key}
    assert house.consistent
    with pytest.raises(MediaNotFound):
        await house.librarian.remove("acme", gone.id)


async def test_a_product_is_removed_with_all_its_objects_and_no_others(house: House) -> None:
    await house.catalogue.put_product("acme", "q", name="Another")
    for value in range(5):
        await house.add(picture(value))
    kept, _ = await house.add(picture(1), product="q")
    assert (await house.librarian.remove_product("acme", "p")).id == "p"
    assert house.objects == {kept.s3_key, kept.thumbnail_key}
    assert house.consistent
    with pytest.raises(ProductNotFound):
        await house.librarian.remove_product("acme", "p")


async def test_another_clients_media_and_product_are_not_removed(house: House) -> None:
    media, _ = await house.add()
    with pytest.raises(MediaNotFound):
        await house.librarian.remove("other", media.id)
    with pytest.raises(ProductNotFound):
        await house.librarian.remove_product("other", "p")
    assert len(house.rows) == 1
    assert house.consistent


async def test_bytes_that_cannot_be_deleted_do_not_bring_the_row_back_and_are_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    media, _ = await house.add()
    path = house.folder / media.s3_key
    path.unlink()
    (path / "in the way").mkdir(parents=True)  # a folder where a file was
    assert await house.librarian.remove("acme", media.id) == media
    assert house.rows == set()
    assert house.objects == set()  # the thumbnail went all the same
    assert any(media.s3_key in record.getMessage() for record in caplog.records)


# --- thumbnails ------------------------------------------------------------------------------------------------------


async def test_a_thumbnail_that_the_store_lacks_is_made_again(house: House) -> None:
    media, _ = await house.add(picture(9, (600, 300)))
    assert media.thumbnail_key is not None
    stored = await house.librarian.thumbnail("acme", media.id)
    assert stored == (house.folder / media.thumbnail_key).read_bytes()
    (house.folder / media.thumbnail_key).unlink()
    assert await house.librarian.thumbnail("acme", media.id) == stored
    run_sql(house.url, 'UPDATE media SET "thumbnailKey" = NULL')  # as the legacy application left them
    made = Image.open(io.BytesIO(await house.librarian.thumbnail("acme", media.id)))
    assert (made.format, made.size) == ("WEBP", (256, 128))


async def test_a_media_whose_bytes_are_gone_too_has_no_thumbnail(house: House) -> None:
    media, _ = await house.add()
    for key in house.objects:
        (house.folder / key).unlink()
    with pytest.raises(MediaNotFound, match="not in the media store"):
        await house.librarian.thumbnail("acme", media.id)
