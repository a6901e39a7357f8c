"""Ids are unique within a client: every call for two clients whose products and media have the same ids.

As the owner of the tables, and as a role under row-level security, which sees nothing of what another client has.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import Match, NewMedia, Query, SpaceRow
from server.database.pool import open_pool
from server.errors import CatalogueConflict, MediaNotFound, ProductNotFound, SkuTaken, StoreUnavailable
from tests.support.catalogue import D, open_test_space
from tests.support.databases import as_role, role, run_sql

pytestmark = pytest.mark.anyio

TWO = ("acme", "other")
ALONG, ACROSS = np.eye(D, dtype=np.float32)[:2]


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    return open_test_space(database_url)


@pytest.fixture
def restricted(database_url: str, space: SpaceRow) -> Iterator[str]:
    """The URL of a role that sees and writes the rows of one client alone."""
    with role(database_url) as name:
        tables = ("products", "media", space.table)
        own = """"clientId" = current_setting('twinlens.client', true)"""
        for table in tables:
            run_sql(database_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {name}")
            run_sql(database_url, f"CREATE POLICY one ON {table} TO {name} USING ({own})")
            run_sql(database_url, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        run_sql(database_url, f"GRANT SELECT ON twinlens_swept, twinlens_indexes TO {name}")
        yield as_role(database_url, name)
        for table in tables:
            run_sql(database_url, f"DROP POLICY one ON {table}")


@pytest.fixture(params=["owner", "restricted"])
async def catalogue(database_url: str, space: SpaceRow, request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    url = database_url if request.param == "owner" else request.getfixturevalue("restricted")
    async with seen_from(url, space) as catalogue:
        yield catalogue


@asynccontextmanager
async def seen_from(url: str, space: SpaceRow) -> AsyncIterator[Catalogue]:
    async with open_pool(url, min_size=1, max_size=8, timeout=30) as pool:
        yield Catalogue(pool, space)


def media_of(client_id: str, media_id: str, file: str | None = None, product_id: str = "p") -> NewMedia:
    file = file or client_id
    digest = hashlib.sha256(file.encode()).digest()
    key = f"media/{client_id}/{file}"
    return NewMedia(media_id, product_id, client_id, key, None, None, 1, 1, 1, digest, uuid.uuid4().hex)


async def fill(catalogue: Catalogue) -> None:
    """For each of the two a product `p` with the media `m` and `n`, of the same vectors."""
    for client_id in TWO:
        await catalogue.put_product(client_id, "p", name=client_id, sku="S", attributes={"of": client_id})
        for media_id, vector in (("m", ALONG), ("n", ACROSS)):
            made, created = await catalogue.add_media(media_of(client_id, media_id, f"{client_id}-{media_id}"), vector)
            assert (made.id, made.product_id, made.client_id, created) == (media_id, "p", client_id, True)


def stored(url: str, table: str) -> set[tuple[str, str, str | None]]:
    return set(run_sql(url, f'SELECT "clientId", id, "apiId" FROM {table}'))


# --- every call ------------------------------------------------------------------------------------------------------


async def test_each_client_has_its_own_product_and_media_of_an_id(catalogue: Catalogue, database_url: str) -> None:
    await fill(catalogue)
    elsewhere = id_elsewhere("other", "p")
    assert stored(database_url, "products") == {("acme", "p", None), ("other", elsewhere, "p")}
    assert {(client, api) for client, _, api in stored(database_url, "media")} == {
        ("acme", None), ("other", "m"), ("other", "n")
    }  # fmt: skip
    for client_id in TWO:
        product = await catalogue.get_product(client_id, "p")
        assert (product.id, product.client_id, product.name, product.sku) == ("p", client_id, client_id, "S")
        changed, created = await catalogue.put_product(client_id, "p", name=f"{client_id} 2", sku="S")
        assert (changed.id, changed.name, created) == ("p", f"{client_id} 2", False)
        assert changed.updated_at > changed.created_at == product.created_at
        media = await catalogue.get_media(client_id, "m")
        assert (media.id, media.product_id, media.s3_key) == ("m", "p", f"media/{client_id}/{client_id}-m")
        digest = hashlib.sha256(f"{client_id}-m".encode()).digest()
        assert await catalogue.find_media_by_digest(client_id, "p", digest) == media
        same, created = await catalogue.add_media(media_of(client_id, "m2", f"{client_id}-m"), ALONG)
        assert (same, created) == (media, False)
        vector = await catalogue.media_vector(client_id, "m")
        assert vector is not None
        assert np.allclose(vector.embedding, ALONG)
        assert {one.product_id for one in await catalogue.digests(client_id)} == {"p"}
    for hidden in (elsewhere, id_elsewhere("acme", "p")):
        for client_id in TWO:
            with pytest.raises(ProductNotFound):
                await catalogue.get_product(client_id, hidden)
    with pytest.raises(MediaNotFound):
        await catalogue.get_media("other", id_elsewhere("other", "m"))


async def test_searches_ask_for_and_answer_with_the_ids_of_the_api(catalogue: Catalogue) -> None:
    await fill(catalogue)
    for client_id in TWO:

        async def found(query: Query, client_id: str = client_id) -> list[tuple[str, str]]:
            matches: list[Match] = (await catalogue.search(query)).matches
            assert {match.product_name for match in matches} <= {client_id}
            return [(match.product_id, match.media_id) for match in matches]

        assert await found(Query(client_id, ALONG)) == [("p", "m"), ("p", "n")]
        assert await found(Query(client_id, ACROSS, filter=Filter(product_ids=("p",)))) == [("p", "n"), ("p", "m")]
        assert await found(Query(client_id, ACROSS, filter=Filter(product_ids=("q",)))) == []
        assert await found(Query(client_id, ALONG, filter=Filter(product_ids=(id_elsewhere("other", "p"),)))) == []
        # The media that is searched with is a candidate, however far; its id is the API's.
        assert await found(Query(client_id, ALONG, limit=1, media_id="n")) == [("p", "m")]
        between = (ALONG + ACROSS) / np.float32(np.sqrt(2))
        assert await found(Query(client_id, between)) == [("p", "m"), ("p", "n")]
        assert await found(Query(client_id, between, media_id="n")) == [("p", "n"), ("p", "m")]


async def test_equals_are_in_the_order_of_their_api_ids(catalogue: Catalogue, database_url: str) -> None:
    for client_id in TWO:
        await catalogue.put_product(client_id, "p", name=client_id)
    # In the database "b~..." lies behind "ba".
    await catalogue.add_media(media_of("acme", "b"), ALONG)
    for media_id in ("ba", "b", "a"):
        await catalogue.add_media(media_of("other", media_id, media_id), ALONG)
    ids = [match.media_id for match in (await catalogue.search(Query("other", ALONG))).matches]
    assert ids == ["a", "b", "ba"]
    run_sql(database_url, """ALTER TABLE media DROP CONSTRAINT "media_productId_contentDigest_key" """)
    run_sql(database_url, """UPDATE media SET "contentDigest" = sha256('same')""")
    for media_id, others in (("a", ["b", "ba"]), ("b", ["a", "ba"])):
        same = await catalogue.same_files("other", media_id)
        assert [(match.product_id, match.media_id) for match in same] == [("p", other) for other in others]
    assert await catalogue.same_files("acme", "b") == []


@pytest.mark.parametrize(("first", "second"), [TWO, TWO[::-1]])
async def test_deleting_one_clients_leaves_the_others(
    catalogue: Catalogue, database_url: str, first: str, second: str
) -> None:
    await fill(catalogue)
    assert (await catalogue.delete_media(first, "m")).product_id == "p"
    assert (await catalogue.get_media(second, "m")).client_id == second
    assert (await catalogue.delete_product(first, "p"))[1] == [f"media/{first}/{first}-n"]
    with pytest.raises(ProductNotFound):
        await catalogue.delete_product(first, "p")
    with pytest.raises(MediaNotFound):
        await catalogue.delete_media(first, "n")
    assert (await catalogue.get_product(second, "p")).name == second
    assert {(await catalogue.get_media(second, one)).id for one in "mn"} == {"m", "n"}
    # The one that is left keeps its id in the database; the next one takes what is free.
    before = stored(database_url, "products")
    assert (await catalogue.put_product(second, "p", name="again"))[1] is False
    assert stored(database_url, "products") == before
    assert (await catalogue.put_product(first, "p", name="again"))[1] is True
    assert len(stored(database_url, "products")) == 2


async def test_ids_in_no_form_of_the_apis_work_as_before(catalogue: Catalogue, database_url: str) -> None:
    odd = "a b/ü~1"
    run_sql(database_url, """INSERT INTO products (id, "clientId", name) VALUES (%s, 'acme', 'odd')""", [odd])
    run_sql(
        database_url,
        """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, %s, 'acme', 'k')""",
        [odd, odd],
    )
    assert (await catalogue.get_product("acme", odd)).id == odd
    assert (await catalogue.get_media("acme", odd)).product_id == odd
    assert (await catalogue.put_product("acme", odd, name="changed"))[1] is False
    assert (await catalogue.delete_product("acme", odd))[1] == ["k"]


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_a_sku_is_unique_within_a_client_whatever_the_ids(catalogue: Catalogue) -> None:
    await fill(catalogue)
    await catalogue.put_product("acme", "q", name="q")
    for client_id in TWO:
        for product_id in ("q", "new"):
            with pytest.raises(SkuTaken):
                await catalogue.put_product(client_id, product_id, name="x", sku="S")


async def test_a_media_id_that_the_client_has_is_refused_and_named_to_nobody(catalogue: Catalogue) -> None:
    await fill(catalogue)
    for client_id in TWO:
        with pytest.raises(CatalogueConflict, match=r"^Another media of this client has this id\.$"):
            await catalogue.add_media(media_of(client_id, "m", "another file"), ALONG)


async def test_an_upload_that_was_swept_is_refused_by_its_own_name_and_not_by_its_media_s(
    catalogue: Catalogue, database_url: str
) -> None:
    await catalogue.put_product("acme", "p", name="x")
    run_sql(database_url, """INSERT INTO twinlens_swept ("mediaId") VALUES ('m')""")
    await catalogue.add_media(media_of("acme", "m", "one"), ALONG)
    with pytest.raises(StoreUnavailable, match="took too long"):
        await catalogue.add_media(replace(media_of("acme", "n", "two"), upload="m"), ALONG)


async def test_a_conflict_quotes_no_row(catalogue: Catalogue, database_url: str) -> None:
    await catalogue.put_product("acme", "p", name="x")
    run_sql(database_url, "CREATE UNIQUE INDEX more ON products (name)")
    with pytest.raises(CatalogueConflict, match=r"^The catalogue holds this already\.$"):
        await catalogue.put_product("other", "q", name="x")


# --- at the same time ------------------------------------------------------------------------------------------------


async def test_clients_that_put_the_same_id_at_once_each_get_a_product(catalogue: Catalogue, database_url: str) -> None:
    clients = [f"client-{number}" for number in range(6)]
    for number in range(10):
        made = await asyncio.gather(*(catalogue.put_product(one, f"p{number}", name=one) for one in clients))
        assert [(product.name, product.id, created) for product, created in made] == [
            (one, f"p{number}", True) for one in clients
        ]
    rows = stored(database_url, "products")
    assert (len(rows), sum(api is None for _, _, api in rows)) == (60, 10)


@pytest.mark.parametrize("taken", [False, True])
async def test_twins_of_a_request_make_one_product(catalogue: Catalogue, taken: bool) -> None:
    for number in range(10):
        product_id = f"p{number}"
        if taken:
            await catalogue.put_product("other", product_id, name="theirs")
        made = await asyncio.gather(
            *(catalogue.put_product("acme", product_id, name=str(twin), sku=product_id) for twin in range(6))
        )
        assert sum(created for _, created in made) == 1
        assert {product.id for product, _ in made} == {product_id}


@pytest.mark.parametrize("taken", [False, True])
async def test_twins_of_an_upload_make_one_media(catalogue: Catalogue, taken: bool) -> None:
    for client_id in TWO:
        await catalogue.put_product(client_id, "p", name=client_id)
    for number in range(10):
        media_id = f"m{number}"
        if taken:
            await catalogue.add_media(media_of("other", media_id, media_id), ALONG)
        made = await asyncio.gather(
            *(catalogue.add_media(media_of("acme", media_id, media_id), ALONG) for _ in range(6))
        )
        assert sum(created for _, created in made) == 1
        assert {media.id for media, _ in made} == {media_id}


@pytest.mark.parametrize("kept", [False, True])
async def test_an_id_that_older_sql_is_just_inserting_for_another_client_is_waited_for(
    catalogue: Catalogue, database_url: str, kept: bool
) -> None:
    with psycopg.connect(database_url) as older:
        older.execute("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'other', 'theirs')""")
        putting = asyncio.create_task(catalogue.put_product("acme", "p", name="ours"))
        await asyncio.sleep(0.2)
        assert not putting.done()
        older.commit() if kept else older.rollback()
        product, created = await putting
    assert (product.id, product.name, created) == ("p", "ours", True)
    assert ("acme", id_elsewhere("acme", "p") if kept else "p", "p" if kept else None) in stored(
        database_url, "products"
    )


async def test_another_clients_row_that_is_locked_is_not_waited_for(catalogue: Catalogue, database_url: str) -> None:
    await catalogue.put_product("other", "p", name="theirs")
    with psycopg.connect(database_url) as older:
        older.execute("SELECT FROM products WHERE id = 'p' FOR UPDATE")
        product, created = await asyncio.wait_for(catalogue.put_product("acme", "p", name="ours"), 1.5)
    assert (product.name, created) == ("ours", True)


# --- plans, and the older SQL ----------------------------------------------------------------------------------------


async def test_lookups_use_the_index_also_under_a_policy(database_url: str, restricted: str) -> None:
    run_sql(
        database_url,
        """
        INSERT INTO products (id, "apiId", "clientId", name)
        SELECT 'p-' || n, CASE WHEN n % 10 = 0 THEN 'q-' || n END, 'c' || n % 5, 'x' FROM generate_series(1, 5000) n
        """,
    )
    run_sql(database_url, "ANALYZE products")
    lookup = """
        EXPLAIN (COSTS OFF) SELECT name FROM products
        WHERE "clientId" = 'c1' AND CASE WHEN "apiId" IS NULL THEN id ELSE "apiId" END = 'p-1'
    """
    for url in (database_url, restricted):
        plan = "\n".join(line for (line,) in run_sql(url, lookup))
        assert "Index Scan using products_api_id" in plan
        assert "Index Cond: ((\"clientId\" = 'c1'::text) AND (CASE" in plan


async def test_older_sql_sees_both_and_finds_the_apis_ids(catalogue: Catalogue, database_url: str) -> None:
    await fill(catalogue)
    older = """
        SELECT p."clientId", p.id, coalesce(p."apiId", p.id), coalesce(m."apiId", m.id)
        FROM image_embeddings ie JOIN media m ON m.id = ie."mediaId" JOIN products p ON p.id = m."productId"
    """
    found = run_sql(database_url, older)
    assert len({product for _, product, _, _ in found}) == 2
    assert {(client, product, media) for client, _, product, media in found} == {
        (client, "p", media) for client in TWO for media in "mn"
    }
    # What it writes under its own ids is the API's, too.
    run_sql(database_url, """UPDATE products SET name = 'changed' WHERE id = 'p' AND "clientId" = 'acme'""")
    assert [(await catalogue.get_product(client, "p")).name for client in TWO] == ["changed", "other"]


def test_an_id_elsewhere_is_one_that_no_caller_can_choose() -> None:
    assert id_elsewhere("a", "b") != id_elsewhere("b", "b")
    assert id_elsewhere("a", "x" * 128).startswith("x" * 128 + "~")
    assert len(id_elsewhere("a", "x" * 128)) == 161
