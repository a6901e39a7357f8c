"""The catalogue and its schema, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import operator
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import AsyncConnection, conninfo

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Conditions, Filter
from server.catalogue.indexes import EFFORTS, Maintained, effort
from server.catalogue.rows import Match, NewMedia, Query, SpaceRow
from server.catalogue.similarity import similarity
from server.database.isolation import SERVING_ROLE
from server.database.locks import LOCK_INDEXES, LOCKS
from server.database.pool import Pool, open_pool
from server.database.session import setting
from server.errors import (
    ArtifactInvalid,
    BadParameter,
    CatalogueUnavailable,
    DatabaseUnusable,
    MediaNotFound,
    ProductNotFound,
    SkuTaken,
    SpaceNotLive,
    VectorRefused,
)
from tests.support.catalogue import SPACE, D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.legacy import LEGACY_SQL
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio

OTHER_SPACE = "b" * 64


async def search(catalogue: Catalogue, *asked: Any, **more: Any) -> list[Match]:
    return (await catalogue.search(Query(*asked, **more))).matches


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    return open_test_space(database_url)


@pytest.fixture
async def owners(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        yield pool


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def pool(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    """Of the owner, whom no policy holds, and of the role that serves: both find the same."""
    async with open_pool(database_url, min_size=1, max_size=8, timeout=30, role=request.param) as pool:
        yield pool


@pytest.fixture
def catalogue(pool: Pool, space: SpaceRow, owners: Pool) -> Catalogue:
    return Catalogue(pool, space, background=owners)


@pytest.fixture
def vectors(unit_vectors: UnitVectors) -> NDArray[np.float32]:
    return unit_vectors(300, D)


def digest_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def new_media(product_id: str, file: str, client_id: str = "acme", media_id: str | None = None) -> NewMedia:
    return NewMedia(
        id=media_id or f"media-{uuid.uuid4().hex}",
        product_id=product_id,
        client_id=client_id,
        s3_key=f"{client_id}/{file}",
        thumbnail_key=f"{client_id}/{file}.thumbnail",
        content_type="image/jpeg",
        bytes=1234,
        width=640,
        height=480,
        content_digest=digest_of(file),
        upload=uuid.uuid4().hex,
    )


async def add(
    catalogue: Catalogue, number: int, vector: NDArray[np.float32], client_id: str = "acme", active: bool = True
) -> str:
    """A product with one media; gives the media's id."""
    product = f"{client_id}-{number:05}"
    await catalogue.put_product(client_id, product, name=f"Product {number}", is_active=active)
    media, created = await catalogue.add_media(
        new_media(product, f"{client_id}-{number}", client_id, f"m-{client_id}-{number:05}"), vector
    )
    assert created
    return media.id


# --- products --------------------------------------------------------------------------------------------------------


async def test_a_product_is_created_then_changed(catalogue: Catalogue) -> None:
    made, created = await catalogue.put_product("acme", "p", name="Mouse", sku="M-1")
    assert created
    assert (made.id, made.client_id, made.name, made.sku, made.is_active) == ("p", "acme", "Mouse", "M-1", True)
    changed, created = await catalogue.put_product("acme", "p", name="Mouse 2", sku=None, is_active=False)
    assert not created
    assert (changed.name, changed.sku, changed.is_active) == ("Mouse 2", None, False)
    assert changed.created_at == made.created_at
    assert changed.updated_at > made.updated_at
    assert await catalogue.get_product("acme", "p") == changed


async def test_a_product_of_another_client_is_not_found(catalogue: Catalogue) -> None:
    await catalogue.put_product("acme", "p", name="Mouse")
    for attempt in (catalogue.get_product("other", "p"), catalogue.delete_product("other", "p")):
        with pytest.raises(ProductNotFound):
            await attempt
    assert (await catalogue.get_product("acme", "p")).name == "Mouse"


async def test_one_client_that_puts_the_same_product_at_once_gets_it_each_time(catalogue: Catalogue) -> None:
    for number in range(20):
        results = await asyncio.gather(
            *(catalogue.put_product("acme", f"p{number}", name="x", sku=f"s{number}") for _ in range(4))
        )
        assert sum(created for _, created in results) == 1


async def test_a_sku_is_taken_once_per_client(catalogue: Catalogue) -> None:
    await catalogue.put_product("acme", "p", name="x", sku="S")
    await catalogue.put_product("other", "q", name="x", sku="S")
    await catalogue.put_product("acme", "without", name="x")
    await catalogue.put_product("acme", "without too", name="x")
    with pytest.raises(SkuTaken):
        await catalogue.put_product("acme", "r", name="x", sku="S")
    with pytest.raises(SkuTaken):
        await catalogue.put_product("acme", "without", name="x", sku="S")


@pytest.mark.parametrize(
    ("product_id", "name"), [("", "x"), ("p" * 256, "x"), ("p\0", "x"), ("p", "\ud800"), ("p\ud800", "x")]
)
async def test_texts_that_the_database_cannot_hold_are_bad_parameters(
    catalogue: Catalogue, product_id: str, name: str
) -> None:
    with pytest.raises(BadParameter):
        await catalogue.put_product("acme", product_id, name=name)


async def test_deleting_a_product_gives_the_keys_of_the_objects_of_its_media(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    await catalogue.put_product("acme", "p", name="x")
    await catalogue.add_media(new_media("p", "one"), vectors[0])
    await catalogue.add_media(replace(new_media("p", "two"), thumbnail_key=None), vectors[1])
    assert sorted((await catalogue.delete_product("acme", "p"))[1]) == ["acme/one", "acme/one.thumbnail", "acme/two"]
    assert len(await catalogue.digests("acme")) == 0
    assert await search(catalogue, "acme", vectors[0]) == []
    with pytest.raises(ProductNotFound):
        await catalogue.delete_product("acme", "p")


# --- media -----------------------------------------------------------------------------------------------------------


async def test_a_media_is_added_read_and_deleted(catalogue: Catalogue, vectors: NDArray[np.float32]) -> None:
    await catalogue.put_product("acme", "p", name="x")
    new = new_media("p", "one")
    media, created = await catalogue.add_media(new, vectors[0])
    assert created
    assert (media.status, media.kind, media.content_digest) == ("ready", "image", digest_of("one"))
    assert (media.bytes, media.width, media.height, media.thumbnail_key) == (1234, 640, 480, "acme/one.thumbnail")
    assert await catalogue.get_media("acme", new.id) == media
    assert await catalogue.find_media_by_digest("acme", "p", digest_of("one")) == media
    assert await catalogue.find_media_by_digest("other", "p", digest_of("one")) is None
    stored = await catalogue.media_vector("acme", new.id)
    assert stored is not None
    assert stored.embedding.dtype == np.float32
    assert (stored.embedding == vectors[0].astype(np.float16).astype(np.float32)).all()
    assert not stored.blank
    assert await catalogue.media_vector("other", new.id) is None
    assert len(await catalogue.digests("acme")) == 1
    assert await catalogue.digests("acme") == {("p", digest_of("one"))}
    assert await catalogue.digests("other") == set()
    for attempt in (catalogue.get_media("other", new.id), catalogue.delete_media("other", new.id)):
        with pytest.raises(MediaNotFound):
            await attempt
    assert await catalogue.delete_media("acme", new.id) == media
    with pytest.raises(MediaNotFound):
        await catalogue.get_media("acme", new.id)
    assert await search(catalogue, "acme", vectors[0]) == []


async def test_the_same_bytes_again_give_the_media_that_is_there(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    await catalogue.put_product("acme", "p", name="x")
    await catalogue.put_product("acme", "q", name="x")
    first, _ = await catalogue.add_media(new_media("p", "one"), vectors[0])
    again, created = await catalogue.add_media(new_media("p", "one"), vectors[0])
    assert (again, created) == (first, False)
    _, created = await catalogue.add_media(new_media("q", "one"), vectors[0])
    assert created


async def test_the_same_bytes_sent_many_times_at_once_give_one_media(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    for number in range(10):
        await catalogue.put_product("acme", f"p{number}", name="x")
        results = await asyncio.gather(
            *(catalogue.add_media(new_media(f"p{number}", "one"), vectors[0]) for _ in range(8))
        )
        assert len({media.id for media, _ in results}) == 1
        assert sum(created for _, created in results) == 1
    assert len(await catalogue.digests("acme")) == 10


async def test_a_media_without_a_vector_in_this_space_gets_one(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    media = await add(catalogue, 1, vectors[0])
    run_sql(database_url, f"DELETE FROM {catalogue.space.table}")
    assert await catalogue.digests("acme") == set()
    again, created = await catalogue.add_media(new_media("acme-00001", "acme-1"), vectors[0])
    assert (again.id, created) == (media, False)
    assert [match.media_id for match in await search(catalogue, "acme", vectors[0])] == [media]


async def test_nothing_is_added_to_a_product_that_is_not_there(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    await catalogue.put_product("other", "p", name="x")
    with pytest.raises(ProductNotFound):
        await catalogue.add_media(new_media("p", "one"), vectors[0])
    with pytest.raises(ProductNotFound):
        await catalogue.add_media(new_media("nothing", "one"), vectors[0])


async def test_a_vector_that_is_refused_leaves_no_media_behind(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.put_product("acme", "p", name="x")
    run_sql(database_url, f"ALTER TABLE {catalogue.space.table} ADD CHECK (false)")
    with pytest.raises(BadParameter):
        await catalogue.add_media(new_media("p", "one"), vectors[0])
    assert len(await catalogue.digests("acme")) == 0


# --- what is not a vector of the space -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param([1.0] * D, id="too long"),
        pytest.param([0.0] * D, id="zero"),
        pytest.param([1.002] + [0.0] * (D - 1), id="a little too long"),
        pytest.param([0.998] + [0.0] * (D - 1), id="a little too short"),
        pytest.param([float("nan")] + [0.0] * (D - 1), id="NaN"),
        pytest.param([float("inf")] + [0.0] * (D - 1), id="infinite"),
        pytest.param([1e30] + [0.0] * (D - 1), id="beyond halves"),
        pytest.param([1.0] + [0.0] * D, id="a dimension too many"),
        pytest.param([1.0], id="too few dimensions"),
        pytest.param([[1.0] + [0.0] * (D - 1)], id="a batch"),
        pytest.param(["x"] * D, id="no numbers"),
        pytest.param([], id="empty"),
        pytest.param(1.0, id="a number"),
    ],
)
async def test_a_vector_that_cannot_be_compared_is_refused(catalogue: Catalogue, vector: Any) -> None:
    await catalogue.put_product("acme", "p", name="x")
    with pytest.raises(VectorRefused):
        await search(catalogue, "acme", vector)
    with pytest.raises(VectorRefused):
        await catalogue.add_media(new_media("p", "one"), vector)


ONE = "[1" + ",0" * (D - 1) + "]"


@pytest.mark.parametrize(
    ("number", "embedding"),
    [
        pytest.param(1, "[1.01" + ",0" * (D - 1) + "]", id="too long"),
        pytest.param(1, "[0.99" + ",0" * (D - 1) + "]", id="too short"),
        pytest.param(1, None, id="NULL"),
        pytest.param(1, "[NaN" + ",0" * (D - 1) + "]", id="NaN"),
        pytest.param(1, "[Infinity" + ",0" * (D - 1) + "]", id="infinite"),
        pytest.param(1, "[1,0]", id="other dimensions"),
        pytest.param(2, ONE, id="another space"),
        pytest.param(None, ONE, id="no space"),
    ],
)
async def test_the_database_itself_refuses_what_is_not_a_vector_of_the_space(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str, number: int | None, embedding: str | None
) -> None:
    media = await add(catalogue, 1, vectors[0])
    table = catalogue.space.table
    run_sql(database_url, f"DELETE FROM {table}")
    insert = f'INSERT INTO {table} (space, "mediaId", embedding) VALUES (%s, %s, %s)'
    with pytest.raises((psycopg.IntegrityError, psycopg.DataError)):
        run_sql(database_url, insert, (number, media, embedding))
    run_sql(database_url, insert, (1, media, ONE))
    with pytest.raises((psycopg.IntegrityError, psycopg.DataError)):
        run_sql(database_url, f"UPDATE {table} SET space = %s, embedding = %s", (number, embedding))


async def test_a_vector_says_of_which_space_it_is(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    media = await add(catalogue, 1, vectors[0])
    run_sql(database_url, f"DELETE FROM {catalogue.space.table}")
    with pytest.raises(psycopg.errors.NotNullViolation):
        run_sql(
            database_url, f'INSERT INTO {catalogue.space.table} ("mediaId", embedding) VALUES (%s, %s)', (media, ONE)
        )


async def test_a_vector_without_media_is_refused(catalogue: Catalogue, database_url: str) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run_sql(
            database_url,
            f'INSERT INTO {catalogue.space.table} (space, "mediaId", embedding) VALUES (1, %s, %s)',
            ("nothing", ONE),
        )


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO image_embeddings VALUES ('m-acme-00001', '{ONE}')",
        "INSERT INTO image_embeddings (\"mediaId\") VALUES ('m-acme-00001')",
        'INSERT INTO image_embeddings SELECT "mediaId", embedding FROM image_embeddings WHERE false',
        f"UPDATE image_embeddings SET embedding = '{ONE}'",
        f"UPDATE image_embeddings SET embedding = '{ONE}' WHERE \"mediaId\" = 'nothing'",
        "DELETE FROM image_embeddings",
        "DELETE FROM image_embeddings WHERE \"mediaId\" = 'nothing'",
        'MERGE INTO image_embeddings ie USING media m ON m.id = ie."mediaId" WHEN MATCHED THEN DELETE',
    ],
)
async def test_image_embeddings_is_not_written_by_hand(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str, statement: str
) -> None:
    await add(catalogue, 1, vectors[0])
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refusal:
        run_sql(database_url, statement)
    assert "POST /v1/products/{id}/media" in (refusal.value.diag.message_hint or "")


async def test_image_embeddings_is_not_written_by_copy(database_url: str, space: SpaceRow) -> None:
    with (
        pytest.raises(psycopg.errors.FeatureNotSupported) as refusal,
        psycopg.connect(database_url) as connection,
        connection.cursor().copy("COPY image_embeddings FROM STDIN") as copy,
    ):
        copy.write_row(("m", ONE))
    assert "POST /v1/products/{id}/media" in (refusal.value.diag.message_hint or "")


async def test_image_embeddings_is_empty_until_a_space_is_live(database_url: str) -> None:
    assert run_sql(database_url, 'SELECT "mediaId", embedding FROM image_embeddings') == []
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        run_sql(database_url, f"INSERT INTO image_embeddings VALUES ('m', '{ONE}')")


# --- search ----------------------------------------------------------------------------------------------------------


def brute_force(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of the halves of `query` with the halves of each of `vectors`, in float64."""
    halves = np.vstack([query[None], vectors]).astype(np.float16).astype(np.float64)
    halves /= np.linalg.norm(halves, axis=1, keepdims=True)
    cosines: NDArray[np.float64] = halves[1:] @ halves[0]
    return cosines


async def test_matches_are_those_of_a_brute_force_search(catalogue: Catalogue, vectors: NDArray[np.float32]) -> None:
    gallery, queries = vectors[:100], vectors[100:110]
    for number, vector in enumerate(gallery):
        await add(catalogue, number, vector)
    for query in queries:
        expected = brute_force(query, gallery)
        matches = await search(catalogue, "acme", query, limit=10)
        assert [int(match.product_id[-5:]) for match in matches] == list(np.argsort(-expected)[:10])
        np.testing.assert_allclose([match.cosine for match in matches], np.sort(expected)[::-1][:10], atol=1e-6)
    assert matches[0].product_name == f"Product {int(matches[0].product_id[-5:])}"
    assert (matches[0].s3_key, matches[0].width, matches[0].height) == (
        f"acme/acme-{int(matches[0].product_id[-5:])}", 640, 480
    )  # fmt: skip


async def test_a_picture_finds_itself_first_at_one_hundred_percent(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    for number, vector in enumerate(vectors[:50]):
        await add(catalogue, number, vector)
    for number, vector in enumerate(vectors[:50]):
        matches = await search(catalogue, "acme", vector)
        assert matches[0].media_id == f"m-acme-{number:05}"
        assert matches[0].cosine == 1.0
        assert similarity(matches[0].cosine) == 100.0
        assert matches[1].cosine < 1.0


async def test_of_equal_matches_the_same_file_is_first_then_the_media_id_decides(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    for number in reversed(range(60)):
        await add(catalogue, number, vectors[0])
    for limit in (1, 5, 60):
        last = await search(catalogue, "acme", vectors[0], limit=limit, digest=digest_of("acme-59"))
        assert [match.media_id for match in last] == [
            "m-acme-00059",
            *(f"m-acme-{number:05}" for number in range(limit - 1)),
        ]
        without = await search(catalogue, "acme", vectors[0], limit=limit)
        assert [match.media_id for match in without] == [f"m-acme-{number:05}" for number in range(limit)]


async def test_min_similarity_is_compared_with_the_figure_that_is_shown(catalogue: Catalogue) -> None:
    query = np.eye(D, dtype=np.float32)[0]
    for number, cosine in enumerate((1.0, 0.8995, 0.5, 0.0, -1.0)):
        vector = np.zeros(D, dtype=np.float32)
        vector[:2] = cosine, np.sqrt(1 - cosine**2)
        await add(catalogue, number, vector)
    shown = [similarity(match.cosine) for match in await search(catalogue, "acme", query)]
    assert shown == [100.0, 95.0, 75.0, 50.0, 0.0]
    for minimum, count in ((100.0, 1), (95.0, 2), (95.05, 1), (50.0, 4), (0.0, 5)):
        assert len(await search(catalogue, "acme", query, min_similarity=minimum)) == count
    assert await search(catalogue, "acme", -query, min_similarity=100.0, limit=2) == [
        match for match in await search(catalogue, "acme", -query) if match.cosine == 1.0
    ]
    assert await search(catalogue, "acme", np.eye(D, dtype=np.float32)[5], min_similarity=60.0) == []


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_out_of_bounds_is_a_bad_parameter(
    catalogue: Catalogue, vectors: NDArray[np.float32], limit: int
) -> None:
    with pytest.raises(BadParameter):
        await search(catalogue, "acme", vectors[0], limit=limit)


async def test_inactive_products_and_other_clients_never_appear(
    catalogue: Catalogue, vectors: NDArray[np.float32]
) -> None:
    mine = await add(catalogue, 1, vectors[0])
    await add(catalogue, 2, vectors[0], active=False)
    theirs = await add(catalogue, 3, vectors[0], client_id="other")
    assert [match.media_id for match in await search(catalogue, "acme", vectors[0])] == [mine]
    assert [match.media_id for match in await search(catalogue, "other", vectors[0])] == [theirs]
    assert await search(catalogue, "nobody", vectors[0], digest=digest_of("acme-1")) == []
    found = await search(catalogue, "acme", vectors[0], digest=digest_of("acme-2"))
    assert [match.media_id for match in found] == [mine]


async def test_switching_a_product_by_hand_takes_effect_at_once(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    one, two = await add(catalogue, 1, vectors[0]), await add(catalogue, 2, vectors[0])

    async def found() -> list[str]:
        return [match.media_id for match in await search(catalogue, "acme", vectors[0])]

    run_sql(database_url, """UPDATE products SET "isActive" = false WHERE id = 'acme-00001'""")
    assert await found() == [two]
    run_sql(database_url, """UPDATE products SET "isActive" = NOT "isActive" """)
    assert await found() == [one]
    run_sql(database_url, """UPDATE products SET "isActive" = true""")
    assert await found() == [one, two]
    assert run_sql(database_url, f"SELECT count(*) FROM {catalogue.space.table} WHERE active") == [(2,)]


@pytest.mark.parametrize(
    ("change", "client", "active"),
    [
        ("UPDATE media SET status = 'pending'", "acme", False),
        ("UPDATE media SET kind = 'video'", "acme", False),
        ("""UPDATE products SET "clientId" = 'new' WHERE id = 'acme-00001'""", "new", True),
        ("""UPDATE products SET id = 'renamed', "isActive" = false WHERE id = 'acme-00001'""", "acme", False),
        ("""UPDATE media SET "productId" = 'idle'""", "acme", False),
        ("""UPDATE media SET "productId" = 'theirs', "clientId" = 'other'""", "other", True),
        ("""UPDATE media SET id = 'renamed'""", "acme", True),
    ],
)
async def test_changes_by_hand_are_followed_by_the_vectors(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str, change: str, client: str, active: bool
) -> None:
    await add(catalogue, 1, vectors[0])
    await catalogue.put_product("acme", "idle", name="x", is_active=False)
    await catalogue.put_product("other", "theirs", name="x")
    run_sql(database_url, change)
    rows = run_sql(database_url, f'SELECT "clientId", active, "mediaId" FROM {catalogue.space.table}')
    ids = run_sql(database_url, "SELECT id FROM media")
    assert rows == [(client, active, ids[0][0])]


async def test_a_media_cannot_belong_to_another_client_than_its_product(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    await add(catalogue, 1, vectors[0])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run_sql(database_url, """UPDATE media SET "clientId" = 'other'""")


async def test_truncating_takes_the_vectors_along(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    await add(catalogue, 1, vectors[0])
    run_sql(database_url, "TRUNCATE products CASCADE")
    assert run_sql(database_url, f"SELECT count(*) FROM {catalogue.space.table}") == [(0,)]


async def test_the_legacy_search_runs_unchanged_and_is_right(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    for number, vector in enumerate(vectors[:60]):
        await add(catalogue, number, vector, client_id="acme" if number % 3 else "other", active=number % 5 != 0)
    candidates = [number for number in range(60) if number % 3 and number % 5]
    with psycopg.connect(database_url) as connection:
        cursor = psycopg.RawCursor(connection)
        for query in vectors[100:110]:
            text = "[" + ",".join(str(float(value)) for value in query) + "]"
            rows = cursor.execute(LEGACY_SQL.encode(), (text, "acme", 7)).fetchall()
            halves = vectors[candidates].astype(np.float16).astype(np.float64)
            scores = -(halves @ query.astype(np.float64))
            best = np.argsort(scores)[:7]
            assert [row[0] for row in rows] == [f"acme-{candidates[index]:05}" for index in best]
            np.testing.assert_allclose([row[2] for row in rows], scores[best], atol=1e-6)
            assert rows[0][1].startswith("Product ")
            assert rows[0][4:] == (640, 480)


# --- two at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["switch", "insert"])
async def test_a_switch_off_is_not_lost_to_an_insert_at_the_same_time(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str, first: str
) -> None:
    """Two transactions overlap; whichever is first holds the other up, and the vector ends up inactive."""
    media = await add(catalogue, 1, vectors[0])
    table = catalogue.space.table
    run_sql(database_url, f"DELETE FROM {table}")
    switch = b"""UPDATE products SET "isActive" = false WHERE id = 'acme-00001'"""
    insert = f"""INSERT INTO {table} (space, "mediaId", embedding) VALUES (1, '{media}', '{ONE}')""".encode()
    early, late = (switch, insert) if first == "switch" else (insert, switch)
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two, ThreadPoolExecutor(1) as thread:
        one.execute(early)
        pending = thread.submit(two.execute, late)
        await wait_until_blocked(database_url, two.info.backend_pid)
        assert not pending.done()
        one.commit()
        await asyncio.wrap_future(pending)
        two.commit()
    assert run_sql(database_url, f"SELECT active FROM {table}") == [(False,)]
    assert await search(catalogue, "acme", vectors[0]) == []


@pytest.mark.parametrize("first", ["product", "media"])
async def test_a_product_and_its_media_that_change_at_once_agree_in_the_end(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str, first: str
) -> None:
    await add(catalogue, 1, vectors[0], active=False)
    run_sql(database_url, "UPDATE media SET status = 'pending'")
    statements = [b"""UPDATE products SET "isActive" = true""", b"UPDATE media SET status = 'ready'"]
    early, late = statements if first == "product" else reversed(statements)
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as two, ThreadPoolExecutor(1) as thread:
        one.execute(early)
        pending = thread.submit(two.execute, late)
        await wait_until_blocked(database_url, two.info.backend_pid)
        one.commit()
        await asyncio.wrap_future(pending)
        two.commit()
    assert run_sql(database_url, f"SELECT active FROM {catalogue.space.table}") == [(True,)]


async def wait_until_blocked(url: str, backend: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute("SELECT cardinality(pg_blocking_pids(%s))", (backend,)).fetchone()[0]:  # type: ignore[index]
            await asyncio.sleep(0.005)


async def test_adding_switching_and_deleting_at_once_ends_consistent(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    """A crowd on a few products. Deadlocks would come out as errors."""
    products = [f"p{number}" for number in range(3)]
    for product in products:
        await catalogue.put_product("acme", product, name="x")

    async def adder(worker: int) -> None:
        for number in range(15):
            try:
                media, _ = await catalogue.add_media(
                    new_media(products[number % 3], f"{worker}-{number}"), vectors[number]
                )
                if number % 4 == 0:
                    await catalogue.delete_media("acme", media.id)
            except (ProductNotFound, MediaNotFound):
                pass

    async def switcher(worker: int) -> None:
        for number in range(15):
            await catalogue.put_product("acme", products[(number + worker) % 3], name="x", is_active=bool(number % 2))

    async def deleter() -> None:
        for number in range(6):
            with contextlib.suppress(ProductNotFound):
                await catalogue.delete_product("acme", products[number % 3])
            await catalogue.put_product("acme", products[number % 3], name="x")

    await asyncio.gather(*(adder(worker) for worker in range(4)), *(switcher(worker) for worker in range(2)), deleter())
    assert run_sql(
        database_url,
        f"""
        SELECT count(*) FROM media m JOIN products p ON p.id = m."productId" LEFT JOIN {catalogue.space.table} v
        ON v."mediaId" = m.id WHERE v.active IS DISTINCT FROM p."isActive"
        """,
    ) == [(0,)]


# --- indexes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(database_url: str, space: SpaceRow, unit_vectors: UnitVectors) -> NDArray[np.float32]:
    """A client with 600 media, and two with a hundred."""
    gallery = unit_vectors(600, D, 1)
    fill(database_url, space, "large", gallery)
    fill(database_url, space, "small", unit_vectors(100, D, 2))
    fill(database_url, space, "o'small\\", unit_vectors(100, D, 3))
    run_sql(database_url, "ANALYZE")
    return gallery


async def test_a_large_client_gets_an_index_and_keeps_using_it(
    catalogue: Catalogue, pool: Pool, large: NDArray[np.float32], vectors: NDArray[np.float32]
) -> None:
    done = await catalogue.maintain_indexes(threshold=500)
    assert (done.built, done.dropped) == (("large",), ())
    assert await catalogue.maintain_indexes(threshold=500) == Maintained()
    name = catalogue.searcher._indexes.name_of("large")
    asked = Query("large", vectors[0], limit=10)
    parameters = catalogue.searcher._parameters(asked, Conditions.of(asked.filter))
    parameters |= {"candidates": 26}

    async def plan(connection: AsyncConnection[Any], query: bytes, client_id: str) -> str:
        async with connection.transaction():
            await connection.execute(*setting(effort(200)))
            cursor = await connection.execute(b"EXPLAIN " + query, {**parameters, "client_id": client_id}, prepare=True)
            return "\n".join(row[0] for row in await cursor.fetchall())

    async with pool.connection() as connection:
        for _ in range(20):
            assert f"Index Scan using {name}" in await plan(connection, catalogue._queries["near_by_index"], "large")
        assert "hnsw" not in await plan(connection, catalogue._queries["near_by_index"], "small")
        assert "hnsw" not in await plan(connection, catalogue.searcher._statements.made["near_exactly active"], "large")


async def test_searches_really_go_through_the_index(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    before = await index_scans(catalogue, database_url, "large")
    for query in vectors[:20]:
        found = await catalogue.search(Query("large", query))
        assert (len(found.matches), found.plan) == (24, "index")
        found = await catalogue.search(Query("small", query))
        assert (len(found.matches), found.plan) == (24, "exact")
    assert await index_scans(catalogue, database_url, "large") == before + 20


@pytest.mark.parametrize("client_id", ["large", "small"])
async def test_blank_pictures_can_be_left_out_and_take_nobodys_place(
    catalogue: Catalogue,
    large: NDArray[np.float32],
    vectors: NDArray[np.float32],
    database_url: str,
    client_id: str,
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    nearest = [match.media_id for match in await search(catalogue, client_id, vectors[0], limit=100)]
    run_sql(
        database_url,
        f'UPDATE {catalogue.space.table} SET blank = true WHERE "mediaId" = ANY(%s)',
        ([one for place, one in enumerate(nearest) if place % 10],),
    )
    found = await search(catalogue, client_id, vectors[0], limit=10, without_blank=True)
    assert [match.media_id for match in found] == nearest[::10]
    assert not any(match.blank for match in found)
    found = await search(catalogue, client_id, vectors[0], limit=10)
    assert [match.media_id for match in found] == nearest[:10]
    assert [match.blank for match in found] == [False] + [True] * 9
    (narrowed,) = await search(
        catalogue,
        client_id,
        vectors[0],
        filter=Filter(product_ids=(nearest[0], nearest[1])),
        without_blank=True,
    )
    assert narrowed.media_id == nearest[0]


async def index_scans(catalogue: Catalogue, database_url: str, client_id: str) -> int:
    """How often the client's index has been used. A session's own count reaches the view only when it is flushed."""
    async with catalogue._runner._pool.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    ((scans,),) = run_sql(
        database_url,
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s",
        (catalogue.searcher._indexes.name_of(client_id),),
    )
    return int(scans)


@pytest.mark.parametrize("limit", [1, 24, 500, 501, 600, 1000])
async def test_the_index_gives_what_an_exact_search_gives(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], limit: int
) -> None:
    exact = [await search(catalogue, "large", query, limit=limit) for query in vectors[:5]]
    await catalogue.maintain_indexes(threshold=500)
    indexed = [await search(catalogue, "large", query, limit=limit) for query in vectors[:5]]
    for one, other in zip(exact, indexed, strict=True):
        assert len(one) == len(other) == min(limit, 600)
        shared = {match.media_id for match in one} & {match.media_id for match in other}
        assert len(shared) >= 0.95 * len(one)


async def test_a_short_answer_from_the_index_is_answered_again_exactly(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    cut = b"""SELECT * FROM (%s) AS short LIMIT 3""" % catalogue.searcher._statements.made["near_by_index"]
    monkeypatch.setitem(catalogue.searcher._statements.made, "near_by_index", cut)
    assert len(await search(catalogue, "large", vectors[0], limit=3)) == 3
    matches = await search(catalogue, "large", vectors[0], limit=50)
    expected = brute_force(vectors[0], large)
    assert [int(match.product_id[-6:]) for match in matches] == list(np.argsort(-expected)[:50])


async def test_an_index_goes_when_its_client_has_shrunk_by_half(
    catalogue: Catalogue, large: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    run_sql(
        database_url,
        """UPDATE products SET "isActive" = false WHERE "clientId" = 'large' AND id >= 'large-000300'""",
    )
    assert await catalogue.maintain_indexes(threshold=500) == Maintained()
    run_sql(database_url, """DELETE FROM products WHERE "clientId" = 'large' AND id >= 'large-000200'""")
    done = await catalogue.maintain_indexes(threshold=500)
    assert (done.built, done.dropped) == ((), (catalogue.searcher._indexes.name_of("large"),))


async def test_an_index_that_was_left_half_built_is_built_again(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    run_sql(
        database_url,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        (catalogue.searcher._indexes.name_of("large"),),
    )
    assert len(await search(catalogue, "large", vectors[0])) == 24
    done = await catalogue.maintain_indexes(threshold=500)
    assert (done.built, done.dropped) == (("large",), (catalogue.searcher._indexes.name_of("large"),))


async def test_a_client_may_have_any_name(catalogue: Catalogue, large: NDArray[np.float32], database_url: str) -> None:
    done = await catalogue.maintain_indexes(threshold=90)
    assert set(done.built) == {"large", "small", "o'small\\"}
    before = await index_scans(catalogue, database_url, "o'small\\")
    assert len(await search(catalogue, "o'small\\", large[0])) == 24
    assert await index_scans(catalogue, database_url, "o'small\\") == before + 1


async def test_an_index_is_built_however_short_the_database_cuts_statements(
    catalogue: Catalogue, large: NDArray[np.float32], database_url: str
) -> None:
    name = conninfo.conninfo_to_dict(database_url)["dbname"]
    run_sql(database_url, f"ALTER DATABASE \"{name}\" SET statement_timeout = '20ms'")
    done = await catalogue.maintain_indexes(threshold=500)
    assert done.built == ("large",)


async def test_one_process_maintains_the_indexes_at_a_time(
    catalogue: Catalogue, large: NDArray[np.float32], database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS, LOCK_INDEXES))
        assert await catalogue.maintain_indexes(threshold=500) == Maintained(busy=True)
    done = await catalogue.maintain_indexes(threshold=500)
    assert done.built == ("large",)


async def test_the_same_file_is_found_even_where_the_index_overlooks_it(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    media = await add(catalogue, 1, vectors[0], client_id="large")
    blind = catalogue.searcher._statements.made["near_by_index"].replace(
        b"ORDER BY embedding <#>", b"AND \"mediaId\" <> '%s' ORDER BY embedding <#>" % media.encode()
    )
    monkeypatch.setitem(catalogue.searcher._statements.made, "near_by_index", blind)
    assert (await search(catalogue, "large", vectors[0]))[0].media_id != media
    assert (await search(catalogue, "large", vectors[0], digest=digest_of("large-1")))[0].media_id == media


# --- what a search promises, whatever the plan -----------------------------------------------------------------------


FILTERS: list[dict[str, Any]] = [
    {"attributes": {"shade": 1}},
    {"attributes": {"shade": [0, 3], "rare": False}},
    {"attributes": {"price": {"gte": 100, "lt": 400}}},
    {"attributes": {"price": {"lt": 12}}},
    {"attributes": {"rare": True}},
    {"attributes": {"tags": "odd"}, "kind": "image"},
    {"attributes": {"price": {"gt": 90}, "tags": ["even", "nothing"]}},
    {"attributes": {"tags": {"containsAll": ["even", "all"]}, "price": {"not": {"lt": 400}}}},
    {"attributes": {"shade": {"not": [1, 2]}, "nothing": {"exists": False}}},
    {"attributes": {"rare": {"not": False}, "price": {"exists": True}}},
    {"attributes": {"tags": {"contains": "odd"}, "added": {"gte": "2026-01-03", "lt": "2026-01-05"}}},
    {"attributes": {"nothing": "at all"}},
    {"productIds": ["large-000001", "large-000007", "small-000001", "nothing"]},
    {"kind": "video"},
]


def passes(number: int, where: dict[str, Any]) -> bool:
    """Whether the product of this number, as the fixture makes it, is one that the filter lets through."""
    facts: dict[str, Any] = {
        "shade": number % 5, "price": number, "rare": number % 50 == 0, "tags": ["all", ["even", "odd"][number % 2]],
        "added": f"2026-01-{number % 9 + 1:02}",
    }  # fmt: skip
    signs: dict[str, Callable[[Any, Any], bool]] = {
        "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
        "exists": lambda value, wanted: (value is not None) == wanted,
        "contains": lambda value, wanted: wanted in value,
        "containsAll": lambda value, wanted: {*wanted} <= {*value},
    }  # fmt: skip

    def holds(key: str, wanted: Any) -> bool:
        value = facts.get(key)
        if isinstance(wanted, dict):
            return all(
                not holds(key, operand) if sign == "not" else signs[sign](value, operand)
                for sign, operand in wanted.items()
            )
        has = value if isinstance(value, list) else [value]
        return any(one in has for one in (wanted if isinstance(wanted, list) else [wanted]))

    return (
        where.get("kind") != "video"
        and f"large-{number:06}" in where.get("productIds", [f"large-{number:06}"])
        and all(holds(key, wanted) for key, wanted in where.get("attributes", {}).items())
    )


@pytest.fixture
def described(large: NDArray[np.float32], database_url: str) -> NDArray[np.float32]:
    """The large client's products with attributes."""
    run_sql(
        database_url,
        """
        UPDATE products SET attributes = jsonb_build_object('shade', number % 5, 'price', number,
            'rare', number % 50 = 0, 'added', to_char(date '2026-01-01' + number % 9, 'YYYY-MM-DD'),
            'tags', jsonb_build_array(CASE number % 2 WHEN 0 THEN 'even' ELSE 'odd' END, 'all'))
        FROM (SELECT id AS key, substring(id from 7)::integer AS number FROM products WHERE "clientId" = 'large') n
        WHERE id = n.key
        """,
    )
    return large


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_a_filter_never_shortens_the_list_while_enough_matches_exist(
    catalogue: Catalogue, described: NDArray[np.float32], vectors: NDArray[np.float32], indexed: bool
) -> None:
    if indexed:
        await catalogue.maintain_indexes(threshold=500)
    plans = set()
    for where in FILTERS:
        allowed = np.array([passes(number, where) for number in range(len(described))])
        for query in vectors[:3]:
            cosines = np.where(allowed, brute_force(query, described), -2)
            expected = np.argsort(-cosines)[: min(24, allowed.sum())]
            found = await catalogue.search(Query("large", query, filter=Filter.of(where)))
            plans.add(found.plan)
            assert len(found.matches) == len(expected), where
            shared = {int(match.product_id[-6:]) for match in found.matches} & set(expected.tolist())
            # An index of 600 vectors in 16 dimensions, at the effort that was measured, overlooks next to nothing.
            assert len(shared) >= (len(expected) - 1 if indexed else len(expected)), where
    assert plans == ({"exact", "index"} if indexed else {"exact"})


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_products_that_are_not_active_are_found_where_any_are_asked_for(
    catalogue: Catalogue,
    described: NDArray[np.float32],
    vectors: NDArray[np.float32],
    database_url: str,
    indexed: bool,
) -> None:
    run_sql(database_url, """UPDATE products SET "isActive" = false WHERE attributes->>'shade' IN ('1', '2')""")
    run_sql(database_url, """UPDATE media SET status = 'pending' WHERE id = 'large-000001'""")
    if indexed:
        await catalogue.maintain_indexes(threshold=200)
    for more in ({}, {"attributes": {"shade": {"not": [0, 2]}}}, {"productIds": ["large-000001", "large-000006"]}):
        ready = np.array([number != 1 and passes(number, more) for number in range(len(described))])
        active = np.array([number % 5 not in (1, 2) for number in range(len(described))])
        for state, allowed in (({"isActive": "any"}, ready), ({}, ready & active)):
            cosines = np.where(allowed, brute_force(vectors[0], described), -2)
            found = await catalogue.search(Query("large", vectors[0], limit=1000, filter=Filter.of({**more, **state})))
            expected = np.argsort(-cosines)[: allowed.sum()].tolist()
            assert {int(match.product_id[-6:]) for match in found.matches} == {*expected}
            assert found.plan == "exact"
            first = await catalogue.search(Query("large", vectors[0], limit=5, filter=Filter.of({**more, **state})))
            assert first.plan == "exact" or not state


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_what_a_caller_may_search_in_holds_beside_the_querys_own_filter(
    catalogue: Catalogue, described: NDArray[np.float32], vectors: NDArray[np.float32], indexed: bool
) -> None:
    if indexed:
        await catalogue.maintain_indexes(threshold=500)
    for own, within in itertools.product(FILTERS, FILTERS[:3]):
        allowed = np.array([passes(number, own) and passes(number, within) for number in range(len(described))])
        query = Query("large", vectors[0], filter=Filter.of(own), within=Filter.of(within))
        found = (await catalogue.search(query)).matches
        assert len(found) == min(24, allowed.sum()), (own, within)
        assert all(allowed[int(match.product_id[-6:])] for match in found), (own, within)


async def test_twenty_searches_in_a_row_stay_with_the_index(
    catalogue: Catalogue, large: NDArray[np.float32], vectors: NDArray[np.float32], database_url: str
) -> None:
    """PostgreSQL's generic plan, which it makes after five runs of one statement, would leave the index out."""
    await catalogue.maintain_indexes(threshold=500)
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30) as pool:
        alone = Catalogue(pool, catalogue.space)
        before = await index_scans(catalogue, database_url, "large")
        plans = [(await alone.search(Query("large", vectors[0]))).plan for _ in range(20)]
        assert plans == ["index"] * 20
        assert await index_scans(alone, database_url, "large") == before + 20


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_of_many_equals_always_the_same_are_given(
    catalogue: Catalogue, large: NDArray[np.float32], space: SpaceRow, database_url: str, indexed: bool
) -> None:
    same = np.repeat(large[:1], 100, axis=0)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""DELETE FROM products WHERE "clientId" = 'small'""")
    fill(database_url, space, "equals", same)
    fill(database_url, space, "equals-and-others", large[:500])
    run_sql(database_url, "UPDATE products SET \"clientId\" = 'equals' WHERE \"clientId\" = 'equals-and-others'")
    if indexed:
        await catalogue.maintain_indexes(threshold=500)
    matches = await search(catalogue, "equals", large[0], limit=24)
    # 101 have the same vector; those with the lowest ids come, in their order.
    assert [match.media_id for match in matches] == [f"equals-{number:06}" for number in range(24)]
    assert {match.cosine for match in matches} == {1.0}
    few = await search(catalogue, "equals", large[0], limit=3, media_id="equals-000077", digest=None)
    assert [match.media_id for match in few] == ["equals-000077", "equals-000000", "equals-000001"]


async def test_the_same_file_is_found_before_its_vector_is_made(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    media = await add(catalogue, 1, vectors[0])
    await add(catalogue, 2, vectors[1])
    hidden = await add(catalogue, 3, vectors[2], active=False)
    run_sql(database_url, f'DELETE FROM {catalogue.space.table} WHERE "mediaId" = ANY(%s)', ([media, hidden],))
    assert media not in [match.media_id for match in await search(catalogue, "acme", vectors[0])]
    first = (await search(catalogue, "acme", vectors[0], digest=digest_of("acme-1")))[0]
    assert (first.media_id, first.cosine) == (media, 1.0)
    found = await search(catalogue, "acme", vectors[2], digest=digest_of("acme-3"))
    assert hidden not in [match.media_id for match in found]
    assert await search(catalogue, "other", vectors[0], digest=digest_of("acme-1")) == []


async def test_an_index_is_searched_with_the_ef_search_that_was_measured(
    catalogue: Catalogue, large: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    ((name, vectors, effort, recall),) = run_sql(
        database_url, 'SELECT name, vectors, "efSearch", recall FROM twinlens_indexes'
    )
    assert (name, vectors) == (catalogue.searcher._indexes.name_of("large"), 600)
    assert effort in EFFORTS
    assert recall >= 0.995
    run_sql(database_url, "DELETE FROM twinlens_indexes")  # as when an index was built before indexes were measured
    assert await catalogue.maintain_indexes(threshold=500) == Maintained()
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_indexes") == [(1,)]
    run_sql(database_url, "UPDATE twinlens_indexes SET recall = 0.9")  # as when the target has been raised since
    assert await catalogue.maintain_indexes(threshold=500) == Maintained()
    assert run_sql(database_url, "SELECT recall >= 0.995 FROM twinlens_indexes") == [(True,)]
    run_sql(database_url, """DELETE FROM products WHERE "clientId" = 'large'""")
    await catalogue.maintain_indexes(threshold=500)
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_indexes") == [(0,)]


async def test_little_written_is_no_reason_to_count_every_client_again(
    catalogue: Catalogue, large: NDArray[np.float32], database_url: str
) -> None:
    await catalogue.maintain_indexes(threshold=500)
    run_sql(database_url, f'DROP INDEX "{catalogue.searcher._indexes.name_of("large")}"')
    assert await catalogue.maintain_indexes(threshold=5000, thorough=False) == Maintained()
    assert (await catalogue.maintain_indexes(threshold=500)).built == ("large",)


# --- spaces ----------------------------------------------------------------------------------------------------------


def test_an_empty_database_takes_the_artifacts_space_as_its_live_one(database_url: str) -> None:
    row = open_test_space(database_url)
    assert row == SpaceRow(number=1, id=SPACE, dimensions=D, model="test", live=True)
    assert open_test_space(database_url) == row


def test_another_space_than_the_live_one_stops_the_start(database_url: str) -> None:
    open_test_space(database_url)
    with pytest.raises(SpaceNotLive) as refusal:
        open_test_space(database_url, OTHER_SPACE)
    assert (refusal.value.artifact, refusal.value.live) == (OTHER_SPACE, SPACE)
    assert run_sql(database_url, "SELECT id FROM twinlens_spaces") == [(SPACE,)]


def test_processes_that_start_at_once_agree_on_one_space(database_url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        rows = list(threads.map(open_test_space, [database_url] * 6))
    assert len(set(rows)) == 1

    assert run_sql(database_url, "SELECT count(*) FROM twinlens_spaces") == [(1,)]


def test_the_row_of_a_space_names_the_folder_of_its_artifact(database_url: str) -> None:
    open_test_space(database_url)
    open_test_space(database_url, path="elsewhere")
    assert run_sql(database_url, 'SELECT "artifactPath", manifest FROM twinlens_spaces') == [
        ("elsewhere", {"space": SPACE})
    ]


@pytest.mark.parametrize("dimensions", [0, 4001])
def test_more_dimensions_than_an_index_takes_are_refused(database_url: str, dimensions: int) -> None:
    with pytest.raises(ArtifactInvalid, match="dimensions"):
        open_test_space(database_url, dimensions=dimensions)


def test_a_database_that_was_not_migrated_is_unusable(bare_database_url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="twinlens_spaces"):
        open_test_space(bare_database_url)


def test_a_space_cannot_change_its_dimensions(database_url: str) -> None:
    open_test_space(database_url)
    with pytest.raises(ArtifactInvalid, match="16"):
        open_test_space(database_url, dimensions=32)


def test_there_is_one_live_space_at_most(database_url: str) -> None:
    open_test_space(database_url)
    run_sql(database_url, "SELECT twinlens_register_space(%s, 8, 'x', '{}', 'x')", (OTHER_SPACE,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sql(database_url, "UPDATE twinlens_spaces SET live = true")


async def test_vectors_of_every_space_follow_their_product_and_the_view_shows_the_live_space(
    catalogue: Catalogue, pool: Pool, vectors: NDArray[np.float32], database_url: str
) -> None:
    media = await add(catalogue, 1, vectors[0])
    (number,) = run_sql(database_url, "SELECT twinlens_register_space(%s, 4000, 'x', '{}', 'x')", (OTHER_SPACE,))[0]
    other = Catalogue(pool, SpaceRow(number, OTHER_SPACE, 4000, "x", live=False))
    vector = np.full(4000, 1 / np.sqrt(4000), dtype=np.float32)
    _, created = await other.add_media(new_media("acme-00001", "acme-1"), vector)
    assert not created
    assert [match.media_id for match in await search(other, "acme", vector)] == [media]
    dimensions = b"SELECT vector_dims(embedding) FROM image_embeddings"
    assert run_sql(database_url, dimensions.decode()) == [(D,)]
    run_sql(database_url, "SELECT twinlens_make_live(%s)", (number,))
    assert run_sql(database_url, dimensions.decode()) == [(4000,)]
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        run_sql(database_url, "DELETE FROM image_embeddings")
    with pytest.raises(SpaceNotLive):
        open_test_space(database_url)
    run_sql(database_url, """UPDATE products SET "isActive" = false""")
    assert await search(other, "acme", vector) == []
    assert await search(catalogue, "acme", vectors[0]) == []


@pytest.mark.parametrize("dimensions", [512, 1024, 2048, 4000])
def test_vectors_stay_in_their_rows(database_url: str, unit_vectors: UnitVectors, dimensions: int) -> None:
    space = open_test_space(database_url, dimensions=dimensions)
    fill(database_url, space, "acme", unit_vectors(3, dimensions))
    assert run_sql(
        database_url, "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = %s::regclass", (space.table,)
    ) == [(0,)]


# --- roles -----------------------------------------------------------------------------------------------------------


async def test_a_role_that_may_only_write_products_switches_them_all_the_same(
    catalogue: Catalogue, vectors: NDArray[np.float32], database_url: str
) -> None:
    await add(catalogue, 1, vectors[0])
    role = f"older_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        connection.execute(f"GRANT SELECT, UPDATE ON products TO {role}".encode())
        connection.execute(f"GRANT SELECT ON image_embeddings TO {role}".encode())
        try:
            connection.execute(f"SET ROLE {role}".encode())
            connection.execute("SET search_path = pg_catalog")
            connection.execute("""UPDATE public.products SET "isActive" = false""")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):  # the view gives no more than the role has
                connection.execute("SELECT * FROM public.image_embeddings")
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert await search(catalogue, "acme", vectors[0]) == []


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_pool_without_a_free_connection_is_unavailable(database_url: str, space: SpaceRow) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=0.05) as pool:
        catalogue = Catalogue(pool, space)
        await pool.wait()
        await catalogue.ping()
        async with pool.connection():
            with pytest.raises(CatalogueUnavailable):
                await catalogue.ping()
        await catalogue.ping()
    with pytest.raises(CatalogueUnavailable):
        await catalogue.ping()
