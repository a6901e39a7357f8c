"""Should a statement forget its client, row-level security holds: each statement is made to forget it here."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import Connection, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from server.catalogue.cards import Shown
from server.catalogue.rows import SpaceRow
from server.catalogue.statements import AMONG, Statements
from server.database.isolation import SERVING_ROLE
from server.database.locks import LOCKS_OF_MEDIA
from server.database.queries import Queries
from tests.support.catalogue import D, open_test_space
from tests.support.databases import fresh_database, run_sql

IDS, COLUMNS = ("product_api_id", "media_api_id"), ("product_columns", "media_columns", "match_columns", "card_columns")
SEARCH = {
    *("micro", "active", "active_where", "of_any_state", "near_exactly", "level_exactly", "named"),
    *("bonus", "boost", "boosted_edge", "matches", "after", "near_enough", "in_products"),
    *("ranked_columns", "passes", "products_of_matches"),
}
PARTS = {*IDS, *COLUMNS, *SEARCH, "products_of_client", "products_under_policy"}
PRODUCTS = ("products_of_client", "products_under_policy")
LISTS = ("products_by_id", "products_by_change", "has_product", "media_of_product", "with_attributes", "within_bytes")
DIGEST = hashlib.sha256(b"the same file").digest()
VECTOR = HalfVector([1.0] + [0.0] * (D - 1))

# What a forgetful statement may raise: a policy refuses a row, or a key does that knows all rows.
REFUSALS = (psycopg.errors.InsufficientPrivilege, psycopg.IntegrityError)

PREDICATES = re.compile(
    r"""(\w+\.)?"clientId" = (%\(client_id\)s|(\w+\.)?"clientId")|\w+\."clientId" = excluded\."clientId\""""
)


class Shops(NamedTuple):
    url: str
    space: SpaceRow


@pytest.fixture(scope="module")
def shops(postgres_url: str, template_database: str) -> Iterator[Shops]:
    """Two clients, ours and theirs, with the same names, digests and vectors, and no setting in which to tell them."""
    with fresh_database(postgres_url, template_database) as url:
        space = open_test_space(url)
        for client in ("ours", "theirs"):
            for number, product in enumerate((f"{client}-product", f"{client}-copy"), 1):
                row = {"client": client, "product": product, "media": f"{client}-media-{number}", "digest": DIGEST}
                run_sql(
                    url,
                    """INSERT INTO products (id, "clientId", name, sku, attributes)
                    VALUES (%(product)s, %(client)s, 'Lamp of ' || %(client)s, %(media)s, '{"colour": "red"}')""",
                    row,
                )
                run_sql(
                    url,
                    """INSERT INTO media (id, "productId", "clientId", "s3Key", "contentDigest")
                    VALUES (%(media)s, %(product)s, %(client)s, 'store of ' || %(client)s, %(digest)s)""",
                    row,
                )
                # As an operator's plain statement has it: the triggers fill in the rest.
                run_sql(
                    url,
                    f'INSERT INTO {space.table} (space, "mediaId", embedding) VALUES (%s, %s, %s)',
                    (space.number, row["media"], str(VECTOR.to_list())),
                )
        yield Shops(url, space)


def statements() -> Iterator[tuple[str, str]]:
    """Each statement, and those parts of `search` that it is made with."""
    for name in sorted(Queries.read("queries.sql").names - PARTS - {"search", "analyse"}):
        yield name, ""
    for near in ("near_exactly", "level_exactly"):
        yield from (("search", f"{near} {among} {one}") for among in AMONG for one in ("", "named"))
        yield from (("search", f"{near} {among} boosted") for among in AMONG[1:])
    for near in ("near_by_index", "in_products"):
        yield from (("search", f"{near}  {one}") for one in ("", "named", "boosted"))
    yield "search", "near_by_index  products_of_matches"
    yield from ((name, "") for name in LISTS)
    for name in ("products_by_id", "products_by_change"):
        for products in PRODUCTS:
            yield name, products


def text_of(name: str, part: str, space: SpaceRow) -> str:
    queries = Queries.read("queries.sql").of(space.table).including(*IDS).including(*COLUMNS)
    if name in LISTS:
        return list_of(name, part, queries)
    if name == "search":
        near, among, besides = part.split(" ")
        form = besides if besides == "products_of_matches" else "search"
        # A search in all states is an operator's; the role is served by the view, and the owner by the table.
        statements = Statements(queries, queries.composed("products_under_policy"))
        return statements.get(near, among, named=besides == "named", boosted=besides == "boosted", form=form).decode()
    return queries.composed(name).as_string(None)


def list_of(name: str, part: str, queries: Queries) -> str:
    """`part`: where the products come from whose attributes pass; without it, no attributes are looked at."""
    lists = Queries.read("lists.sql").borrowing(queries, *IDS, "product_columns", "media_columns")
    passing = lists.composed("passing", products=queries.composed(part)) if part else sql.SQL("")
    if name not in ("with_attributes", "within_bytes"):
        return lists.composed(name, passing=passing).as_string(None)
    page, order = lists.composed("products_by_id", passing=passing), lists.composed("order_of_products_by_id")
    return lists.composed(name, page=page, order=order).as_string(None)


def parameters(object_id: str, client: str, space: SpaceRow) -> dict[str, Any]:
    """Values for every statement: all that a caller may name is theirs."""
    return {
        "id": object_id,
        "key": object_id,
        "elsewhere": "elsewhere",
        "upload": "upload",
        "product_key": "theirs-product",
        "client_id": client,
        "product_id": "theirs-product",
        "media_id": "theirs-media-1",
        "name": "taken over",
        "sku": "another",
        "is_active": False,
        "inactive": True,
        "attributes": '$.colour == "red"',
        "ids": ["theirs-product"],
        "locks": LOCKS_OF_MEDIA,
        "kind": "image",
        "s3_key": "taken over",
        "thumbnail_key": None,
        "content_type": None,
        "bytes": 1,
        "width": 1,
        "height": 1,
        "content_digest": DIGEST,
        "digest": DIGEST,
        "space": space.number,
        "embedding": VECTOR,
        "blank": False,
        "reading": 1,
        "limit": 24,
        "candidates": 40,
        "without_blank": False,
        **Shown.read(["url", "attributes"]).parameters,
        "product_ids": None,
        "where": None,
        "expected": 1,
        "found": 1,
        "kept": 0,
        "given_sku": True,
        "no_attributes": True,
        "removed": [],
        "versions": None,
        "present": False,
        "absent": False,
        "after": None,
        "after_id": None,
        "since": datetime(2000, 1, 1, tzinfo=UTC),
        "until": datetime(3000, 1, 1, tzinfo=UTC),
        "scanned": 24,
        "rows": 24,
        "same": 24,
        "upto": None,
        "least": None,
        "least_named": None,
        "after_rank": None,
        "after_own_media": None,
        "after_own_file": None,
        "named": ["theirs-product"],
        "bonuses": [1.0],
        "boost_numbers": [0],
        "boost_weights": [0.5],
        "boost_kinds": ["equals"],
        "boost_paths": ['$.colour == "red"'],
        "boost_lows": [None],
        "boost_highs": [None],
        "products": ["ours-product", "theirs-product"],
        "most": 2,
        "media_ids": ["ours-media-1", "theirs-media-1"],
        "vectors": [str(VECTOR.to_list())],
    }


@contextlib.contextmanager
def undone(shops: Shops) -> Iterator[Connection[TupleRow]]:
    """A connection of the owner's, in a transaction that is rolled back."""
    with psycopg.connect(shops.url) as connection:
        register_vector(connection)
        yield connection
        connection.rollback()


def theirs(connection: Connection[TupleRow], space: SpaceRow) -> list[Any]:
    """All that the database has of the other client."""
    tables = ("products", "media", space.table)
    return [
        connection.execute(
            f"""SELECT t::text FROM {table} t WHERE "clientId" = 'theirs' ORDER BY 1""".encode()
        ).fetchall()
        for table in tables
    ]


def run(connection: Connection[TupleRow], text: str, name: str, values: dict[str, Any]) -> str:
    """What a statement gives, as text."""
    given = {**values, "attributes": Jsonb({})} if name in ("put_product", "patch_product") else values
    if name in LISTS:
        given = {**values, "is_active": None, "sku": None}
    cursor = connection.execute(text.encode(), given)
    return str(cursor.fetchall()) if cursor.description else ""


def be_ours(connection: Connection[TupleRow]) -> None:
    connection.execute(f"SET LOCAL ROLE {SERVING_ROLE}".encode())
    connection.execute("SELECT set_config('twinlens.client', 'ours', true)")


def named(statement: str) -> str:
    """What of theirs a caller names in this statement."""
    of_media = ("add_media", "add_vector", "has_media", "get_media", "delete_media")
    return "theirs-media-1" if statement in of_media else "theirs-product"


def told(statement: str, given: str) -> str:
    """What a caller did not know before. What is created gets the id that the caller chose."""
    return given.replace(named(statement), "") if statement in ("put_product", "add_media") else given


@pytest.mark.parametrize(("name", "part"), list(statements()))
def test_a_statement_that_forgets_its_client_gives_and_changes_nothing_of_another(
    shops: Shops, name: str, part: str
) -> None:
    """Once without its predicates, and once with the other client in them."""
    text = text_of(name, part, shops.space)
    for forgetful, client in ((PREDICATES.sub("true", text), "ours"), (text, "theirs")):
        with undone(shops) as connection:
            before = theirs(connection, shops.space)
            be_ours(connection)
            try:
                given = run(connection, forgetful, name, parameters(named(name), client, shops.space))
            except REFUSALS:
                continue
            assert "theirs" not in told(name, given)
            connection.execute("RESET ROLE")
            assert theirs(connection, shops.space) == before


def test_without_row_level_security_they_would(shops: Shops) -> None:
    """That the test above would see it."""
    leaking, changing = set(), set()
    for name, part in statements():
        with undone(shops) as connection:
            before = theirs(connection, shops.space)
            forgetful = PREDICATES.sub("true", text_of(name, part, shops.space))
            with contextlib.suppress(psycopg.IntegrityError):
                given = run(connection, forgetful, name, parameters(named(name), "ours", shops.space))
                if "theirs" in told(name, given):
                    leaking.add(name)
                if theirs(connection, shops.space) != before:
                    changing.add(name)
    assert leaking >= {
        *("put_product", "get_product", "delete_product_media", "find_media_by_digest", "get_media", "delete_media"),
        *("products_by_id", "products_by_change", "media_of_product", "with_attributes", "patch_product"),
        *("same_files", "digests", "near_by_index", "search"),
    }
    assert changing >= {"put_product", "patch_product", "delete_product_media", "delete_product", "delete_media"}


def test_the_role_finds_what_the_owner_finds(shops: Shops) -> None:
    telling = {"search", "get_product", "same_files", "digests", *LISTS}
    for name, part in statements():
        if name not in telling - {"has_product"}:
            continue
        text = text_of(name, part, shops.space)
        ours = {"media_id": "ours-media-1", "product_id": "ours-product"}
        values = {**parameters("ours-product", "ours", shops.space), **ours}
        with undone(shops) as connection:
            as_owner = run(connection, text.replace("twinlens_client_products", "products"), name, values)
            be_ours(connection)
            assert run(connection, text, name, values) == as_owner
            assert "ours" in as_owner


def test_every_table_with_clients_in_it_is_under_a_policy_or_out_of_reach(shops: Shops) -> None:
    """What the role may read of all clients is what the planner of searches must know."""
    within_reach = run_sql(
        shops.url,
        """
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'clientId'
        WHERE c.relkind = 'r' AND has_any_column_privilege(%s, c.oid, 'SELECT, UPDATE')
            AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'twinlens_client')
        ORDER BY 1
        """,
        (SERVING_ROLE,),
    )
    assert [name for (name,) in within_reach] == ["twinlens_indexes"]
