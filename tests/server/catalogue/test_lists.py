"""Lists, page by page, while rows change; and readers of changes, who miss none in whatever order transactions end."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.lists import Position, ProductFilter
from server.catalogue.rows import NewMedia, Product, SpaceRow
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from server.errors import ProductNotFound
from tests.support.catalogue import D, open_test_space
from tests.support.databases import run_sql

pytestmark = pytest.mark.anyio

EVER = datetime(2000, 1, 1, tzinfo=UTC)
ALL = ProductFilter()
CHANGED = ProductFilter(updated_since=EVER)
IDS = ["10", "9", "B", "a", "gid://shopify/Product/1", "größe", "鍵盤", "a b", "a-b", "ab", "Ⅻ"]


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    return open_test_space(database_url)


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def catalogue(database_url: str, space: SpaceRow, request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    async with open_pool(database_url, min_size=1, max_size=4, timeout=30, role=request.param) as pool:
        yield Catalogue(pool, space)


async def pages(
    catalogue: Catalogue, which: ProductFilter = ALL, *, limit: int = 2, client: str = "acme"
) -> list[list[Product]]:
    """All pages of a list."""
    found: list[list[Product]] = []
    after: Position | None = None
    while True:
        page = await catalogue.lists.products(client, which, after=after, limit=limit)
        found.append(page.items)
        if page.end is None:
            return found
        after = page.end


async def listed(catalogue: Catalogue, which: ProductFilter = ALL, **more: Any) -> list[str]:
    return [product.id for page in await pages(catalogue, which, **more) for product in page]


async def put(catalogue: Catalogue, *ids: str, client: str = "acme", **fields: Any) -> None:
    for item in ids:
        await catalogue.put_product(client, item, name=item, **fields)


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [ALL, CHANGED], ids=["by id", "by change"])
@pytest.mark.parametrize("limit", [1, 2, 3, len(IDS) - 1, len(IDS), len(IDS) + 1])
async def test_the_pages_of_a_list_hold_each_of_the_clients_products_once(
    catalogue: Catalogue, which: ProductFilter, limit: int
) -> None:
    await put(catalogue, *IDS, client="other")
    await put(catalogue, *IDS)
    found = await pages(catalogue, which, limit=limit)
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert found[-1], "a page is promised only where something follows"
    one = [product for page in found for product in page]
    assert sorted(product.id for product in one) == sorted(IDS)
    assert {product.client_id for product in one} == {"acme"}
    if which is CHANGED:
        assert [product.id for product in one] == IDS, "as they were put there"
    assert await pages(catalogue, which, client="nobody") == [[]]


@pytest.mark.parametrize("which", [ALL, CHANGED], ids=["by id", "by change"])
async def test_what_stays_is_listed_once_while_others_come_change_and_go(
    catalogue: Catalogue, which: ProductFilter
) -> None:
    staying = [f"s{number}" for number in range(9)]
    await put(catalogue, *staying, *(f"{one}-goes" for one in staying))
    found: list[str] = []
    after: Position | None = None
    for step in itertools.count():
        page = await catalogue.lists.products("acme", which, after=after, limit=3)
        found += [product.id for product in page.items]
        if page.end is None:
            break
        after = page.end
        if step < len(staying):
            await catalogue.delete_product("acme", f"s{step}-goes")
            await put(catalogue, f"a{step}-comes", f"s{step}-comes", f"t{step}-comes")
            await put(catalogue, "changing", is_active=bool(step % 2))
    assert [one for one in found if one in staying] == staying
    assert len([one for one in found if one != "changing"]) == len({one for one in found if one != "changing"})


async def test_many_of_one_time_are_paged_by_their_ids(catalogue: Catalogue, database_url: str) -> None:
    """As after a migration: no time tells them apart."""
    await put(catalogue, *IDS)
    run_sql(database_url, "ALTER TABLE products DISABLE TRIGGER zz_twinlens_stamp")
    run_sql(database_url, 'UPDATE products SET "updatedAt" = %s', (EVER,))
    run_sql(database_url, "ALTER TABLE products ENABLE TRIGGER zz_twinlens_stamp")
    found = await listed(catalogue, CHANGED, limit=2)
    assert found == await listed(catalogue, ALL)
    assert sorted(found) == sorted(IDS)
    assert await listed(catalogue, ProductFilter(updated_since=EVER + timedelta(microseconds=1))) == []


async def test_a_list_holds_what_meets_all_conditions(catalogue: Catalogue) -> None:
    for number in range(24):
        await catalogue.put_product(
            "acme",
            f"p{number:02}",
            name="x",
            sku=f"S-{number}",
            is_active=number % 3 > 0,
            attributes={"parity": number % 2, "price": number},
        )
    everything = [product for page in await pages(catalogue, limit=1000) for product in page]
    since = everything[7].updated_at
    for active, sku, attributes, after in itertools.product(
        (None, True, False),
        (None, "S-8", "none"),
        (None, {"parity": 1}, {"parity": 0, "price": {"gte": 6}}, {"price": [3, 8, 21]}, {"none": 1}),
        (None, since),
    ):
        which = ProductFilter(
            updated_since=after,
            is_active=active,
            sku=sku,
            attributes=Filter() if attributes is None else Filter.of({"attributes": attributes}),
        )
        expected = [
            one.id
            for one in everything
            if (active is None or one.is_active == active)
            and (sku is None or one.sku == sku)
            and (after is None or one.updated_at >= after)
            and all(_meets(one.attributes.get(name), value) for name, value in (attributes or {}).items())
        ]
        assert await listed(catalogue, which, limit=5) == expected, which


def _meets(value: Any, condition: Any) -> bool:
    if isinstance(condition, dict):
        return value is not None and value >= condition["gte"]
    return value in condition if isinstance(condition, list) else bool(value == condition)


@pytest.mark.parametrize("scanned", [1, 4, 20_000])
async def test_attributes_are_met_however_rare_they_are(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr("server.catalogue.lists._SCANNED", scanned)
    ids = [f"p{number:02}" for number in range(40)]
    for number, item in enumerate(ids):
        await put(catalogue, item, attributes={"kind": "rare" if number in (0, 13, 39) else "frequent"})
    await put(catalogue, *ids, client="other", attributes={"kind": "rare"})
    for since in (None, EVER):
        rare, frequent = (
            ProductFilter(updated_since=since, attributes=Filter.of({"attributes": {"kind": kind}}))
            for kind in ("rare", "frequent")
        )
        assert await listed(catalogue, rare) == ["p00", "p13", "p39"]
        assert await listed(catalogue, frequent, limit=3) == [one for one in ids if one not in ("p00", "p13", "p39")]


async def test_a_page_of_large_products_is_shorter(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand products of a megabyte each are no page."""
    monkeypatch.setattr("server.catalogue.lists._BYTES", 1000)
    # What repeats itself is stored in fewer bytes.
    large = {"text": np.random.default_rng(1).bytes(300).hex()}
    for number in range(12):
        await put(catalogue, f"p{number:02}", attributes=large if number % 4 else {})
    whole = [f"p{number:02}" for number in range(12)]
    for which in (ALL, CHANGED, ProductFilter(attributes=Filter.of({"attributes": large}))):
        found = await pages(catalogue, which, limit=100)
        expected = [one for one in whole if int(one[1:]) % 4] if which not in (ALL, CHANGED) else whole
        assert [product.id for page in found for product in page] == expected
        assert max(len(page) for page in found) <= 3
        assert all(found[:-1]), "none is empty while others follow"
    monkeypatch.setattr("server.catalogue.lists._BYTES", 1)
    assert [len(page) for page in await pages(catalogue, limit=100)][:12] == [1] * 12


async def test_media_are_listed_as_they_were_added(catalogue: Catalogue, database_url: str) -> None:
    await put(catalogue, "p", "q")
    for product, number in itertools.product("pq", range(7)):
        await add(catalogue, product, f"{product}{6 - number}")
    # Two of one time, as in one transaction of another program.
    run_sql(database_url, """UPDATE media SET "createdAt" = %s WHERE id IN ('p1', 'p5')""", (EVER,))
    whole = ["p1", "p5", "p6", "p4", "p3", "p2", "p0"]
    for limit in (1, 2, 7, 8):
        found: list[str] = []
        after: Position | None = None
        while True:
            page = await catalogue.lists.media("acme", "p", after=after, limit=limit)
            found += [media.id for media in page.items]
            if page.end is None:
                break
            after = page.end
        assert found == whole
    itself, first = await catalogue.lists.product_with_media("acme", "p", limit=3)
    assert (itself.id, [media.id for media in first.items]) == ("p", whole[:3])
    rest = await catalogue.lists.media("acme", "p", after=first.end, limit=10)
    assert [media.id for media in rest.items] == whole[3:]
    for ask in (catalogue.lists.media("other", "p"), catalogue.lists.product_with_media("other", "p", limit=3)):
        with pytest.raises(ProductNotFound):
            await ask


async def add(catalogue: Catalogue, product: str, media: str) -> None:
    digest = media.encode().ljust(32, b"\0")
    new = NewMedia(media, product, "acme", media, None, None, 1, 1, 1, digest, media.encode().hex().ljust(32, "0"))
    await catalogue.add_media(new, np.eye(D, dtype=np.float32)[0])


# --- when a product has changed ---------------------------------------------------------------------------------------


async def test_whatever_changes_a_product_its_time_says_so(catalogue: Catalogue, database_url: str) -> None:
    await put(catalogue, "p")
    times = [(await catalogue.get_product("acme", "p")).updated_at]
    for change in (
        "UPDATE products SET name = 'changed'",
        """UPDATE products SET name = 'again', "updatedAt" = '2001-01-01'""",
        """UPDATE products SET "isActive" = false, "updatedAt" = DEFAULT""",
        """UPDATE products SET attributes = '{"a": 1}', "updatedAt" = '2999-01-01'""",
        "UPDATE products SET sku = 'S'",
        """INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'x')
        ON CONFLICT (id) DO UPDATE SET name = 'y'""",
        """MERGE INTO products p USING (VALUES (1)) AS one (n) ON true WHEN MATCHED THEN UPDATE SET name = 'merged'""",
    ):
        run_sql(database_url, change)
        times.append((await catalogue.get_product("acme", "p")).updated_at)
        assert times[-1] > times[-2], change
        assert datetime.now(UTC) - times[-1] < timedelta(minutes=5), change
    for no_change in (
        "UPDATE products SET name = name",
        """UPDATE products SET "updatedAt" = now()""",
        """UPDATE products SET "updatedAt" = '2001-01-01', sku = 'S'""",
    ):
        run_sql(database_url, no_change)
        assert (await catalogue.get_product("acme", "p")).updated_at == times[-1], no_change


async def test_a_row_that_claims_another_time_has_that_of_its_arrival(catalogue: Catalogue, database_url: str) -> None:
    run_sql(
        database_url,
        """INSERT INTO products (id, "clientId", name, "updatedAt")
        VALUES ('old', 'acme', 'x', '2001-01-01'), ('new', 'acme', 'x', '2999-01-01')""",
    )
    with (
        psycopg.connect(database_url) as connection,
        connection.cursor().copy('COPY products (id, "clientId", name, "updatedAt") FROM STDIN') as copy,
    ):
        copy.write_row(("copied", "acme", "x", "2001-01-01"))
    assert await listed(catalogue, ProductFilter(updated_since=datetime.now(UTC) - timedelta(minutes=5))) == [
        *("old", "new", "copied"),
    ]


async def test_an_older_applications_own_trigger_does_not_decide(catalogue: Catalogue, database_url: str) -> None:
    run_sql(
        database_url,
        """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW."updatedAt" := '2001-01-01'; RETURN NEW; END $$""",
    )
    run_sql(
        database_url,
        "CREATE TRIGGER update_products BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    await put(catalogue, "p")
    made = await catalogue.get_product("acme", "p")
    run_sql(database_url, "UPDATE products SET name = 'changed'")
    assert (await catalogue.get_product("acme", "p")).updated_at > made.updated_at > datetime(2020, 1, 1, tzinfo=UTC)


async def test_two_changes_at_one_moment_are_two_versions(catalogue: Catalogue, database_url: str) -> None:
    await put(catalogue, "p")
    with psycopg.connect(database_url) as connection:
        times = []
        for number in range(100):
            connection.execute("UPDATE products SET name = %s", (str(number),))
            times += connection.execute('SELECT "updatedAt" FROM products').fetchall()
    assert len(set(times)) == len(times)


# --- readers of changes, and transactions that end in another order ---------------------------------------------------


class Reader:
    """As the documentation tells readers: to the end, and again from the latest time that was seen."""

    def __init__(self, catalogue: Catalogue, limit: int = 2) -> None:
        self._catalogue = catalogue
        self._limit = limit
        self._since = EVER
        self.names: dict[str, str] = {}

    async def read(self) -> None:
        found = await pages(self._catalogue, ProductFilter(updated_since=self._since), limit=self._limit)
        for page in found:
            for product in page:
                self.names[product.id] = product.name
                self._since = max(self._since, product.updated_at)


Writers = tuple[Connection[TupleRow], Connection[TupleRow]]
Step = tuple[int, str]
"""Which of the writers, and what it does."""

_WRITER = ("begin", "write", "write", "end")


def interleavings() -> Iterator[list[Step]]:
    """Every order in which the steps of two writers can follow each other; which of the two begins is all the same."""
    places = range(1, 2 * len(_WRITER))
    for first in itertools.combinations(places, len(_WRITER) - 1):
        steps = [iter(_WRITER), iter(_WRITER)]
        turns = [0, *(0 if place in first else 1 for place in places)]
        yield [(writer, next(steps[writer])) for writer in turns]


async def missed(catalogue: Catalogue, writers: Writers, steps: list[Step]) -> bool:
    """Whether a reader who reads after each step has not seen what is there in the end."""
    writers[0].execute("DELETE FROM products")
    writers[0].execute(
        """INSERT INTO products (id, "clientId", name) SELECT n::text, 'acme', '' FROM generate_series(0, 3) n"""
    )
    reader = Reader(catalogue)
    await reader.read()
    for number, (writer, step) in enumerate(steps):
        do(writers[writer], writer, step, number)
        await reader.read()
    there: dict[str, str] = dict(writers[0].execute("SELECT id, name FROM products").fetchall())
    assert all(there.values()), "each was written"
    return reader.names != there


def do(connection: Connection[TupleRow], writer: int, step: str, number: int) -> None:
    if step == "begin":
        connection.execute("BEGIN")
    elif step == "end":
        connection.execute("COMMIT")
    else:
        # Each writer has two products of its own.
        connection.execute(
            """UPDATE products SET name = %s
            WHERE id = (SELECT id FROM products WHERE id = ANY (%s) ORDER BY name LIMIT 1)""",
            (f"step {number}", [str(2 * writer), str(2 * writer + 1)]),
        )


@pytest.fixture
def writers(database_url: str) -> Iterator[Writers]:
    with (
        psycopg.connect(database_url, autocommit=True) as one,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        yield one, other


async def test_a_reader_misses_no_change_in_whatever_order_transactions_begin_write_and_end(
    catalogue: Catalogue, writers: Writers
) -> None:
    orders = list(interleavings())
    assert len(orders) == 35
    assert [order for order in orders if await missed(catalogue, writers, order)] == []


async def test_a_reader_of_all_that_can_be_seen_would_miss_some(
    catalogue: Catalogue, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above would see it."""

    async def now(_: Any, __: Any) -> datetime:
        return datetime(2999, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("server.catalogue.lists.Lists._settled", now)
    for order in interleavings():
        if await missed(catalogue, writers, order):
            return
    pytest.fail("none was missed")


async def test_a_change_shows_up_once_the_writers_before_it_have_ended(catalogue: Catalogue, database_url: str) -> None:
    await put(catalogue, "early", "late")
    reader = Reader(catalogue)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE products SET name = 'first' WHERE id = 'early'")
        await catalogue.put_product("acme", "late", name="second")
        await reader.read()
        assert "second" not in reader.names.values()
        # In the other list it is at once.
        assert [product.name for page in await pages(catalogue) for product in page] == ["early", "second"]
        connection.rollback()
    await reader.read()
    assert reader.names == {"early": "early", "late": "second"}


async def test_other_transactions_hold_nobody_up(catalogue: Catalogue, database_url: str, postgres_url: str) -> None:
    with psycopg.connect(database_url) as reading, psycopg.connect(postgres_url) as elsewhere:
        reading.execute("SELECT pg_current_xact_id(), count(*) FROM products")
        # A lock of the very same numbers, in another database.
        elsewhere.execute("SELECT pg_advisory_xact_lock_shared(1953982843, 1)")
        await put(catalogue, "p")
        assert await listed(catalogue, CHANGED) == ["p"]


# --- speed ------------------------------------------------------------------------------------------------------------


async def test_pages_are_read_from_an_index_also_under_a_policy(catalogue: Catalogue, database_url: str) -> None:
    run_sql(
        database_url,
        """
        INSERT INTO products (id, "apiId", "clientId", name, "isActive", sku)
        SELECT 'p-' || n, CASE WHEN n % 10 = 0 THEN 'q-' || n END, 'c' || n % 3, 'x', n % 500 > 0, 's' || n
        FROM generate_series(1, 20000) n
        """,
    )
    run_sql(database_url, "ANALYZE products")
    values: dict[str, Any] = {
        "client_id": "c1", "after": None, "after_id": "p-5", "since": EVER, "until": datetime.now(UTC),
        "is_active": None, "sku": None, "scanned": 101, "bytes": 1_000_000,
    }  # fmt: skip
    for name, asked, index in (
        ("products_by_id", {}, "products_api_id"),
        ("products_by_id", {"after_id": None}, "products_api_id"),
        ("products_by_id", {"is_active": False}, "products_inactive"),
        ("products_by_id", {"sku": "s7"}, "products_clientId_sku_key"),
        ("products_by_change", {"after_id": None}, "products_updated"),
        ("products_by_change", {"after": EVER}, "products_updated"),
    ):
        plan = await explained(catalogue, name, {**values, **asked})
        assert re.search(rf'(using|on) "?{index}', plan), plan
        # A few are quicker sorted than looked up one by one.
        assert "Sort" not in plan or {"sku", "is_active"} & asked.keys(), plan


async def explained(catalogue: Catalogue, name: str, values: dict[str, Any]) -> str:
    lists = catalogue.lists

    async def explain(connection: Any) -> str:
        rows = await (await connection.execute(b"EXPLAIN (COSTS OFF) " + lists._statements[name], values)).fetchall()
        return "\n".join(line for (line,) in rows)

    return await lists._runner.read(explain, client="c1")
