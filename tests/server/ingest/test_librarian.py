"""A picture joins the catalogue or it does not: the librarian with a real PostgreSQL and a real folder of media.

Only the model is a stand-in. Whatever happens, a row never points at nothing, and no bytes stay without a row unless
nobody can know whether the row is there.
"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from PIL import Image

from server.errors import (
    BytesMissing,
    CatalogueBusy,
    MediaNotFound,
    NotAPicture,
    OutcomeUnknown,
    ProductNotFound,
    StorageFailed,
    StoreUnavailable,
)
from server.ingest.librarian import Librarian
from server.ingest.storage import MARK, Mark
from tests.support.databases import run_sql
from tests.support.house import House, picture

pytestmark = pytest.mark.anyio

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
    assert vector.embedding.argmax() == 7
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


# --- a store that is full or away ------------------------------------------------------------------------------------


@contextmanager
def full() -> Iterator[None]:
    """No file of this process may grow beyond 40 bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_store_is_unavailable_and_nothing_is_left_half_written(house: House) -> None:
    with full(), pytest.raises(StoreUnavailable) as refused:
        await house.add()
    assert refused.value.retry_after > 0
    assert "too large" in refused.value.reason  # what the system said, for the log
    assert "too large" not in refused.value.sentence
    assert (house.rows, house.objects) == (set(), set())
    await house.add()
    assert house.consistent


async def test_a_volume_that_is_unmounted_is_unavailable_and_nothing_is_written_below_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.store.write_mark(Mark("a" * 32))
    house.store.expected = "a" * 32
    media, _ = await house.add(picture(1))
    volume = house.folder.rename(house.folder.with_name("volume"))
    house.folder.mkdir()  # what is below a mount
    with pytest.raises(StoreUnavailable):
        await house.add(picture(2))
    with pytest.raises(StoreUnavailable):
        await house.librarian.thumbnail(media)
    assert not list(house.folder.iterdir())
    assert not caplog.records  # the callers have the errors, and whoever answers them says so once
    house.folder.rmdir()
    volume.rename(house.folder)
    await house.add(picture(2))
    assert await house.librarian.thumbnail(media)
    assert len(house.rows) == 2
    assert house.consistent


async def test_another_stores_volume_is_not_written_to(house: House) -> None:
    await house.store.write_mark(Mark("b" * 32))
    house.store.expected = "a" * 32
    with pytest.raises(StoreUnavailable):
        await house.add()
    assert (house.rows, house.objects) == (set(), set())


async def test_what_is_removed_while_the_volume_is_unmounted_is_handed_on_to_be_deleted_later(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.store.write_mark(Mark("a" * 32))
    house.store.expected = "a" * 32
    media, _ = await house.add()
    remain: list[str] = []
    house.librarian._letting_go._on_remain = remain.extend
    (house.folder / MARK).rename(house.folder.with_name(MARK))
    (house.folder / media.s3_key).rename(house.folder.with_name("bytes"))
    assert await house.librarian.remove("acme", media.id) == media
    assert remain == [media.s3_key, media.thumbnail_key]
    assert len(caplog.records) == 1


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


async def test_a_caller_who_leaves_before_a_failure_costs_one_line_and_no_exception_that_nobody_retrieved(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    media, _ = await house.add()
    with psycopg.connect(house.url) as other:
        other.execute("DELETE FROM media")
        removing = asyncio.create_task(house.librarian.remove("acme", media.id))
        await house.blocked()
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        other.commit()
        await house.librarian.close()
    del removing
    gc.collect()
    (line,) = caplog.records
    assert (line.name, line.exc_info) == ("server.ingest.librarian", None)
    assert "no such media" in line.getMessage()


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
    stored = await house.librarian.thumbnail(media)
    assert stored == (house.folder / media.thumbnail_key).read_bytes()
    (house.folder / media.thumbnail_key).unlink()
    assert await house.librarian.thumbnail(media) == stored
    run_sql(house.url, 'UPDATE media SET "thumbnailKey" = NULL')  # as the legacy application left them
    made = Image.open(io.BytesIO(await house.librarian.thumbnail(media)))
    assert (made.format, made.size) == ("WEBP", (256, 128))


async def test_a_media_whose_bytes_are_gone_too_has_no_thumbnail(house: House) -> None:
    media, _ = await house.add()
    for key in house.objects:
        (house.folder / key).unlink()
    with pytest.raises(BytesMissing, match="not in the media store"):
        await house.librarian.thumbnail(media)


async def test_a_copy_of_a_database_removes_rows_and_leaves_the_originals_bytes(house: House) -> None:
    media, _ = await house.add()
    objects = house.objects
    copy = Librarian(house.librarian._embedder, house.catalogue, house.librarian._store, own=False)
    await copy.remove("acme", media.id)
    await copy.remove_product("acme", "p")
    assert (house.rows, house.objects) == (set(), objects)
