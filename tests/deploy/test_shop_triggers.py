"""The example of triggers for products that live in another schema, on a made-up shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from server.settings import Settings
from server.spaces.pending import Tally
from server.spaces.worker import Options, work
from tests import ROOT, STARTER
from tests.support.databases import as_role, role, run_sql
from tests.support.pending import picture
from tests.support.serving import Client, serving

SCRIPT = (ROOT / "deploy" / "sql" / "shop_triggers.sql").read_text(encoding="utf-8")

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.articles (
    number bigint PRIMARY KEY, tenant text NOT NULL, title text NOT NULL, category text, price numeric(10, 2),
    on_sale boolean NOT NULL DEFAULT true
);
CREATE TABLE shop.pictures (
    id bigint PRIMARY KEY, article bigint NOT NULL REFERENCES shop.articles ON DELETE CASCADE, path text NOT NULL,
    version integer NOT NULL DEFAULT 1
)
"""


class Shop:
    """A database with a shop's schema in it, and the shop's own role, which knows nothing of Twinlens."""

    def __init__(self, url: str, name: str, data: Path) -> None:
        self.url = url
        self.own_url = as_role(url, name)
        self.data = data
        run_sql(url, SHOP)
        run_sql(url, f"GRANT USAGE ON SCHEMA shop TO {name}")
        run_sql(url, f"GRANT ALL ON ALL TABLES IN SCHEMA shop TO {name}")
        (data / "media").mkdir(parents=True)

    def sql(self, statement: str) -> None:
        """As the shop's own application."""
        run_sql(self.own_url, statement)

    def put(self, path: str, number: int) -> None:
        (self.data / "media" / path).write_bytes(picture(number))

    async def embed(self) -> Tally:
        settings = Settings(
            database_url=self.url, data=self.data, model=STARTER, device="cpu", threads=2, batch=8, demo=False
        )
        return (await work(settings, self.url, Options(once=True))).done

    def media(self) -> dict[str, tuple[str, str]]:
        rows = run_sql(self.url, 'SELECT id, "productId", status FROM media')
        return {media: (product, status) for media, product, status in rows}


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    with role(database_url) as name:
        yield Shop(database_url, name, tmp_path)


def best(client: Client, number: int) -> tuple[str, float]:
    match, *_ = client.post("/v1/search", files={"file": picture(number)}, data={"clientId": "acme"}).json()["results"]
    return match["mediaId"], match["similarity"]


@pytest.mark.anyio
async def test_products_and_pictures_of_another_schema_are_carried_over_and_found(shop: Shop) -> None:
    shop.put("old", 1)
    shop.sql("INSERT INTO shop.articles (number, tenant, title) VALUES (1, 'acme', 'Before the triggers')")
    shop.sql("INSERT INTO shop.pictures (id, article, path) VALUES (10, 1, 'old')")
    run_sql(shop.url, SCRIPT)
    shop.put("bag", 2)
    shop.put("hat", 3)
    shop.sql("INSERT INTO shop.articles VALUES (2, 'acme', 'A bag', 'bags', 49.90)")
    shop.sql("INSERT INTO shop.articles VALUES (3, 'acme', 'A hat', NULL, NULL, false)")
    shop.sql("INSERT INTO shop.pictures VALUES (20, 2, 'bag'), (30, 3, 'hat')")
    assert await shop.embed() == Tally(embedded=3)
    ready = {"shop-10": ("shop-1", "ready"), "shop-20": ("shop-2", "ready"), "shop-30": ("shop-3", "ready")}
    assert shop.media() == ready
    assert run_sql(shop.url, "SELECT name, attributes FROM products WHERE id = 'shop-2'") == [
        ("A bag", {"number": 2, "category": "bags", "price": 49.9})
    ]
    run_sql(shop.url, SCRIPT)  # a second time changes nothing
    assert shop.media() == ready
    with serving(shop.url, shop.data) as client:
        assert best(client, 1) == ("shop-10", 100.0)
        assert best(client, 2) == ("shop-20", 100.0)
        assert best(client, 3)[0] != "shop-30"  # it is not on sale
        shop.sql("UPDATE shop.articles SET on_sale = true, price = 5 WHERE number = 3")
        assert best(client, 3) == ("shop-30", 100.0)
        product = client.get("/v1/products/shop-3", params={"clientId": "acme"}).json()
        assert (product["isActive"], product["attributes"]) == (True, {"number": 3, "price": 5})

        # Other bytes under the same path, and another path.
        shop.put("bag", 4)
        shop.put("cap", 5)
        shop.sql("UPDATE shop.pictures SET version = 2 WHERE id = 20")
        shop.sql("UPDATE shop.pictures SET path = 'cap' WHERE id = 30")
        assert {status for _, status in shop.media().values()} == {"ready", "pending"}
        assert await shop.embed() == Tally(embedded=2)
        assert best(client, 4) == ("shop-20", 100.0)
        assert best(client, 5) == ("shop-30", 100.0)

        # A picture moves to another product, which is then deleted.
        shop.sql("UPDATE shop.pictures SET article = 1 WHERE id = 20")
        assert shop.media()["shop-20"] == ("shop-1", "ready")
        shop.sql("DELETE FROM shop.pictures WHERE id = 10")
        assert best(client, 1)[0] != "shop-10"
        shop.sql("DELETE FROM shop.articles WHERE number = 1")
        assert shop.media() == {"shop-30": ("shop-3", "ready")}
        assert run_sql(shop.url, 'SELECT "mediaId" FROM image_embeddings') == [("shop-30",)]


def test_the_shops_own_role_needs_no_right_on_the_tables_of_twinlens(shop: Shop) -> None:
    run_sql(shop.url, SCRIPT)
    shop.sql("INSERT INTO shop.articles (number, tenant, title) VALUES (1, 'acme', 'A bag')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.sql("SELECT FROM products")
    assert run_sql(shop.url, 'SELECT id, "clientId" FROM products') == [("shop-1", "acme")]
