"""A picture always finds itself: first, at 100 %, every time; and its near-duplicates find it too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from bench.near_duplicates import ALTERATIONS
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder
from server.ingest import demo
from server.preprocessing import media
from tests import DEMO_PICTURES, PHOTOGRAPHS, STARTER
from tests.support.databases import run_sql
from tests.support.legacy import LEGACY_SQL
from tests.support.pictures import in_format
from tests.support.serving import Client, Shop, serving

PICTURES = {path.stem: path.read_bytes() for path in sorted(DEMO_PICTURES.glob("*.webp"))}

Match = dict[str, Any]


def search(client: Client, data: bytes, limit: int = 24) -> list[Match]:
    response = client.post("/v1/search", files={"file": data}, data={"limit": limit})
    assert response.status_code == 200
    results: list[Match] = response.json()["results"]
    return results


def search_for_each(
    client: Client, query: Callable[[demo.DemoProduct], bytes], limit: int
) -> Iterator[tuple[demo.DemoProduct, list[Match]]]:
    """Each product of the demo with the matches of its query; several are asked for at once, which is quicker."""
    products = demo.products()
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda product: search(client, query(product), limit), products)
        yield from zip(products, found, strict=True)


def test_the_demo_catalogue_holds_what_was_promised() -> None:
    names = {product.name.lower() for product in demo.products()}
    assert len(PICTURES) == len(names) >= 200
    assert any("keyboard" in name for name in names)
    assert any("notebook" in name for name in names)
    assert any("mouse" in name for name in names)
    assert any("necklace" in name for name in names)


def test_every_picture_of_the_catalogue_finds_itself_first_at_100_percent(api: Client) -> None:
    for product, (first, second) in search_for_each(api, demo.DemoProduct.read, limit=2):
        assert (first["productId"], first["similarity"]) == (product.id, 100.0)
        assert second["score"] > first["score"], f"{product.id} is as good as {second['productId']}"


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_near_duplicates_find_their_original_first(api: Client, alteration: str) -> None:
    """Each alteration by itself: none hides behind the others' average."""

    def altered(product: demo.DemoProduct) -> bytes:
        picture = media.decode(product.read(), max_pixels=10**8).image
        return in_format(ALTERATIONS[alteration](picture), "BMP")

    missed = [
        f"{product.name}: {first['productName']}"
        for product, (first,) in search_for_each(api, altered, limit=1)
        if first["productId"] != product.id
    ]
    assert len(missed) <= 0.02 * len(PICTURES), missed


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.read(STARTER)


@pytest.fixture(scope="module")
def pixels(artifact: Artifact) -> NDArray[np.uint8]:
    samples = [*PICTURES.values()][:14] + [path.read_bytes() for path in sorted(PHOTOGRAPHS.glob("*.[jp][pn]g"))]
    return np.stack([media.read_pixels(data, artifact.spec, max_pixels=10**8) for data in samples])


def test_a_vector_is_bit_identical_alone_in_any_batch_and_with_any_number_of_threads(
    artifact: Artifact, pixels: NDArray[np.uint8]
) -> None:
    with Encoder(artifact, "fp32", "cpu", threads=1) as encoder:
        alone = np.concatenate([encoder.encode(one[None]) for one in pixels])
    for threads in (1, 2, 3, 4):
        with Encoder(artifact, "fp32", "cpu", threads=threads) as encoder:
            for batch in (1, 2, 3, 5, 8, 16, len(pixels)):
                for start in range(0, len(pixels), batch):
                    together = encoder.encode(pixels[start : start + batch])
                    np.testing.assert_array_equal(together, alone[start : start + batch])


def test_a_vector_is_bit_identical_over_http_under_load_and_after_a_restart(
    api: Client, database_url: str, tmp_path: Path
) -> None:
    def vector(client: Client, data: bytes) -> list[float]:
        embedding: list[float] = client.post("/embed-image", files={"file": data}).json()["embedding"]
        return embedding

    names = [*PICTURES][:24]
    alone = {name: vector(api, PICTURES[name]) for name in names}
    crowded: dict[str, list[float]] = {}

    def embed(name: str) -> None:
        crowded[name] = vector(api, PICTURES[name])

    threads = [threading.Thread(target=embed, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowded == alone
    with serving(database_url, tmp_path) as restarted:
        assert {name: vector(restarted, PICTURES[name]) for name in names} == alone


def test_the_legacy_sql_runs_unchanged_and_agrees(shop: Shop) -> None:
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


def test_switching_a_product_off_by_hand_takes_effect_at_once(shop: Shop) -> None:
    with serving(*shop, demo=True) as client, psycopg.connect(shop.database_url, autocommit=True) as hand:
        assert search(client, PICTURES["keyboard"])[0]["productId"] == "demo-keyboard"
        hand.execute("""UPDATE products SET "isActive" = false WHERE id = 'demo-keyboard'""")
        shown = [match["productId"] for match in search(client, PICTURES["keyboard"], limit=1000)]
        assert len(shown) == len(PICTURES) - 1
        assert "demo-keyboard" not in shown
        hand.execute("""UPDATE products SET "isActive" = true WHERE id = 'demo-keyboard'""")
        assert search(client, PICTURES["keyboard"])[0]["productId"] == "demo-keyboard"


def test_loading_the_demo_catalogue_again_changes_nothing(shop: Shop) -> None:
    """The shop's catalogue was loaded by a server's start."""

    def state() -> list[tuple[Any, ...]]:
        return run_sql(
            shop.database_url,
            'SELECT m.id, p.name, p."updatedAt" FROM media m JOIN products p ON p.id = m."productId" ORDER BY m.id',
        )

    assert len(state()) == len(PICTURES)
    run_sql(shop.database_url, "UPDATE products SET name = 'My own keyboard' WHERE id = 'demo-keyboard'")
    changed = state()
    with serving(*shop, demo=True):
        assert state() == changed
