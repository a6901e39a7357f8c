"""A picture always finds itself: first, at 100 %, every time; and its near-duplicates find it too."""

import threading

import numpy as np
import psycopg
import pytest

from bench.near_duplicates import ALTERATIONS
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from server.ingest import demo
from server.preprocessing import media
from tests import DEMO_PICTURES, PHOTOGRAPHS, STARTER
from tests.support.legacy import LEGACY_SQL
from tests.support.pictures import in_format
from tests.support.serving import serving

PICTURES = {path.stem: path.read_bytes() for path in sorted(DEMO_PICTURES.glob("*.webp"))}


def search(client, data, limit=24):
    response = client.post("/v1/search", files={"file": data}, data={"limit": limit})
    assert response.status_code == 200
    return response.json()["results"]


def test_the_demo_catalogue_holds_what_was_promised():
    names = {product.name.lower() for product in demo.products()}
    assert len(PICTURES) == len(names) >= 200
    assert any("keyboard" in name for name in names)
    assert any("notebook" in name for name in names)
    assert any("mouse" in name for name in names)
    assert any("necklace" in name for name in names)


def test_every_picture_of_the_catalogue_finds_itself_first_at_100_percent(api):
    for product in demo.products():
        first, second = search(api, product.read(), limit=2)
        assert (first["productId"], first["similarity"]) == (product.id, 100.0)
        assert second["score"] > first["score"], f"{product.id} is as good as {second['productId']}"


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_near_duplicates_find_their_original_first(api, alteration):
    """Each alteration by itself: none hides behind the others' average."""
    missed = []
    for product in demo.products():
        picture = media.decode(product.read(), max_pixels=10**8).image
        altered = in_format(ALTERATIONS[alteration](picture), "BMP")
        (first,) = search(api, altered, limit=1)
        if first["productId"] != product.id:
            missed.append(f"{product.name}: {first['productName']}")
    assert len(missed) <= 0.02 * len(PICTURES), missed


@pytest.fixture(scope="module")
def artifact():
    return Artifact.read(STARTER)


@pytest.fixture(scope="module")
def pixels(artifact):
    samples = [*PICTURES.values()][:14] + [path.read_bytes() for path in sorted(PHOTOGRAPHS.glob("*.[jp][pn]g"))]
    return np.stack([media.read_pixels(data, artifact.spec, max_pixels=10**8) for data in samples])


def test_a_vector_is_bit_identical_alone_in_any_batch_and_with_any_number_of_threads(artifact, pixels):
    with Encoder(artifact, "fp32", "cpu", threads=1) as encoder:
        alone = np.concatenate([encoder.encode(one[None]) for one in pixels])
    for threads in (1, 2, 3, 4):
        with Encoder(artifact, "fp32", "cpu", threads=threads) as encoder:
            for batch in (1, 2, 3, 5, 8, 16, len(pixels)):
                for start in range(0, len(pixels), batch):
                    together = encoder.encode(pixels[start : start + batch])
                    np.testing.assert_array_equal(together, alone[start : start + batch])


def test_a_vector_is_bit_identical_over_http_under_load_and_after_a_restart(api, database_url, tmp_path):
    def vector(client, data):
        return client.post("/embed-image", files={"file": data}).json()["embedding"]

    names = [*PICTURES][:24]
    alone = {name: vector(api, PICTURES[name]) for name in names}
    crowded = {}
    threads = [
        threading.Thread(target=lambda name=name: crowded.update({name: vector(api, PICTURES[name])})) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowded == alone
    with serving(database_url, tmp_path) as restarted:
        assert {name: vector(restarted, PICTURES[name]) for name in names} == alone


def test_the_older_sql_runs_unchanged_and_agrees(shop):
    with serving(*shop, demo=True) as client, psycopg.connect(shop.database_url) as connection:
        cursor = psycopg.RawCursor(connection)
        for name in [*PICTURES][::20]:
            embedding = client.post("/embed-image", files={"file": PICTURES[name]}).json()["embedding"]
            rows = cursor.execute(LEGACY_SQL, (str(embedding), "demo", 10)).fetchall()
            matches = search(client, PICTURES[name], limit=10)
            assert [row[0] for row in rows] == [match["productId"] for match in matches]
            assert [row[3:] for row in rows] == [(m["s3Key"], m["width"], m["height"]) for m in matches]
            # Stored as halves, so the two figures agree to what a half can tell.
            np.testing.assert_allclose([row[2] for row in rows], [match["score"] for match in matches], atol=1e-3)
            assert rows[0][2] == pytest.approx(-1, abs=1e-3)


def test_switching_a_product_off_by_hand_takes_effect_at_once(shop):
    with serving(*shop, demo=True) as client, psycopg.connect(shop.database_url, autocommit=True) as hand:
        assert search(client, PICTURES["keyboard"])[0]["productId"] == "demo-keyboard"
        hand.execute("""UPDATE products SET "isActive" = false WHERE id = 'demo-keyboard'""")
        shown = [match["productId"] for match in search(client, PICTURES["keyboard"], limit=1000)]
        assert len(shown) == len(PICTURES) - 1
        assert "demo-keyboard" not in shown
        hand.execute("""UPDATE products SET "isActive" = true WHERE id = 'demo-keyboard'""")
        assert search(client, PICTURES["keyboard"])[0]["productId"] == "demo-keyboard"


def test_loading_the_demo_catalogue_again_changes_nothing(database_url, tmp_path):
    state = 'SELECT m.id, p.name, p."updatedAt" FROM media m JOIN products p ON p.id = m."productId" ORDER BY m.id'
    with psycopg.connect(database_url, autocommit=True) as connection:
        with serving(database_url, tmp_path, demo=True):
            first = connection.execute(state).fetchall()
            connection.execute("UPDATE products SET name = 'My own keyboard' WHERE id = 'demo-keyboard'")
            changed = connection.execute(state).fetchall()
        with serving(database_url, tmp_path, demo=True):
            again = connection.execute(state).fetchall()
    assert len(first) == len(PICTURES)
    assert again == changed
