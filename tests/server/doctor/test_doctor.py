"""What the doctor finds in databases that are broken in one way each, and that it finds nothing in sound ones."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import psycopg
import pytest

from server.commands import doctor as command_line
from server.doctor import doctor
from server.doctor.doctor import Report, examine
from server.errors import DatabaseUnusable
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support import artifacts
from tests.support.legacy import NAMES, older_database, random_vectors, real_vectors, settings
from tests.support.serving import Shop


def look(url: str, tmp_path: Path, **options: Any) -> dict[str, doctor.Finding]:
    return {one.name: one for one in report(url, tmp_path, **options).findings}


def report(url: str, tmp_path: Path, **options: Any) -> Report:
    return examine(settings(url, tmp_path), url, **options)


def test_a_sound_older_database_has_no_findings_and_its_percentage_is_explained(
    bare_database_url: str, tmp_path: Path
) -> None:
    with older_database(bare_database_url, real_vectors()):
        seen = report(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert seen.findings == []
    notes = "\n".join(seen.notes)
    assert "its score is -1.0000, shown as 0.0 %, where 100 % is right" in notes
    assert f"Of {len(NAMES)} pictures embedded anew, each agrees" in notes
    assert "look like a model's" in notes
    assert doctor.as_text(seen).endswith("Nothing wrong was found.")


BROKEN: dict[str, tuple[LiteralString, int, list[str]]] = {
    "null-vectors": (
        """UPDATE image_embeddings SET embedding = NULL WHERE "mediaId" IN ('m3', 'm5')""",
        2,
        ["m3", "m5"],
    ),
    "zero-vectors": (
        """UPDATE image_embeddings SET embedding = array_fill(0, ARRAY[512])::vector WHERE "mediaId" = 'm3'""",
        1,
        ["m3"],
    ),
    "other-lengths": (
        """UPDATE image_embeddings SET embedding = (SELECT array_agg(x * 7) FROM unnest(embedding::real[]) x)::vector
           WHERE "mediaId" < 'm2'""",
        12,
        ["m0", "m1", "m10"],
    ),
    "other-dimensions": (
        """ALTER TABLE image_embeddings ALTER COLUMN embedding TYPE vector;
           UPDATE image_embeddings SET embedding = '[0.6,0.8]' WHERE "mediaId" = 'm7'""",
        1,
        ["m7"],
    ),
    "unlike-twins": (
        """UPDATE media SET "s3Key" = 'pictures/one.webp' WHERE id IN ('m1', 'm2', 'm3')""",
        2,
        ["m2", "m3"],
    ),
    "shared-vectors": (
        """UPDATE image_embeddings SET embedding = (SELECT embedding FROM image_embeddings WHERE "mediaId" = 'm1')
           WHERE "mediaId" = 'm2'""",
        2,
        ["m1", "m2"],
    ),
    "orphan-media": (
        """ALTER TABLE media DROP CONSTRAINT "media_productId_fkey"; DELETE FROM products WHERE id = 'p4'""",
        1,
        ["m4"],
    ),
    "orphan-vectors": ("DELETE FROM media WHERE id = 'm4'", 1, ["m4"]),
    "crowded-media": (
        "INSERT INTO image_embeddings SELECT * FROM image_embeddings WHERE \"mediaId\" = 'm9'",
        1,
        ["m9"],
    ),
    "media-without-vectors": ("DELETE FROM image_embeddings WHERE \"mediaId\" = 'm9'", 1, ["m9"]),
    "media-without-pictures": ("UPDATE media SET \"s3Key\" = NULL WHERE id = 'm9'", 1, ["m9"]),
    "products-without-clients": ("UPDATE products SET \"clientId\" = '' WHERE id = 'p9'", 1, ["p9"]),
    "repeated-skus": (
        "ALTER TABLE products DROP CONSTRAINT products_sku_key; UPDATE products SET sku = 'S1' WHERE id = 'p2'",
        2,
        ["p1", "p2"],
    ),
    "other-operator": (
        "CREATE INDEX wrong ON image_embeddings USING hnsw (embedding vector_cosine_ops)",
        1,
        ["wrong (vector_cosine_ops)"],
    ),
    "ivfflat-index": (
        "CREATE INDEX lists ON image_embeddings USING ivfflat (embedding vector_ip_ops) WITH (lists = 2)",
        1,
        ["lists"],
    ),
    "shared-index": (
        """CREATE INDEX everybodys ON image_embeddings USING hnsw (embedding vector_ip_ops);
           UPDATE products SET "clientId" = 'another' WHERE id = 'p9'""",
        1,
        ["everybodys"],
    ),
    "broken-index": (
        """CREATE INDEX half ON image_embeddings USING hnsw (embedding vector_ip_ops);
           UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass""",
        1,
        ["half"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_counted_and_named(name: str, bare_database_url: str, tmp_path: Path) -> None:
    change, count, examples = BROKEN[name]
    with older_database(bare_database_url, real_vectors(), change):
        found = look(bare_database_url, tmp_path)
    # NULL, two vectors for one media and the like are faults of two kinds at most: nothing else is made up.
    assert set(found) - {name} <= {"media-without-vectors", "orphan-vectors", "other-dimensions"}
    assert (found[name].count, found[name].examples) == (count, examples)
    assert found[name].of >= count


def test_random_vectors_are_found_by_how_they_lie_to_each_other(bare_database_url: str, tmp_path: Path) -> None:
    with older_database(bare_database_url, random_vectors()):
        found = look(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert set(found) == {"random-vectors", "disagreeing-vectors"}
    assert found["random-vectors"].count >= 0.9 * len(NAMES)
    assert "random directions have 0.000 and 0.044" in found["random-vectors"].sentence
    assert found["disagreeing-vectors"].count == len(NAMES)


def test_a_few_random_vectors_among_real_ones_are_found(bare_database_url: str, tmp_path: Path) -> None:
    some = {3, 8, 14, 21, 33}
    mixed = [random_vectors()[at] if at in some else vector for at, vector in enumerate(real_vectors())]
    with older_database(bare_database_url, mixed):
        found = look(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert found["random-vectors"].count == len(some)
    assert found["disagreeing-vectors"].count == len(some)
    assert set(found["disagreeing-vectors"].examples) <= {f"m{at}" for at in some}


def test_many_vectors_without_an_index_are_a_finding(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_NEEDS_INDEX", 40)
    with older_database(bare_database_url, real_vectors()):
        assert set(look(bare_database_url, tmp_path)) == {"no-index"}


def test_ids_of_other_types_and_missing_columns_are_no_obstacle(bare_database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        connection.execute(
            """
            CREATE EXTENSION vector;
            CREATE TABLE products (id uuid PRIMARY KEY, "clientId" varchar(9), name varchar(99));
            CREATE TABLE media (id integer PRIMARY KEY, "productId" uuid, "s3Key" varchar(99), "contentDigest" bytea);
            CREATE TABLE image_embeddings (id serial PRIMARY KEY, "mediaId" integer, embedding halfvec(2));
            INSERT INTO media VALUES (1, gen_random_uuid(), '../../etc/passwd');
            INSERT INTO image_embeddings ("mediaId", embedding) VALUES (1, '[3,4]'), (7, '[0,0]');
            """
        )
    found = look(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert set(found) == {"zero-vectors", "other-lengths", "other-dimensions", "orphan-media", "orphan-vectors"}


def test_what_is_no_catalogue_is_said_in_plain_words(bare_database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        with pytest.raises(DatabaseUnusable, match="holds no catalogue"):
            report(bare_database_url, tmp_path)
        connection.execute('CREATE TABLE products (id text); CREATE TABLE media (id text, "productId" text)')
        with pytest.raises(DatabaseUnusable, match="has media and products, and no image_embeddings"):
            report(bare_database_url, tmp_path)
        connection.execute('CREATE TABLE image_embeddings ("mediaId" text, embedding real[])')
        with pytest.raises(DatabaseUnusable, match=r'lack products."clientId", products."name" and media."s3Key"'):
            report(bare_database_url, tmp_path)
        connection.execute(
            'ALTER TABLE products ADD "clientId" text, ADD name text; ALTER TABLE media ADD "s3Key" text'
        )
        with pytest.raises(DatabaseUnusable, match=r"of the type real\[\], not pgvector's vector"):
            report(bare_database_url, tmp_path)


def test_the_command_line_tells_by_its_exit_code_and_changes_nothing(bare_database_url: str, tmp_path: Path) -> None:
    def ask(*flags: str) -> subprocess.CompletedProcess[str]:
        where = ["--database-url", bare_database_url, "--data", str(tmp_path / "data"), "--model", str(STARTER)]
        command = [sys.executable, "-m", "server", "doctor", *where, "--device", "cpu", *flags]
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)

    assert ask().returncode == 2
    assert "holds no catalogue" in ask().stderr
    with older_database(bare_database_url, random_vectors()) as connection:
        state = "SELECT sum(xmin::text::bigint), count(*) FROM image_embeddings"
        before = connection.execute(state).fetchone()
        text = ask("--sample", "30")
        told = ask("--json")
        assert connection.execute(state).fetchone() == before
    assert (text.returncode, told.returncode) == (1, 1)
    assert text.stdout.splitlines()[3].startswith("1. Vectors that look random: ")
    assert " of 30 sampled" in text.stdout
    assert "What mends it: python -m server migrate --adopt" in text.stdout
    assert text.stdout.endswith("\n1 finding.\n")
    record = json.loads(told.stdout)
    assert record["database"] == "older"
    assert {"name", "sentence", "count", "of", "unit", "examples", "effect", "remedy"} == set(record["findings"][0])
    assert not (tmp_path / "data").exists()


# --- Twinlens --------------------------------------------------------------------------------------------------------


def test_a_sound_twinlens_database_has_no_findings(shop: Shop, tmp_path: Path) -> None:
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=20)
    assert seen.findings == []
    assert "Of 20 pictures embedded anew, each agrees" in "\n".join(seen.notes)
    arguments = argparse.Namespace(recall=False, media=None, sample=5, json=False)
    assert command_line.run(settings(shop.database_url, shop.data), arguments, shop.database_url) == 0


def test_what_is_wrong_with_a_twinlens_database_is_found(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "INDEX_THRESHOLD", 10)
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM products WHERE id > (SELECT id FROM products ORDER BY id OFFSET 20 LIMIT 1)")
        ((first, key), (second, _), *_) = connection.execute('SELECT id, "s3Key" FROM media ORDER BY id').fetchall()
        connection.execute('DELETE FROM twinlens_space_1 WHERE "mediaId" = %s', [second])
        connection.execute(
            """
            CREATE INDEX half ON twinlens_space_1 USING hnsw (embedding halfvec_ip_ops);
            UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass;
            DELETE FROM twinlens_migrations WHERE number = 3;
            INSERT INTO twinlens_spaces (id, dimensions, model, manifest, "artifactPath", "retiredAt")
            VALUES (repeat('a', 64), 4, 'm', '{}', '/nowhere', now())
            """
        )
        shutil.copy(DEMO_PICTURES / "violin.webp", shop.data / "media" / key)
        (images,) = connection.execute("SELECT count(*) FROM media").fetchone() or (0,)
    # Among as many as there are, so that each is drawn.
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=images)
    found = {one.name: one for one in seen.findings}
    assert set(found) == {"missing-media", "broken-index", "no-index", "pending-migrations", "disagreeing-vectors"}
    assert found["missing-media"].examples == [second]
    assert found["disagreeing-vectors"].examples == [first]
    assert found["no-index"].examples == ["demo"]
    assert "Space 2 (aaaaaaaaaaaa) is no longer live" in "\n".join(seen.notes)
    (shop.data / "media" / key).unlink()
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=images)
    assert {one.name: one.examples for one in seen.findings}["lost-pictures"] == [first]


def test_an_artifact_of_another_space_than_the_live_one_is_found(shop: Shop, tmp_path: Path) -> None:
    other = artifacts.another_space(tmp_path / "other")
    seen = examine(settings(shop.database_url, shop.data, model=other), shop.database_url)
    assert [one.name for one in seen.findings] == ["other-artifact"]
    assert "reembed --artifact" in seen.findings[0].remedy


def test_directions_are_of_the_most_common_dimensions() -> None:
    ids, directions = doctor._directions(
        [("a", "", [3, 4]), ("b", "", [0, 0]), ("c", "", [1, 0]), ("d", "", [1, 0, 0])]
    )
    assert ids == ["a", "c"]
    np.testing.assert_allclose(directions, np.array([[0.6, 0.8], [1, 0]]))
