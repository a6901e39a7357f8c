"""What the doctor finds in Twinlens databases, sound and broken."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import psycopg
import pytest

from server.commands import doctor as command_line
from server.doctor import examine_own
from server.doctor.doctor import examine
from server.doctor.report import as_text
from server.preprocessing.readings import READING
from tests import DEMO_PICTURES
from tests.support import artifacts
from tests.support.legacy import settings
from tests.support.serving import Shop


def test_a_sound_twinlens_database_has_no_findings(shop: Shop, tmp_path: Path) -> None:
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=20)
    assert seen.findings == []
    assert "Of 20 pictures embedded again, each agrees" in "\n".join(seen.notes)
    arguments = argparse.Namespace(recall=False, media=None, sample=5, json=False)
    assert command_line.run(settings(shop.database_url, shop.data), arguments, shop.database_url) == 0


def test_what_is_wrong_with_a_twinlens_database_is_found(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine_own, "INDEX_THRESHOLD", 10)
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM products WHERE id > (SELECT id FROM products ORDER BY id OFFSET 20 LIMIT 1)")
        ((first, key), (second, _), *_) = connection.execute('SELECT id, "s3Key" FROM media ORDER BY id').fetchall()
        connection.execute('DELETE FROM twinlens_space_1 WHERE "mediaId" = %s', [second])
        connection.execute("""UPDATE media SET "apiId" = 'in the API' WHERE id = %s""", [second])
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
    # The sample is as large as the catalogue, so that each media is drawn.
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=images)
    found = {one.name: one for one in seen.findings}
    assert set(found) == {"missing-media", "broken-index", "no-index", "pending-migrations", "disagreeing-vectors"}
    assert found["missing-media"].examples == ["in the API"]
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


def test_what_an_earlier_version_has_read_and_what_is_blank_are_counted(shop: Shop, tmp_path: Path) -> None:
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM media ORDER BY revision, id").fetchall()]
        connection.execute("UPDATE twinlens_space_1 SET reading = 0")
        connection.execute('UPDATE twinlens_space_1 SET blank = true WHERE "mediaId" = ANY(%s)', [ids[:2]])
        connection.execute("DELETE FROM twinlens_readings")
        # Six have been looked at, of which one could not be read.
        connection.execute(
            """
            INSERT INTO twinlens_readings
            SELECT 1, %s, revision, id FROM (SELECT revision, id FROM media ORDER BY revision, id LIMIT 6) AS first
            ORDER BY revision DESC, id DESC LIMIT 1
            """,
            [READING],
        )
        connection.execute("INSERT INTO twinlens_unread VALUES (1, %s, 'it is a poem')", [ids[3]])
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=5)
    found = {one.name: one for one in seen.findings}
    assert set(found) == {"earlier-readings", "unread-media"}
    assert (found["earlier-readings"].count, found["earlier-readings"].of) == (len(ids) - 6, len(ids))
    assert found["unread-media"].examples == [ids[3]]
    assert f"Blank pictures, which show nothing but one colour: 2 of {len(ids)}" in "\n".join(seen.notes)
    assert "one colour" in as_text(seen).replace("\n  ", " ")


def test_what_waits_for_a_worker_is_noted_and_what_one_has_set_aside_is_a_finding(shop: Shop) -> None:
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO media (id, "productId", "clientId", "s3Key", status)
            SELECT 'new-' || number, id, "clientId", 'k', 'pending'
            FROM generate_series(1, 3) AS number, (SELECT id, "clientId" FROM products LIMIT 1) AS product
            """
        )
        connection.execute("UPDATE twinlens_pending SET code = 'bytes_missing' WHERE \"mediaId\" = 'new-3'")
        connection.execute("UPDATE media SET status = 'failed' WHERE id = 'new-3'")
    seen = examine(settings(shop.database_url, shop.data), shop.database_url, sample=5)
    (finding,) = seen.findings
    assert (finding.name, finding.count, finding.examples) == ("failed-media", 1, ["new-3"])
    assert "not embedded yet: 2 (for example new-1, new-2)" in "\n".join(seen.notes)
