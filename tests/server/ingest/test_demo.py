"""The demo catalogue: loaded at the start, once, around what others use and what a person changed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.catalogue.fields import check_fields
from server.ingest import demo
from tests import ROOT
from tests.support.databases import run_sql
from tests.support.few_products import products
from tests.support.serving import Client, serving

Products = Sequence[demo.DemoProduct]

COLOURS = {"red", "blue", "grey", "yellow", "white", "orange", "brown", "purple", "green", "black", "pink"}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Products:
    """The demo catalogue's products, here as few as say something."""
    few = products(24)
    monkeypatch.setattr(demo, "products", lambda: few)
    return few


def attributes(client: Client, product_id: str) -> Any:
    return client.get(f"/v1/products/{product_id}").raise_for_status().json()["attributes"]


def put_product(url: str, product_id: str, client_id: str, sku: str | None) -> None:
    run_sql(
        url,
        'INSERT INTO products (id, "clientId", name, sku) VALUES (%s, %s, %s, %s)',
        (product_id, client_id, "Not of the demo", sku),
    )


def loaded(url: str) -> set[str]:
    """Ids, as the API has them, of the products that have a picture in the client `demo`."""
    asked = """
        SELECT coalesce(p."apiId", p.id)
        FROM media m JOIN products p ON p.id = m."productId"
        WHERE m."clientId" = 'demo'
    """
    return {row[0] for row in run_sql(url, asked)}


def test_a_sku_that_is_used_is_left_out_with_a_warning_and_an_id_of_another_client_is_no_hindrance(
    database_url: str, tmp_path: Path, listed: Products, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, same_sku, other, *_ = listed
    put_product(database_url, theirs.id, "somebody", None)
    put_product(database_url, "ours", "demo", same_sku.sku)
    with serving(database_url, tmp_path, demo=True) as client:
        assert loaded(database_url) == {product.id for product in listed} - {same_sku.id}
        found = client.post("/v1/search", files={"file": other.read()}).json()["results"][0]
        assert (found["productId"], found["similarity"]) == (other.id, 100.0)
        assert client.get(f"/v1/products/{same_sku.id}").status_code == 404
    assert run_sql(database_url, "SELECT reltuples > 0 FROM pg_class WHERE relname = 'media'") == [(True,)]  # counted
    ours = (record for record in caplog.records if record.name == "server.ingest.demo")
    warnings = [record.getMessage() for record in ours if record.levelname == "WARNING"]
    (warning,) = warnings
    assert same_sku.id in warning
    assert "has this SKU" in warning
    row = run_sql(database_url, 'SELECT "clientId", name FROM products WHERE id = %s', (theirs.id,))
    assert row == [("somebody", "Not of the demo")]


def test_the_next_start_adds_only_what_is_missing_and_keeps_what_a_person_changed(
    database_url: str, tmp_path: Path, listed: Products, caplog: pytest.LogCaptureFixture
) -> None:
    renamed, deleted, *_ = listed
    caplog.set_level("INFO", "server.ingest.demo")
    with serving(database_url, tmp_path, demo=True) as client:
        assert client.put(f"/v1/products/{renamed.id}", json={"name": "Renamed", "isActive": False}).status_code == 200
        assert client.delete(f"/v1/products/{deleted.id}").status_code == 200
        before = run_sql(database_url, "SELECT id FROM media ORDER BY id")
        assert len(before) == len(listed) - 1
    with serving(database_url, tmp_path, demo=True) as client:
        assert set(before) < set(run_sql(database_url, "SELECT id FROM media"))
        assert loaded(database_url) == {product.id for product in listed}
        kept = client.get(f"/v1/products/{renamed.id}").json()
        assert (kept["name"], kept["isActive"]) == ("Renamed", False)
    said = [record.getMessage() for record in caplog.records if record.name == "server.ingest.demo"]
    assert [re.findall(r"\d+", line) for line in said] == [[str(len(listed))], ["1"]]


def test_a_product_of_an_earlier_version_gets_its_attributes_unless_somebody_has_changed_it(
    database_url: str, tmp_path: Path, listed: Products
) -> None:
    untouched, renamed, priced, cleared, theirs, *others = listed
    with serving(database_url, tmp_path, demo=True) as client:
        assert attributes(client, untouched.id) == untouched.attributes
    run_sql(database_url, "ALTER TABLE products DISABLE TRIGGER USER")
    run_sql(
        database_url, """UPDATE products SET attributes = '{}', "updatedAt" = "createdAt" """
    )  # as it was loaded once
    run_sql(database_url, "ALTER TABLE products ENABLE TRIGGER USER")
    run_sql(
        database_url, 'UPDATE products SET "createdAt" = "createdAt" - interval \'1 day\' WHERE id = %s', (theirs.id,)
    )
    with serving(database_url, tmp_path) as client:
        for product, change in ((renamed, {"name": "Renamed"}), (priced, {"attributes": {"price": 1}})):
            client.patch(f"/v1/products/{product.id}", json=change).raise_for_status()
        for facts in ({"price": 1}, None):
            client.patch(f"/v1/products/{cleared.id}", json={"attributes": facts}).raise_for_status()
    with serving(database_url, tmp_path, demo=True) as client:
        for product in (untouched, *others):
            assert attributes(client, product.id) == product.attributes
        left = [attributes(client, product.id) for product in (renamed, priced, cleared, theirs)]
    assert left == [{}, {"price": 1}, {}, {}]


def test_every_product_has_a_category_a_colour_a_price_and_tags() -> None:
    listed = demo.products()
    categories = Counter(product.attributes["category"] for product in listed)
    assert len(listed) == 280
    assert 12 <= len(categories) <= 15
    for product in listed:
        assert {*product.attributes} == {"category", "colour", "price", "tags"}
        assert product.attributes["price"] > 0
        assert product.attributes["tags"]
        colours = product.attributes["colour"]
        assert isinstance(colours, str) or len(set(colours)) == len(colours) >= 2
        assert ({colours} if isinstance(colours, str) else {*colours}) <= COLOURS
        check_fields(product.name, product.sku, product.attributes)


def test_the_filter_that_the_readme_shows_finds_something_in_it(words_api: Client) -> None:
    example = re.search(
        r"\$ curl --json '(\{.*\})' http\S+/v1/search", (ROOT / "README.md").read_text().split("A filter never")[1]
    )
    assert example is not None
    asked = json.loads(example[1])
    found = words_api.post("/v1/search", json={**asked, "fields": ["attributes"]}).raise_for_status().json()["results"]
    assert {match["productId"] for match in found} >= {"demo-ankle-boot", "demo-sandal"}
    assert all(match["attributes"]["category"] == "shoes" and match["attributes"]["price"] < 60 for match in found)
