"""The demo catalogue: loaded at the start, once, around what others use and what a person changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.ingest import demo
from tests.support.databases import run_sql
from tests.support.few_products import products
from tests.support.serving import serving

Products = Sequence[demo.DemoProduct]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Products:
    """The demo catalogue's products, here as few as say something."""
    few = products(24)
    monkeypatch.setattr(demo, "products", lambda: few)
    return few


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
