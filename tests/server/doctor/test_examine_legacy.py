"""What the doctor finds in legacy databases that are broken in one way each, and nothing in sound ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from server.doctor import examine_legacy
from server.doctor.doctor import examine
from server.doctor.report import Finding, Report, as_text
from tests import DEMO_PICTURES
from tests.support.legacy import NAMES, legacy_database, random_vectors, real_vectors, settings


def look(url: str, tmp_path: Path, **options: Any) -> dict[str, Finding]:
    return {one.name: one for one in report(url, tmp_path, **options).findings}


def report(url: str, tmp_path: Path, **options: Any) -> Report:
    return examine(settings(url, tmp_path), url, **options)


def test_a_sound_legacy_database_has_no_findings_and_its_percentage_is_explained(
    bare_database_url: str, tmp_path: Path
) -> None:
    with legacy_database(bare_database_url, real_vectors()):
        seen = report(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert seen.findings == []
    notes = "\n".join(seen.notes)
    assert "its score is -1.0000, shown as 0.0 %, where 100 % is right" in notes
    assert f"Of {len(NAMES)} pictures embedded again, each agrees" in notes
    assert "look like a model's" in notes
    assert as_text(seen).endswith("Nothing wrong was found.")


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
    with legacy_database(bare_database_url, real_vectors(), change):
        found = look(bare_database_url, tmp_path)
    # A fault such as NULL or a second vector shows as two kinds at most; nothing else is found.
    others = {"unsafe-ivfflat"} if name == "ivfflat-index" else set()  # with a pgvector before 0.8.7
    assert set(found) - {name} - others <= {"media-without-vectors", "orphan-vectors", "other-dimensions"}
    assert (found[name].count, found[name].examples) == (count, examples)
    assert found[name].of >= count


def test_random_vectors_are_found_by_how_they_lie_to_each_other(bare_database_url: str, tmp_path: Path) -> None:
    with legacy_database(bare_database_url, random_vectors()):
        found = look(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert set(found) == {"random-vectors", "disagreeing-vectors"}
    assert found["random-vectors"].count >= 0.9 * len(NAMES)
    assert "random directions have 0.000 and 0.044" in found["random-vectors"].sentence
    assert found["disagreeing-vectors"].count == len(NAMES)


def test_a_few_random_vectors_among_real_ones_are_found(bare_database_url: str, tmp_path: Path) -> None:
    some = {3, 8, 14, 21, 33}
    mixed = [random_vectors()[at] if at in some else vector for at, vector in enumerate(real_vectors())]
    with legacy_database(bare_database_url, mixed):
        found = look(bare_database_url, tmp_path, media=DEMO_PICTURES)
    assert found["random-vectors"].count == len(some)
    assert found["disagreeing-vectors"].count == len(some)
    assert set(found["disagreeing-vectors"].examples) <= {f"m{at}" for at in some}


def test_many_vectors_without_an_index_are_a_finding(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine_legacy, "_NEEDS_INDEX", 40)
    with legacy_database(bare_database_url, real_vectors()):
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


def test_a_video_without_a_vector_is_no_fault_however_its_kind_is_written(
    bare_database_url: str, tmp_path: Path
) -> None:
    changes = (
        "ALTER TABLE media ADD kind text",
        """UPDATE media SET kind = CASE id WHEN 'm1' THEN 'video' WHEN 'm2' THEN 'VIDEO' WHEN 'm3' THEN 'Video/mp4'
           WHEN 'm4' THEN 'IMAGE' WHEN 'm5' THEN 'no video' END""",
        """DELETE FROM image_embeddings WHERE "mediaId" IN ('m1', 'm2', 'm3', 'm4', 'm5', 'm6')""",
    )
    with legacy_database(bare_database_url, real_vectors(), *changes):
        found = look(bare_database_url, tmp_path)
    assert set(found) == {"media-without-vectors"}
    assert (found["media-without-vectors"].count, found["media-without-vectors"].examples) == (3, ["m4", "m5", "m6"])


def test_vectors_without_an_id_are_counted_and_shown_as_such(bare_database_url: str, tmp_path: Path) -> None:
    lost = (
        'UPDATE image_embeddings SET "mediaId" = NULL',
        "UPDATE image_embeddings SET embedding = NULL WHERE ctid IN (SELECT ctid FROM image_embeddings LIMIT 2)",
    )
    with legacy_database(bare_database_url, random_vectors(), *lost):
        seen = report(bare_database_url, tmp_path)
    found = {one.name: one for one in seen.findings}
    assert set(found) == {"null-vectors", "random-vectors", "orphan-vectors", "media-without-vectors"}
    assert found["null-vectors"].examples == ["(none)"] * 2
    assert found["random-vectors"].examples == ["(none)"] * 3
    assert "For example: (none), (none)" in as_text(seen)
