"""What an earlier version of the readers has read is looked at again, and corrected where it was misread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image

from server.batching.decoding import Seen
from server.catalogue.rows import Media
from server.database.locks import LOCKS_OF_EMBEDDING
from server.database.queries import Queries
from server.database.seats import seat
from server.errors import StoreUnavailable
from server.ingest.storage import Mark
from server.preprocessing.readings import READING
from server.spaces.pending import Pending
from server.spaces.rereading import Reread, Rereading
from tests.support import pngs
from tests.support.catalogue import D
from tests.support.databases import run_sql
from tests.support.house import LONG, House, open_house
from tests.support.pictures import in_format

pytestmark = pytest.mark.anyio

# The stand-in for a model gives a picture the direction of the grey in its corner.
MISREAD = 3


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(database_url, tmp_path / "store") as house:
        yield house


def picture(grey: int = 7, form: str = "TIFF") -> bytes:
    """Four grey squares, so that it is not blank. Every TIFF counts as read otherwise, and every PNG of this kind as
    read right."""
    squares = np.array([[grey, 200], [120, 60]], np.uint8).repeat(8, 0).repeat(8, 1)
    return in_format(Image.fromarray(squares), form)


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    yield


def rereading(house: House) -> Rereading:
    return Rereading(house.pool, house.catalogue.space, house.embedder, house.store, at_once=2)


async def reread(house: House) -> Reread:
    """What one look has done, all of its turns together."""
    done = Reread()
    async for some in rereading(house).reread(turn):
        done += some
    return done


async def direction(house: House, media: Media) -> int:
    vector = await house.catalogue.media_vector("acme", media.id)
    assert vector is not None
    return int(vector.embedding.argmax())


def as_read_before(house: House, media: Media | None = None) -> None:
    """Have the vector of this media, or of all, be one that an earlier version has made of other pixels."""
    wrong = np.eye(D)[MISREAD].tolist()
    run_sql(
        house.url,
        f"""UPDATE {house.catalogue.space.table} SET embedding = %s, blank = false, reading = 0
            WHERE %s::text IS NULL OR "mediaId" = %s""",
        (str(wrong), *[media and media.id] * 2),
    )


def unread(house: House) -> list[Any]:
    return run_sql(house.url, 'SELECT "mediaId", reason, attempts FROM twinlens_unread ORDER BY 1')


async def test_a_misread_picture_gets_its_vector_its_size_and_its_thumbnail_anew(house: House) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    run_sql(house.url, "UPDATE media SET width = 1, height = 2")
    thumbnail = house.folder / str(media.thumbnail_key)
    right = thumbnail.read_bytes()
    thumbnail.write_bytes(b"a thumbnail of what was misread")
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert await direction(house, media) == 7
    assert await house.catalogue.get_media("acme", media.id) == media
    assert thumbnail.read_bytes() == right
    assert run_sql(house.url, f"SELECT reading FROM {house.catalogue.space.table}") == [(READING,)]
    assert await reread(house) == Reread()
    assert house.consistent


async def test_the_thumbnail_of_a_picture_under_an_id_of_the_callers_is_made_anew(house: House) -> None:
    await house.librarian.put("acme", "front", "p", picture(5, "PNG"), within=LONG)
    media, made = await house.librarian.put("acme", "front", "p", picture(7), within=LONG)
    assert not made
    as_read_before(house)
    thumbnail = house.folder / str(media.thumbnail_key)
    right = thumbnail.read_bytes()
    thumbnail.write_bytes(b"a thumbnail of what was misread")
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert thumbnail.read_bytes() == right
    assert house.consistent


async def test_the_thumbnail_of_a_picture_that_a_worker_embedded_is_made_anew(house: House) -> None:
    """Its row and its bytes come from another system, and the thumbnail alone is ours."""
    (house.folder / "uploads").mkdir()
    (house.folder / "uploads" / "front").write_bytes(picture(7))
    run_sql(
        house.url,
        """INSERT INTO media (id, "productId", "clientId", "s3Key", status)
        VALUES ('front', 'p', 'acme', 'uploads/front', 'pending')""",
    )
    pending = Pending(house.pool, house.catalogue.space, house.embedder, house.store, at_once=1, most_bytes=10**6)
    async with seat(house.url, LOCKS_OF_EMBEDDING, Queries.read("pending.sql")["listen"]) as at:
        done = await pending.embed(at, stop=asyncio.Event())
    assert done.embedded == 1
    media = await house.catalogue.get_media("acme", "front")
    as_read_before(house)
    thumbnail = house.folder / str(media.thumbnail_key)
    right = thumbnail.read_bytes()
    thumbnail.write_bytes(b"a thumbnail of what was misread")
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert thumbnail.read_bytes() == right


async def test_a_thumbnail_that_is_replaced_meanwhile_leaves_nothing_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.librarian.put("acme", "front", "p", picture(7), within=LONG)
    as_read_before(house)
    put = house.store.put

    async def replaced_first(key: str, data: bytes) -> None:
        monkeypatch.setattr(house.store, "put", put)
        await house.librarian.put("acme", "front", "p", picture(8), within=LONG)
        await put(key, data)

    monkeypatch.setattr(house.store, "put", replaced_first)
    await reread(house)
    assert await direction(house, await house.catalogue.get_media("acme", "front")) == 8
    assert house.consistent


async def test_a_picture_that_was_read_rightly_is_looked_at_once_and_nothing_is_written(house: House) -> None:
    media, _ = await house.add(picture(7, "PNG"))
    # A vector that no reading would give shows that it is left alone.
    as_read_before(house)
    place = f"SELECT ctid, reading FROM {house.catalogue.space.table}"
    before = run_sql(house.url, place)
    assert await reread(house) == Reread(looked_at=1)
    assert await direction(house, media) == MISREAD
    assert run_sql(house.url, place) == before
    assert await reread(house) == Reread()


async def test_a_vector_that_agrees_is_not_written_again(house: House) -> None:
    await house.add(picture(7))
    run_sql(house.url, f"UPDATE {house.catalogue.space.table} SET reading = 0")
    assert await reread(house) == Reread(looked_at=1)
    assert run_sql(house.url, f"SELECT reading FROM {house.catalogue.space.table}") == [(0,)]


async def test_blank_pictures_of_earlier_versions_are_found_and_keep_their_vectors(house: House) -> None:
    media, _ = await house.add(in_format(Image.new("RGB", (30, 20), (200, 10, 10)), "PNG"))
    assert media.blank
    as_read_before(house)
    assert not (await house.catalogue.get_media("acme", media.id)).blank
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert (await house.catalogue.get_media("acme", media.id)).blank
    assert await direction(house, media) == MISREAD


async def test_what_this_version_has_read_is_not_looked_at(house: House) -> None:
    await house.add(picture(7))
    assert await reread(house) == Reread()
    as_read_before(house, (await house.add(picture(8)))[0])
    assert await reread(house) == Reread(looked_at=1, corrected=1)


async def test_many_media_are_looked_at_turn_by_turn_and_none_twice(house: House) -> None:
    added = [(await house.add(picture(grey)))[0] for grey in range(MISREAD + 1, MISREAD + 13)]
    added += [(await house.librarian.add("acme", "p", picture(20) + bytes([n]), within=60))[0] for n in range(60)]
    as_read_before(house)
    turns = [some async for some in rereading(house).reread(turn)]
    assert [some.corrected for some in turns] == [50, 22]
    assert await direction(house, added[0]) == MISREAD + 1
    assert await direction(house, added[-1]) == 20 % D


async def test_what_cannot_be_read_any_more_is_recorded_and_keeps_its_vector(house: House) -> None:
    lost, _ = await house.add(picture(7))
    damaged, _ = await house.add(picture(8))
    good, _ = await house.add(picture(9))
    as_read_before(house)
    data = (house.folder / lost.s3_key).read_bytes()
    (house.folder / lost.s3_key).unlink()
    (house.folder / damaged.s3_key).write_bytes(picture(8)[:100])
    assert await reread(house) == Reread(looked_at=3, corrected=1, failed=2)
    assert {media: attempts for media, _, attempts in unread(house)} == {lost.id: 1, damaged.id: 1}
    assert [await direction(house, media) for media in (lost, damaged, good)] == [MISREAD, MISREAD, 9]
    assert await reread(house) == Reread(), "they are tried again after a while, not at once"
    (house.folder / lost.s3_key).write_bytes(data)
    run_sql(house.url, "UPDATE twinlens_unread SET at = at - interval '10 minutes'")
    assert await reread(house) == Reread(looked_at=2, corrected=1, failed=1)
    assert await direction(house, lost) == 7
    assert [(media, attempts) for media, _, attempts in unread(house)] == [(damaged.id, 2)]


async def test_other_bytes_in_the_store_make_no_vector(house: House) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    (house.folder / media.s3_key).write_bytes(picture(9))
    assert await reread(house) == Reread(looked_at=1, failed=1)
    assert await direction(house, media) == MISREAD
    ((_, reason, _),) = unread(house)
    assert reason == "The bytes in the store are not those that were embedded."


async def test_while_the_store_is_away_nothing_counts_as_looked_at(house: House) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    await house.store.write_mark(Mark("ours"))
    house.store.expected = "ours"
    away = house.folder.with_name("away")
    house.folder.rename(away)
    with pytest.raises(StoreUnavailable):
        await reread(house)
    assert unread(house) == []
    away.rename(house.folder)
    house.store.trouble = None  # as the watch over the store finds out
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert await direction(house, media) == 7


async def test_a_media_that_is_deleted_while_it_is_looked_at_leaves_nothing_behind(house: House) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    with house.holding() as connection:
        looking = asyncio.create_task(reread(house))
        await house.blocked()
        connection.execute("DELETE FROM media WHERE id = %s", (media.id,))
        connection.commit()
        await looking
    (house.folder / media.s3_key).unlink()
    assert house.objects == set()
    assert run_sql(house.url, f"SELECT count(*) FROM {house.catalogue.space.table}") == [(0,)]


async def test_a_media_that_gets_other_bytes_while_it_is_looked_at_keeps_what_it_has(house: House) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    with house.holding() as connection:
        looking = asyncio.create_task(reread(house))
        await house.blocked()
        connection.execute("""UPDATE media SET "s3Key" = 'other' WHERE id = %s""", (media.id,))
        connection.commit()
        await looking
    assert await direction(house, media) == MISREAD


async def test_what_an_older_server_adds_meanwhile_is_looked_at_once_it_is_there(house: House) -> None:
    (house.folder / "older").write_bytes(picture(9))
    with psycopg.connect(house.url) as older:
        older.execute(
            """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES ('older', 'p', 'acme', 'older')"""
        )
        older.execute(
            f"INSERT INTO {house.catalogue.space.table} (space, \"mediaId\", embedding) VALUES (%s, 'older', %s)",
            (house.catalogue.space.number, str(np.eye(D)[MISREAD].tolist())),
        )
        newer, _ = await house.add(picture(8))
        as_read_before(house, newer)
        assert await reread(house) == Reread(looked_at=1, corrected=1)
        assert await reread(house) == Reread()
        older.commit()
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    media = await house.catalogue.get_media("acme", "older")
    assert (await direction(house, media), media.width, media.height) == (9, 16, 16)
    assert await reread(house) == Reread()


async def test_a_later_version_of_the_readers_begins_anew_and_an_earlier_one_leaves_it_alone(
    house: House,
) -> None:
    media, _ = await house.add(picture(7))
    as_read_before(house)
    run_sql(house.url, "INSERT INTO twinlens_readings (space, reading) VALUES (%s, %s)",
            (house.catalogue.space.number, READING + 1))  # fmt: skip
    assert await reread(house) == Reread()
    run_sql(
        house.url,
        """UPDATE twinlens_readings SET reading = %s, revision = '1000000', "mediaId" = 'x'""",
        (READING - 1,),
    )
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert await direction(house, media) == 7


async def test_a_thumbnail_of_another_application_stays(house: House) -> None:
    await house.add(picture(7))
    as_read_before(house)
    (house.folder / "theirs.jpg").write_bytes(b"theirs")
    run_sql(house.url, """UPDATE media SET "thumbnailKey" = 'theirs.jpg'""")
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert (house.folder / "theirs.jpg").read_bytes() == b"theirs"


async def test_a_picture_whose_transparency_was_not_seen_is_found_by_itself_again(house: House) -> None:
    """PNG: grey of 16 bits, of which one is transparent, was read as opaque before. On white its corner is white."""
    samples = np.full((8, 8, 1), 40 * 257, np.uint16)
    samples[:4, :4] = 0
    data = pngs.png(samples, pngs.GREY, 16, before=[pngs.chunk(b"tRNS", b"\0\0")])
    media, _ = await house.add(data)
    run_sql(
        house.url,
        f"UPDATE {house.catalogue.space.table} SET embedding = %s, reading = 0",
        (str(np.eye(D)[0].tolist()),),
    )
    assert await reread(house) == Reread(looked_at=1, corrected=1)
    assert await direction(house, media) == 255 % D


async def test_a_fault_of_ours_with_one_picture_stops_no_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, _ = await house.add(picture(7))
    good, _ = await house.add(picture(8))
    as_read_before(house)
    see = house.embedder.decoding._see

    def failing(data: bytes, since: int) -> Seen:
        if data == picture(7):
            raise MemoryError
        return see(data, since)

    monkeypatch.setattr(house.embedder.decoding, "_see", failing)
    assert await reread(house) == Reread(looked_at=2, corrected=1, failed=1)
    assert [await direction(house, media) for media in (bad, good)] == [MISREAD, 8]
    ((media, reason, _),) = unread(house)
    assert (media, reason) == (bad.id, "The fault is ours and has been logged (MemoryError).")
