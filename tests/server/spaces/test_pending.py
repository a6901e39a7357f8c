"""What becomes of rows that another system writes; test_worker.py has the processes."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import psycopg
import pytest
from PIL import Image

from server.database.isolation import SERVING_ROLE
from server.database.locks import LOCKS_OF_EMBEDDING
from server.database.migrations import load_migrations, migrate
from server.errors import SpaceNotLive, StoreUnavailable
from server.ingest.storage import MediaStore, Opened
from server.settings import Settings
from server.spaces.pending import MOST_ATTEMPTS, Tally
from server.spaces.standing import Reason, Standing, put_back, reasons, standing
from server.spaces.worker import Options, work
from tests import STARTER
from tests.support.databases import run_sql
from tests.support.pending import OtherSystem, picture
from tests.support.pictures import in_format
from tests.support.process import until
from tests.support.serving import Client, serving
from tests.support.spaces import older_database, open_old, register_new

COLUMNS = '"contentType", bytes, width, height, "contentDigest", kind, status'


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> OtherSystem:
    return OtherSystem(database_url, tmp_path / "media")


def embed(shop: OtherSystem, *, patience: float = 0, **options: Any) -> Tally:
    """One run of a worker, until nothing is due."""
    given = {"threads": 2, "batch": 8, **options}
    settings = Settings(
        **{"database_url": shop.url, "data": shop.store.parent, "model": STARTER, "device": "cpu", **given}
    )
    return asyncio.run(work(settings, shop.url, Options(once=True, patience=patience))).done


def found(client: Client, data: bytes) -> list[tuple[str, float]]:
    matches = client.post("/v1/search", files={"file": data}).raise_for_status().json()["results"]
    return [(one["mediaId"], one["similarity"]) for one in matches]


# --- what it leaves --------------------------------------------------------------------------------------------------


def test_a_row_is_left_as_an_upload_leaves_it(shop: OtherSystem) -> None:
    data = in_format(Image.open(io.BytesIO(picture(3))).rotate(90, expand=True), "JPEG", quality=95)
    with serving(shop.url, shop.store.parent) as client:
        client.put("/v1/products/q", json={"name": "Q"}).raise_for_status()
        uploaded = client.post("/v1/products/q/media", files={"file": data}).raise_for_status().json()
    shop.add("theirs", data)
    assert embed(shop) == Tally(embedded=1)
    rows = shop.sql(f"SELECT {COLUMNS} FROM media")
    assert rows == [rows[0]] * 2
    assert (rows[0][2], rows[0][3]) == (64, 96)
    vectors = shop.sql("SELECT embedding::text, blank, reading, active FROM twinlens_space_1")
    assert vectors == [vectors[0]] * 2
    with serving(shop.url, shop.store.parent) as client:
        theirs = client.get("/v1/media/theirs").json()
        assert {**theirs, "id": 0} | dict.fromkeys(("createdAt", "s3Key", "productId", "thumbnailUrl", "fileUrl")) == {
            **uploaded,
            "id": 0,
        } | dict.fromkeys(("createdAt", "s3Key", "productId", "thumbnailUrl", "fileUrl"))
        thumbnails = [client.get(f"/v1/media/{one}/thumbnail").content for one in ("theirs", uploaded["id"])]
    assert thumbnails[0] == thumbnails[1]
    (key,) = shop.sql("SELECT \"thumbnailKey\" FROM media WHERE id = 'theirs'")
    assert (shop.store / key[0]).read_bytes() == thumbnails[0]


def test_what_the_other_system_says_of_a_picture_gives_way_to_what_the_picture_is(shop: OtherSystem) -> None:
    shop.put("small.webp", b"theirs")
    shop.add("m", picture(1), width=9, height=9, bytes=9, contentType="image/tiff", thumbnailKey="small.webp")
    embed(shop)
    rows = shop.sql('SELECT width, height, bytes, "contentType", "thumbnailKey" FROM media')
    assert rows == [(96, 64, len(picture(1)), "image/png", "small.webp")]
    assert (shop.store / "small.webp").read_bytes() == b"theirs"


def test_two_media_of_a_product_may_be_the_same_file(shop: OtherSystem) -> None:
    shop.add("one", picture(1))
    shop.add("two", picture(1))
    assert embed(shop) == Tally(embedded=2)
    assert sorted(digest is None for (digest,) in shop.sql('SELECT "contentDigest" FROM media')) == [False, True]
    with serving(shop.url, shop.store.parent) as client:
        assert sorted(found(client, picture(1))) == [("one", 100.0), ("two", 100.0)]


def test_another_picture_under_the_same_row_is_found_in_place_of_the_one_before(shop: OtherSystem) -> None:
    shop.add("m", picture(1))
    shop.add("other", picture(4))
    embed(shop)
    (before,) = shop.sql('SELECT "thumbnailKey", "contentDigest" FROM media WHERE id = \'m\'')
    # Another space has a vector of the picture that was there before.
    new = register_new(shop.url)
    one = "[" + ",".join(["1"] + ["0"] * (new.dimensions - 1)) + "]"
    shop.sql(
        f"""INSERT INTO {new.table} (space, "mediaId", embedding) VALUES (%s, 'm', %s), (%s, 'other', %s)""",
        *(new.number, one) * 2,
    )
    shop.put("uploads/m", picture(2))
    shop.sql("UPDATE media SET status = 'pending' WHERE id = 'm'")
    with serving(shop.url, shop.store.parent) as client:
        assert found(client, picture(1))[0][0] == "other"  # nothing of what is pending is found
    assert embed(shop) == Tally(embedded=1)
    (after,) = shop.sql('SELECT "thumbnailKey", "contentDigest" FROM media WHERE id = \'m\'')
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert shop.sql(f'SELECT "mediaId" FROM {new.table}') == [("other",)]
    with serving(shop.url, shop.store.parent) as client:
        assert found(client, picture(2))[0] == ("m", 100.0)
        assert all(similarity < 100 for _, similarity in found(client, picture(1)))


# --- what cannot be embedded -----------------------------------------------------------------------------------------


def test_poison_is_set_aside_with_the_reason_while_the_rest_goes_on(shop: OtherSystem) -> None:
    pictures = shop.add_many(30, empty=b"", poem=b"a poem", cut=picture(1)[:300], large=picture(1) + bytes(100_000))
    assert embed(shop, max_upload=50_000) == Tally(embedded=30, set_aside=4)
    bad = {"empty", "poem", "cut", "large"}
    assert shop.states() == {media: "failed" if media in bad else "ready" for media in pictures}
    codes = {"empty": "no_picture", "poem": "not_a_picture", "cut": "unreadable_picture", "large": "upload_too_large"}
    assert {media: code for media, (_, _, code) in shop.queue().items()} == codes
    told = {one.code: (one.set_aside, one.media, one.reason, one.example) for one in reasons(shop.url)}
    assert told["upload_too_large"] == (
        True,
        1,
        f"The file has {len(pictures['large']):,} bytes; at most 50,000 are read.",
        "large",
    )
    assert standing(shop.url) == Standing(waiting=0, tried=0, put_off=0, set_aside=4)
    with serving(shop.url, shop.store.parent) as client:
        assert client.get("/v1/media/poem").json()["status"] == "failed"
        assert "poem" not in dict(found(client, picture(1)))


def test_a_missing_picture_is_tried_again_later_and_set_aside_in_the_end(shop: OtherSystem) -> None:
    shop.add("late")
    shop.add("never")
    assert embed(shop) == Tally(put_off=2)
    assert embed(shop) == Tally()  # it is not due yet
    shop.put("uploads/late", picture(1))
    shop.make_due()
    assert embed(shop) == Tally(embedded=1, put_off=1)
    (wait,) = shop.sql('SELECT extract(epoch FROM "nextAt" - now())::float8 FROM twinlens_pending')
    assert wait[0] > 60  # longer than after the first try
    for attempt in range(2, MOST_ATTEMPTS):
        shop.make_due()
        assert embed(shop) == (Tally(put_off=1) if attempt < MOST_ATTEMPTS - 1 else Tally(set_aside=1))
    assert shop.states() == {"late": "ready", "never": "failed"}
    assert shop.queue() == {"never": (MOST_ATTEMPTS, 0, "bytes_missing")}


def test_what_was_set_aside_is_tried_again_when_somebody_says_so(shop: OtherSystem) -> None:
    shop.add("poem", b"a poem")
    shop.add("theirs", picture(2), status="failed")  # for a reason of the other system's
    embed(shop)
    shop.put("uploads/poem", picture(1))
    assert embed(shop) == Tally()
    assert put_back(shop.url) == 1
    assert shop.queue() == {"poem": (0, 0, None)}
    assert shop.sql("SELECT action FROM twinlens_audit") == [("worker retry-failed",)]
    assert embed(shop) == Tally(embedded=1)
    assert shop.states() == {"poem": "ready", "theirs": "failed"}
    assert put_back(shop.url) == 0


def test_a_key_that_no_store_can_read_does_not_stop_the_others(shop: OtherSystem) -> None:
    shop.sql(
        """INSERT INTO media (id, "productId", "clientId", "s3Key", status)
        VALUES ('odd', 'p', 'demo', '../../elsewhere//x', 'pending'), ('empty', 'p', 'demo', '', 'pending')"""
    )
    shop.add("good", picture(1))
    assert embed(shop) == Tally(embedded=1, put_off=2)
    assert shop.states()["good"] == "ready"
    (why,) = reasons(shop.url)
    assert (why.code, why.media) == ("storage_failed", 2)
    assert why.reason.startswith("The picture cannot be read from the store: ")


def test_a_store_that_is_away_ends_a_run_that_was_to_end_and_nothing_is_held_to_blame(
    shop: OtherSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.add("m", picture(1))
    looks: list[MediaStore] = []

    async def look(store: MediaStore) -> None:
        looks.append(store)
        if len(looks) > 1:  # it went away after the run had begun
            raise StoreUnavailable(reason="gone")

    async def gone(store: MediaStore, key: str, *, at_once: int) -> Opened:
        raise StoreUnavailable(reason="gone")

    monkeypatch.setattr(MediaStore, "look", look)
    monkeypatch.setattr(MediaStore, "open", gone)
    with pytest.raises(StoreUnavailable):
        embed(shop)
    assert shop.queue() == {"m": (0, 0, None)}


def test_a_store_that_is_full_is_no_pictures_fault(shop: OtherSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(store: MediaStore, key: str, data: bytes) -> None:
        raise StoreUnavailable(reason="No space left on device")

    shop.add("m", picture(1))
    shop.add("has-its-own", picture(2), thumbnailKey="theirs.webp")
    with monkeypatch.context() as patched:
        patched.setattr(MediaStore, "put", full)
        with pytest.raises(StoreUnavailable):
            embed(shop)
    assert shop.queue()["m"] == (0, 0, None)
    embed(shop)
    assert shop.ready() == {"m", "has-its-own"}


# --- rows that change meanwhile --------------------------------------------------------------------------------------


def on_read(monkeypatch: pytest.MonkeyPatch, key: str, then: Any) -> None:
    """Have something happen once, after the bytes of this key were read."""
    read = MediaStore.open
    done: list[str] = []

    async def opened(store: MediaStore, name: str, *, at_once: int) -> Opened:
        found: Opened = await read(store, name, at_once=at_once)
        if name == key and not done:
            done.append(name)
            then()
        return found

    monkeypatch.setattr(MediaStore, "open", opened)


def test_a_picture_that_changes_while_it_is_embedded_is_embedded_again(
    shop: OtherSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        shop.put("uploads/m", picture(2))
        shop.sql("UPDATE media SET status = 'pending' WHERE id = 'm'")

    shop.count_embeddings()
    shop.add("m", picture(1))
    on_read(monkeypatch, "uploads/m", change)
    assert embed(shop) == Tally(embedded=1, changed=1)
    assert shop.embedded() == ["m"]
    with serving(shop.url, shop.store.parent) as client:
        assert found(client, picture(2)) == [("m", 100.0)]
    thumbnails = [*(shop.store / "thumbnails").rglob("*.webp")]
    assert len(thumbnails) == 1  # that of the former picture is gone


def test_a_media_that_is_deleted_or_becomes_ready_otherwise_meanwhile_is_left_alone(
    shop: OtherSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change() -> None:
        shop.sql("DELETE FROM media WHERE id = 'gone'")
        shop.sql("UPDATE media SET status = 'ready', width = 5 WHERE id = 'theirs'")
        shop.sql("UPDATE media SET status = 'pending' WHERE id = 'poem'")

    shop.add("gone", picture(1))
    shop.add("poem", b"a poem")
    shop.add("theirs", picture(2))
    on_read(monkeypatch, "uploads/poem", change)
    assert embed(shop) == Tally(set_aside=1, changed=3)
    assert shop.sql("SELECT id, status, width FROM media ORDER BY id") == [
        ("poem", "failed", None),
        ("theirs", "ready", 5),
    ]
    assert not shop.sql("SELECT 1 FROM twinlens_space_1")


def test_a_product_that_somebody_has_locked_does_not_hold_up_the_others(
    shop: OtherSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql("""INSERT INTO products (id, "clientId", name) VALUES ('locked', 'demo', 'L')""")
    shop.add("m", picture(1))
    shop.add("held", picture(2), product="locked")
    with psycopg.connect(shop.url) as other:
        other.execute("UPDATE products SET name = 'M' WHERE id = 'locked'")
        assert embed(shop) == Tally(embedded=1, put_off=1)
    assert shop.queue() == {"held": (1, 0, "database_busy")}
    shop.make_due()
    assert embed(shop) == Tally(embedded=1)


def test_a_worker_whose_number_is_not_locked_any_more_takes_nothing_until_it_has_another_one(
    shop: OtherSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would take from it what it has in hand."""
    marks: list[list[tuple[bool]]] = []

    def lose() -> None:
        shop.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s",
            LOCKS_OF_EMBEDDING,
        )

    def look() -> None:
        marks.append(
            shop.sql(
                """SELECT DISTINCT worker::oid IN (SELECT objid FROM pg_locks WHERE locktype = 'advisory')
                FROM twinlens_pending WHERE worker IS NOT NULL"""
            )
        )

    shop.count_embeddings()
    pictures = shop.add_many(300)
    on_read(monkeypatch, "uploads/m0000", lose)
    on_read(monkeypatch, "uploads/m0290", look)
    assert embed(shop, patience=60).embedded == 300
    assert marks == [[(True,)]]
    assert shop.embedded() == sorted(pictures)


# --- which rows ------------------------------------------------------------------------------------------------------


def test_videos_are_left_alone(shop: OtherSystem) -> None:
    shop.add("film", b"frames", kind="video")
    shop.add("m", picture(1))
    assert embed(shop) == Tally(embedded=1)
    assert shop.states() == {"film": "pending", "m": "ready"}
    assert shop.queue() == {}


def test_a_row_that_is_ready_from_the_start_never_enters_the_queue(shop: OtherSystem) -> None:
    shop.add("m", picture(1), status="ready")
    shop.sql("UPDATE media SET width = 3")
    assert shop.queue() == {}


def test_rows_that_were_written_without_triggers_are_found(shop: OtherSystem) -> None:
    """As logical replication writes them."""
    with psycopg.connect(shop.url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            """INSERT INTO media (id, "productId", "clientId", "s3Key", status)
            VALUES ('m', 'p', 'demo', 'uploads/m', 'pending')"""
        )
    assert shop.queue() == {}
    shop.put("uploads/m", picture(1))
    assert embed(shop) == Tally(embedded=1)
    with psycopg.connect(shop.url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE media SET status = 'pending'")
    assert embed(shop) == Tally(embedded=1)
    assert shop.queue() == {}


def test_a_role_that_sees_one_client_alone_may_write_pending_rows_of_that_client(shop: OtherSystem) -> None:
    shop.put("uploads/m", picture(1))
    insert = """INSERT INTO media (id, "productId", "clientId", "s3Key", status)
        VALUES (%s, 'p', %s, 'uploads/m', 'pending')"""
    with psycopg.connect(shop.url) as connection:
        connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
        connection.execute("SELECT set_config('twinlens.client', 'demo', false)")
        connection.execute(insert.encode(), ("m", "demo"))
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM twinlens_pending")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(insert.encode(), ("n", "acme"))
    assert embed(shop) == Tally(embedded=1)
    assert shop.states() == {"m": "ready"}


def test_what_was_pending_before_there_was_a_queue_is_in_it(bare_database_url: str, tmp_path: Path) -> None:
    older_database(bare_database_url, tmp_path / "first")
    for media, status in (("one", "pending"), ("two", "ready"), ("three", "failed")):
        run_sql(bare_database_url, "INSERT INTO products (id, \"clientId\", name) VALUES (%s, 'c', 'P')", (media,))
        run_sql(
            bare_database_url,
            """INSERT INTO media (id, "productId", "clientId", "s3Key", status) VALUES (%s, %s, 'c', 'k', %s)""",
            (media, media, status),
        )
    assert len(migrate(bare_database_url)) == len(load_migrations()) - 1
    assert run_sql(bare_database_url, 'SELECT "mediaId" FROM twinlens_pending') == [("one",)]


# --- beside servers --------------------------------------------------------------------------------------------------


def test_servers_leave_pending_pictures_to_workers(shop: OtherSystem) -> None:
    shop.add("pending", picture(1))
    shop.add("failed", b"a poem", status="failed")
    with serving(shop.url, shop.store.parent) as client:
        shop.add("ready", picture(2), status="ready")
        until(lambda: shop.sql("SELECT 1 FROM image_embeddings"))  # servers embed what is ready and has no vector
        assert shop.sql('SELECT "mediaId" FROM image_embeddings') == [("ready",)]
        assert shop.queue() == {"pending": (0, 0, None)}
        assert not shop.sql("SELECT 1 FROM twinlens_unreadable")
        assert embed(shop) == Tally(embedded=1)
        # Written by another process, and found by the next search.
        assert found(client, picture(1))[0] == ("pending", 100.0)


def test_a_worker_with_another_model_than_the_live_one_does_not_begin(shop: OtherSystem) -> None:
    open_old(shop.url)
    shop.add("m", picture(1))
    with pytest.raises(SpaceNotLive):
        embed(shop)
    assert shop.queue() == {"m": (0, 0, None)}


def test_a_failure_that_nobody_foresaw_is_one_pictures(shop: OtherSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("of ours")

    shop.add("bad", picture(1))
    shop.add("good", picture(2))
    on_read(monkeypatch, "uploads/bad", fail)
    assert embed(shop) == Tally(embedded=1, put_off=1)
    assert reasons(shop.url) == [
        Reason("internal_error", False, 1, "The fault is ours and has been logged (ValueError).", "bad")
    ]
