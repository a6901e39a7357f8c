"""Rows of a feed go into the catalogue, and it is kept in step: a real PostgreSQL, a real store, a stand-in model."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from server.database.isolation import SERVING_ROLE, arrange
from server.database.pool import open_pool
from server.errors import CatalogueUnavailable, IngestRefused, StoreUnavailable
from server.ingest.feed import KeyOf, Row, UrlOf
from server.ingest.storage import MARK, Mark, MediaStore
from tests.support.databases import run_sql
from tests.support.house import House, picture
from tests.support.ingesting import LONG_AGO, MOST, bring, file, pictures_of, row
from tests.support.picture_host import answer, picture_host
from tests.support.proxy import Proxy

pytestmark = pytest.mark.anyio

ROWS_OF_MEDIA = """
    SELECT m."productId", m."clientId", m."apiId", m.kind, m.status, m."contentType", m.bytes, m.width, m.height,
        m."contentDigest", v.embedding::text, v.blank, v.reading, v.active, v."clientId"
    FROM media m JOIN twinlens_space_1 v ON v."mediaId" = m.id ORDER BY m."productId"
"""


def product_row(house: House, product: str) -> tuple[object, ...]:
    (found,) = run_sql(
        house.url, 'SELECT name, sku, "isActive", attributes, "updatedAt" FROM products WHERE id = %s', (product,)
    )
    return tuple(found)


# --- what a row becomes ----------------------------------------------------------------------------------------------


async def test_a_row_leaves_what_a_librarian_leaves(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await house.catalogue.put_product("acme", "q", name="A thing", sku="S", attributes={"price": 2})
    await house.add(path.read_bytes(), "q")
    by_hand = run_sql(house.url, ROWS_OF_MEDIA)
    product_by_hand = product_row(house, "q")[:-1]
    await house.librarian.remove_product("acme", "q")

    brought = await bring(house, [row("q", path, name="A thing", sku="S", attributes={"price": 2})])
    assert (brought.counts.rows, brought.counts.added, brought.counts.products_made) == (1, 1, 1)
    assert run_sql(house.url, ROWS_OF_MEDIA) == by_hand
    assert product_row(house, "q")[:-1] == product_by_hand
    ((media, s3_key, thumbnail),) = run_sql(house.url, 'SELECT id, "s3Key", "thumbnailKey" FROM media')
    assert (s3_key, thumbnail) == (f"media/acme/{media}.png", f"thumbnails/acme/{media}.webp")
    assert (house.folder / s3_key).read_bytes() == path.read_bytes()
    assert house.consistent


async def test_many_rows_become_many_media_of_their_products(house: House, tmp_path: Path) -> None:
    rows = [row(f"product-{number % 50:02}", file(tmp_path / f"{number}.png", number % 255)) for number in range(150)]
    brought = await bring(house, rows)
    assert (brought.counts.rows, brought.counts.added, brought.counts.products_made) == (150, 150, 50)
    found = pictures_of(house.url)
    assert {len(found[f"product-{number:02}"]) for number in range(50)} == {3}
    assert house.consistent


async def test_a_row_without_a_picture_is_a_product(house: House) -> None:
    brought = await bring(house, [row("q", name="Q", is_active=False)])
    assert (brought.counts.products_made, brought.counts.added) == (1, 0)
    assert product_row(house, "q")[:-1] == ("Q", None, False, {})


async def test_a_product_without_a_name_is_called_by_its_id(house: House) -> None:
    await bring(house, [row("q")])
    assert product_row(house, "q")[0] == "q"


async def test_what_a_row_does_not_say_stays_as_it_is(house: House) -> None:
    await house.catalogue.put_product("acme", "q", name="Q", sku="S", is_active=False, attributes={"price": 2})
    await bring(house, [row("q", name="Another")])
    assert product_row(house, "q")[:-1] == ("Another", "S", False, {"price": 2})
    await bring(house, [row("q", is_active=True, attributes={"price": 3})])
    assert product_row(house, "q")[:-1] == ("Another", "S", True, {"price": 3})


async def test_the_same_picture_twice_in_a_feed_is_one_media(house: House, tmp_path: Path) -> None:
    one, other = file(tmp_path / "a.png", 7), file(tmp_path / "b.png", 7)
    brought = await bring(house, [row("q", one), row("q", other), row("r", one)])
    assert (brought.counts.rows, brought.counts.added, brought.failed) == (3, 2, [])
    assert [len(pictures_of(house.url)[product]) for product in "qr"] == [1, 1]
    assert house.consistent


async def test_two_clients_may_have_products_of_one_id(house: House, tmp_path: Path) -> None:
    rows = [row("p", file(tmp_path / "a.png", 7), client="other"), row("p", file(tmp_path / "b.png", 8))]
    assert not (await bring(house, rows)).failed
    assert [len(pictures_of(house.url, client)["p"]) for client in ("acme", "other")] == [1, 1]
    again = await bring(house, rows)
    assert (again.counts.unchanged, again.counts.added) == (2, 0)
    assert house.consistent


async def test_rows_are_written_beneath_row_level_security(house: House, tmp_path: Path) -> None:
    assert arrange(house.url).role == SERVING_ROLE
    rows = [row("p", file(tmp_path / "a.png", 7), client=client, name=client) for client in ("acme", "other")]
    async with open_pool(house.url, min_size=1, max_size=2, timeout=30, role=SERVING_ROLE) as pool:
        brought = await bring(house, rows, pool=pool)
        assert (brought.counts.added, brought.failed) == (2, [])
        file(tmp_path / "a.png", 8, at=LONG_AGO + 1)
        changed = await bring(house, rows, pool=pool)
        assert (changed.counts.replaced, changed.removed) == (2, (0, 2))
        gone = await bring(house, rows[:1], pool=pool, prune=1.0)
        assert gone.removed == (1, 1)
    assert (pictures_of(house.url, "other"), len(pictures_of(house.url)["p"])) == ({}, 1)
    assert house.consistent


# --- in step ---------------------------------------------------------------------------------------------------------


async def test_unchanged_rows_cost_no_model_and_no_write(house: House, tmp_path: Path) -> None:
    rows = [row(f"q{number}", file(tmp_path / f"{number}.png", number), name="Q") for number in range(10)]
    await bring(house, rows)
    before = [pictures_of(house.url), product_row(house, "q1")]
    again = await bring(house, rows)
    assert (again.counts.rows, again.counts.unchanged, again.counts.embedded) == (10, 10, 0)
    assert [pictures_of(house.url), product_row(house, "q1")] == before


async def test_pictures_that_came_by_the_api_cost_no_model(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    media, _ = await house.add(path.read_bytes())
    brought = await bring(house, [row("p", path)])
    assert (brought.counts.embedded, brought.counts.added) == (0, 0)
    assert pictures_of(house.url)["p"] == [media.id]
    assert (await bring(house, [row("p", path)])).counts.unchanged == 1


async def test_a_media_without_a_vector_gets_one(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("p", path)])
    before = pictures_of(house.url)
    run_sql(house.url, "DELETE FROM twinlens_space_1")
    brought = await bring(house, [row("p", path)])
    assert (brought.counts.embedded, brought.counts.added) == (1, 0)
    assert pictures_of(house.url) == before
    assert house.consistent


async def test_a_change_of_a_price_leaves_the_picture_unread(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path, attributes={"price": 1})])
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # as long as before
    os.utime(path, (LONG_AGO, LONG_AGO))
    brought = await bring(house, [row("q", path, attributes={"price": 2})])
    assert (brought.counts.embedded, brought.counts.replaced, brought.failed) == (0, 0, [])
    assert product_row(house, "q")[3] == {"price": 2}


async def test_a_file_of_another_time_is_read_again(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path)])
    file(path, 7, at=LONG_AGO + 1)
    again = await bring(house, [row("q", path)])
    assert (again.counts.embedded, again.counts.unchanged) == (0, 0)  # the new time was noted
    assert (await bring(house, [row("q", path)])).counts.unchanged == 1


async def test_a_file_that_was_just_written_is_not_trusted_the_next_time(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path)], now=LONG_AGO + 1.0)
    file(path, 8)  # as large as before, within the same tick of the clock
    assert (await bring(house, [row("q", path)])).counts.replaced == 1


async def test_whoever_keeps_times_has_everything_read(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path)])
    file(path, 8)
    assert (await bring(house, [row("q", path)])).counts.unchanged == 1
    assert (await bring(house, [row("q", path)], reread=True)).counts.replaced == 1
    assert (await bring(house, [row("q", path)], reread=True)).counts.unchanged == 1


async def test_a_row_with_another_picture_replaces_the_one_that_it_made(house: House, tmp_path: Path) -> None:
    await bring(house, [row("q", file(tmp_path / "a.png", 7))])
    before = pictures_of(house.url)["q"]
    brought = await bring(house, [row("q", file(tmp_path / "b.png", 8))])
    assert (brought.counts.added, brought.counts.replaced, brought.removed) == (1, 1, (0, 1))
    assert len(pictures_of(house.url)["q"]) == 1
    assert pictures_of(house.url)["q"] != before
    assert house.consistent


async def test_a_picture_that_somebody_else_added_is_not_replaced(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    media, _ = await house.add(path.read_bytes())
    await bring(house, [row("p", path)])
    file(path, 8, at=LONG_AGO + 1)
    brought = await bring(house, [row("p", path)])
    assert (brought.counts.replaced, brought.removed) == (1, (0, 0))
    assert media.id in pictures_of(house.url)["p"]
    assert len(pictures_of(house.url)["p"]) == 2


async def test_a_picture_that_another_feed_names_is_not_replaced(house: House, tmp_path: Path) -> None:
    path, other = file(tmp_path / "a.png", 7), file(tmp_path / "b.png", 7)
    await bring(house, [row("q", path)], feed="one")
    await bring(house, [row("q", other)], feed="two")
    file(path, 8, at=LONG_AGO + 1)
    assert (await bring(house, [row("q", path)], feed="one")).removed == (0, 0)
    assert len(pictures_of(house.url)["q"]) == 2
    file(other, 9, at=LONG_AGO + 1)
    await bring(house, [row("q", other)], feed="two")
    # Nobody names it any more, and the feed that made it takes it out.
    assert (await bring(house, [row("q", path)], feed="one")).removed == (0, 1)
    assert len(pictures_of(house.url)["q"]) == 2
    assert house.consistent


async def test_pictures_that_move_up_a_place_stay_what_they_are(house: House, tmp_path: Path) -> None:
    first, second = file(tmp_path / "1.png", 1), file(tmp_path / "2.png", 2)
    await bring(house, [row("q", first), row("q", second)])
    one, two = pictures_of(house.url)["q"]
    brought = await bring(house, [row("q", file(tmp_path / "0.png", 3)), row("q", first), row("q", second)])
    assert (brought.counts.embedded, brought.counts.added, brought.removed) == (1, 1, (0, 0))
    assert {one, two} < set(pictures_of(house.url)["q"])
    back = await bring(house, [row("q", first), row("q", second)])
    assert (back.counts.embedded, set(pictures_of(house.url)["q"])) == (0, {one, two})
    assert house.consistent


async def test_what_somebody_deleted_is_brought_again(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path)])
    (media,) = pictures_of(house.url)["q"]
    await house.librarian.remove("acme", media)
    assert (await bring(house, [row("q", path)])).counts.added == 1
    await house.librarian.remove_product("acme", "q")
    assert run_sql(house.url, "SELECT count(*) FROM twinlens_feed_rows") == [(0,)]
    assert (await bring(house, [row("q", path)])).counts.products_made == 1
    assert house.consistent


# --- what has left the feed ------------------------------------------------------------------------------------------


async def test_pruning_takes_out_what_the_feed_made_and_no_longer_has(house: House, tmp_path: Path) -> None:
    paths = [file(tmp_path / f"{number}.png", number) for number in range(6)]
    rows = [row("q", paths[0]), row("q", paths[1]), *(row(f"r{number}", paths[number]) for number in range(2, 6))]
    await bring(house, rows)
    await bring(house, rows[:-1])
    assert "r5" in pictures_of(house.url)  # only with prune
    brought = await bring(house, [rows[0], *rows[2:-1]], prune=0.5)
    assert brought.removed == (1, 2)
    found = pictures_of(house.url)
    assert (len(found["q"]), "r5" in found, "r4" in found) == (1, False, True)
    assert house.consistent
    again = await bring(house, [rows[0], *rows[2:-1]], prune=0.0)
    assert again.removed == (0, 0)


async def test_pruning_leaves_what_others_have_a_part_in(house: House, tmp_path: Path) -> None:
    paths = [file(tmp_path / f"{number}.png", number) for number in range(5)]
    await house.add(paths[0].read_bytes())
    await bring(house, [row("p", paths[0]), row("q", paths[1]), row("r", paths[2]), row("s", paths[3])], feed="one")
    by_hand, _ = await house.add(paths[4].read_bytes(), "q")
    await bring(house, [row("r", paths[2])], feed="two")
    brought = await bring(house, [], feed="one", prune=1.0)
    found = pictures_of(house.url)
    assert brought.removed == (1, 2)
    assert ({len(found["p"]), len(found["r"])}, found["q"], "s" in found) == ({1}, [by_hand.id], False)
    assert house.consistent


async def test_a_feed_that_is_not_whole_takes_nothing_out(house: House, tmp_path: Path) -> None:
    rows = [row(f"q{number}", file(tmp_path / f"{number}.png", number)) for number in range(10)]
    await bring(house, rows)
    with pytest.raises(IngestRefused, match="3 of the 10 products and 3 of the 10 pictures"):
        await bring(house, rows[:7], prune=0.2)
    assert len(pictures_of(house.url)) == 11
    assert (await bring(house, rows[:8], prune=0.2)).removed == (2, 2)


# --- what goes wrong -------------------------------------------------------------------------------------------------


async def test_rows_that_fail_leave_the_others_alone(house: House, tmp_path: Path) -> None:
    poem, large = tmp_path / "poem.png", tmp_path / "large.png"
    poem.write_text("Roses are red")
    with large.open("wb") as sparse:
        sparse.truncate(MOST + 1)
    good = file(tmp_path / "good.png", 7)
    rows = [
        row("poem", poem),
        row("gone", tmp_path / "gone.png"),
        row("large", large),
        row("folder", tmp_path),
        row("good", good),
    ]
    brought = await bring(house, rows)
    assert brought.reasons.keys() == {"poem", "gone", "large", "folder"}
    assert brought.reasons["gone"] == f"There is no file {tmp_path}/gone.png."
    assert "larger than this server accepts" in brought.reasons["large"]
    assert (brought.counts.failed, brought.counts.added, brought.counts.rows) == (4, 1, 5)
    # No product is made by a row whose picture failed.
    assert pictures_of(house.url).keys() == {"p", "good"}
    assert house.consistent


async def test_what_a_row_says_of_its_product_is_kept_where_the_picture_fails(house: House, tmp_path: Path) -> None:
    path = file(tmp_path / "a.png", 7)
    await bring(house, [row("q", path, attributes={"price": 1})])
    before = pictures_of(house.url)
    brought = await bring(house, [row("q", tmp_path / "gone.png", attributes={"price": 2})])
    assert (brought.counts.failed, brought.counts.rows) == (1, 1)
    assert product_row(house, "q")[3] == {"price": 2}
    assert pictures_of(house.url) == before


async def test_a_sku_that_is_taken_is_one_rows_fault(house: House, tmp_path: Path) -> None:
    await house.catalogue.put_product("acme", "x", name="X", sku="taken")
    rows = [row(f"q{number}", file(tmp_path / f"{number}.png", number)) for number in range(9)]
    rows[4] = row("q4", tmp_path / "4.png", sku="taken")
    brought = await bring(house, rows)
    assert brought.reasons == {"q4": "Another product of this client has this SKU."}
    assert (brought.counts.added, "q4" in pictures_of(house.url)) == (8, False)
    assert house.consistent  # and its bytes are gone again


async def test_a_store_that_is_away_ends_the_run_and_the_next_one_goes_on(house: House, tmp_path: Path) -> None:
    rows = [row(f"q{number:03}", file(tmp_path / f"{number}.png", number)) for number in range(100)]
    house.store.expected = "0" * 32
    with pytest.raises(StoreUnavailable):
        await bring(house, rows)
    assert pictures_of(house.url) == {"p": []}
    await house.store.write_mark(Mark("0" * 32))
    brought = await bring(house, rows)
    assert (brought.counts.added, (house.folder / MARK).exists()) == (100, True)


async def test_a_connection_that_breaks_is_replaced_and_nothing_is_doubled(house: House, tmp_path: Path) -> None:
    rows = [row(f"q{number:03}", file(tmp_path / f"{number}.png", number)) for number in range(200)]
    with house.holding() as connection:
        work = asyncio.create_task(bring(house, [row("p", file(tmp_path / "p.png", 3), name="Held"), *rows]))
        for pid in await house.blocked():
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    brought = await work
    assert (brought.counts.added, brought.failed) == (201, [])
    assert house.consistent


async def test_a_database_that_goes_away_ends_the_run_and_the_next_one_goes_on(house: House, tmp_path: Path) -> None:
    # The products are written in the order of their ids, and p is held.
    ids = [f"{letter}{number:03}" for letter in "aq" for number in range(200)]
    rows = [row(product, file(tmp_path / f"{product}.png", number % 255)) for number, product in enumerate(ids)]
    rows += [row("p", file(tmp_path / "p.png", 3), name="Held")]
    with tempfile.TemporaryDirectory(prefix="twin") as folder:
        async with (
            Proxy(house.url, Path(folder)).running() as proxy,
            open_pool(proxy.url, min_size=1, max_size=2, timeout=1) as pool,
        ):
            with house.holding():
                work = asyncio.create_task(bring(house, rows, pool=pool))
                await house.blocked()
                proxy.break_off()
                proxy.hold()
                with pytest.raises(CatalogueUnavailable):
                    await work
            proxy.release()
    there = len(pictures_of(house.url))
    assert 100 < there < 401
    brought = await bring(house, rows)
    assert (brought.counts.failed, brought.counts.unchanged) == (0, there - 1)
    assert {len(media) for media in pictures_of(house.url).values()} == {1}


async def test_another_live_space_ends_the_run(house: House, tmp_path: Path) -> None:
    run_sql(house.url, "UPDATE twinlens_spaces SET live = false")
    with pytest.raises(IngestRefused, match="become the live one"):
        await bring(house, [row("q", file(tmp_path / "a.png", 7))])
    assert run_sql(house.url, "SELECT count(*) FROM media") == [(0,)]


async def test_a_run_that_is_stopped_writes_what_it_has_begun(house: House, tmp_path: Path) -> None:
    rows = [row(f"q{number:04}", file(tmp_path / f"{number}.png", number % 255)) for number in range(600)]
    stop = asyncio.Event()
    stop.set()
    brought = await bring(house, rows, stop=stop)
    assert (brought.counts.rows, house.consistent) == (0, True)
    assert (await bring(house, rows)).counts.added == 600


# --- from a bucket ---------------------------------------------------------------------------------------------------


async def test_pictures_of_the_store_of_a_bucket_are_fetched_once(house: House) -> None:
    await house.store.put("incoming/a.png", picture(7))
    rows = [row("q", KeyOf("incoming/a.png")), row("r", KeyOf("incoming/b.png"))]
    brought = await bring(house, rows)
    assert (brought.counts.added, list(brought.reasons)) == (1, ["r"])
    assert brought.reasons["r"].startswith("There is no object incoming/b.png in ")
    again = await bring(house, rows[:1])
    assert (again.counts.unchanged, again.counts.embedded) == (1, 0)
    await house.store.put("incoming/a.png", picture(8))
    assert (await bring(house, rows[:1])).counts.replaced == 1


async def test_a_picture_at_a_url_is_fetched_again_only_when_its_host_says_so(house: House) -> None:
    with picture_host() as host:
        hosts = [f"localhost:{host.port}"]
        rows = [row("q", UrlOf(host.url("/a.png"))), row("r", UrlOf(host.url("/gone.png")))]
        host.answers["/a.png"] = answer(picture(7), headers={"ETag": '"1"'})
        brought = await bring(house, rows, hosts=hosts)
        assert (brought.counts.added, list(brought.reasons)) == (1, ["r"])
        assert "answered 404" in brought.reasons["r"]
        host.answers["/a.png"] = answer(status=304)
        again = await bring(house, rows[:1], hosts=hosts)
        assert (again.counts.unchanged, again.counts.embedded) == (1, 0)
        assert host.asked[-1].headers["if-none-match"] == '"1"'
        host.answers["/a.png"] = answer(picture(8), headers={"ETag": '"2"'})
        assert (await bring(house, rows[:1], hosts=hosts)).counts.replaced == 1
    assert house.consistent


async def test_a_bucket_that_is_away_ends_the_run_and_the_next_one_goes_on(house: House, tmp_path: Path) -> None:
    bucket = MediaStore.at(None, tmp_path / "bucket")
    bucket.expected = "0" * 32
    rows = [row("q", KeyOf("a.png"))]
    with pytest.raises(StoreUnavailable):
        await bring(house, rows, bucket=bucket)
    bucket.make()
    await bucket.write_mark(Mark("0" * 32))
    await bucket.put("a.png", picture(7))
    assert (await bring(house, rows, bucket=bucket)).counts.added == 1
    assert house.consistent


async def test_a_url_of_a_host_that_is_not_allowed_fails(house: House) -> None:
    brought = await bring(house, [Row(1, "acme", "q", picture=UrlOf("https://example.com/a.png"))])
    assert brought.counts.failed == 1
    assert "fetch" in brought.reasons["q"]
