"""The demo catalogue: loaded at the start, once, around what others use and what a person changed."""

import re

import psycopg

from server.ingest import demo
from tests.support.serving import serving

THEIRS, SAME_SKU, *_ = demo.products()


def run_sql(url, statement, *parameters):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def put_product(url, product_id, client_id, sku):
    run_sql(
        url,
        'INSERT INTO products (id, "clientId", name, sku) VALUES (%s, %s, %s, %s)',
        product_id, client_id, "Not of the demo", sku,
    )  # fmt: skip


def loaded(url):
    """Ids of the products that have a picture in the client `demo`."""
    return {row[0] for row in run_sql(url, """SELECT "productId" FROM media WHERE "clientId" = 'demo'""")}


def test_an_id_or_sku_that_somebody_uses_is_left_out_with_a_warning_and_the_rest_loads(database_url, tmp_path, caplog):
    put_product(database_url, THEIRS.id, "somebody", None)
    put_product(database_url, "ours", "demo", SAME_SKU.sku)
    listed = {product.id for product in demo.products()}
    with serving(database_url, tmp_path, demo=True) as client:
        assert loaded(database_url) == listed - {THEIRS.id, SAME_SKU.id}
        found = client.post("/v1/search", files={"file": demo.products()[2].read()}).json()["results"][0]
        assert (found["productId"], found["similarity"]) == (demo.products()[2].id, 100.0)
        assert client.get(f"/v1/products/{SAME_SKU.id}").status_code == 404
    assert run_sql(database_url, "SELECT reltuples > 0 FROM pg_class WHERE relname = 'media'") == [(True,)]  # counted
    ours = (record for record in caplog.records if record.name == "server.ingest.demo")
    warnings = [record.getMessage() for record in ours if record.levelname == "WARNING"]
    assert len(warnings) == 2
    for product, why in ((THEIRS, "product id is not free"), (SAME_SKU, "has this SKU")):
        assert any(product.id in warning and why in warning for warning in warnings)
    theirs = 'SELECT "clientId", name FROM products WHERE id = %s'
    assert run_sql(database_url, theirs, THEIRS.id) == [("somebody", "Not of the demo")]


def test_the_next_start_adds_only_what_is_missing_and_keeps_what_a_person_changed(database_url, tmp_path, caplog):
    caplog.set_level("INFO", "server.ingest.demo")
    monkeypatch.setattr(demo, "products", lambda listed=demo.products(): listed[:FEW])
    with serving(database_url, tmp_path, demo=True) as client:
        assert client.put(f"/v1/products/{THEIRS.id}", json={"name": "Renamed", "isActive": False}).status_code == 200
        assert client.delete(f"/v1/products/{SAME_SKU.id}").status_code == 200
        before = run_sql(database_url, "SELECT id FROM media ORDER BY id")
        assert len(before) == len(demo.products()) - 1
    with serving(database_url, tmp_path, demo=True) as client:
        assert set(before) < set(run_sql(database_url, "SELECT id FROM media"))
        assert loaded(database_url) == {product.id for product in demo.products()}
        kept = client.get(f"/v1/products/{THEIRS.id}").json()
        assert (kept["name"], kept["isActive"]) == ("Renamed", False)
    said = [record.getMessage() for record in caplog.records if record.name == "server.ingest.demo"]
    assert [re.findall(r"\d+", line) for line in said] == [["280"], ["1"]]
