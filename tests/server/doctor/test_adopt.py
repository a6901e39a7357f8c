"""A legacy database becomes one of Twinlens, or stays what it was."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from server.commands import migrate
from server.database import migrations
from server.database.queries import Queries
from server.doctor import adopt
from server.errors import ArtifactInvalid, DatabaseUnusable
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support.databases import contents
from tests.support.legacy import (
    LEGACY_SQL,
    MAPPED_SCHEMA,
    NAMES,
    legacy_database,
    random_vectors,
    real_vectors,
    settings,
)
from tests.support.serving import serving

Rows = list[tuple[Any, ...]]


def adopt_database(url: str, folder: Path, media: Path | None = DEMO_PICTURES, sample: int = 64, **others: Any) -> int:
    arguments = argparse.Namespace(adopt=True, check=False, media=media, sample=sample)
    return migrate.run(settings(url, folder, **others), arguments, url)


def ask(connection: psycopg.Connection[Any], query: str) -> Rows:
    return connection.execute(query.encode()).fetchall()


def legacy_search(connection: psycopg.Connection[Any], vector: np.ndarray, client: str = "shop") -> Rows:
    return psycopg.RawCursor(connection).execute(LEGACY_SQL, (str(vector.tolist()), client, 10)).fetchall()


def shape_of(connection: psycopg.Connection[Any]) -> dict[str, set[tuple[Any, ...]]]:
    """Products and media as PostgreSQL's system tables describe them."""
    tables = "('products'::regclass, 'media'::regclass)"
    return {
        "columns": {
            *ask(
                connection,
                f"""SELECT a.attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,
                    attgenerated, attidentity, attcollation, pg_get_expr(adbin, adrelid) FROM pg_attribute a
                    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                    WHERE a.attrelid IN {tables} AND attnum > 0 AND NOT attisdropped""",
            )
        },
        "constraints": {
            *ask(
                connection,
                f"""SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
                    FROM pg_constraint WHERE conrelid IN {tables}""",
            )
        },
        "indexes": {
            *ask(connection, "SELECT tablename, indexdef FROM pg_indexes WHERE tablename IN ('products', 'media')")
        },
        "triggers": {
            *ask(
                connection,
                f"""SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger
                    WHERE tgrelid IN {tables} AND NOT tgisinternal""",
            )
        },
        "tables": {
            *ask(connection, "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        },
        "functions": {*ask(connection, "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'twinlens%'")},
        "migrations": {*ask(connection, "SELECT number, name, digest FROM twinlens_migrations")},
    }


def test_an_adopted_schema_is_that_of_a_fresh_database(
    bare_database_url: str, database_url: str, tmp_path: Path
) -> None:
    with legacy_database(bare_database_url, random_vectors()) as connection, psycopg.connect(database_url) as fresh:
        adopt_database(bare_database_url, tmp_path, media=None)
        adopted, new = shape_of(connection), shape_of(fresh)
    ours = {("twinlens_older_embeddings", "r"), ("twinlens_older_rows", "r")}
    assert adopted.pop("tables") == new.pop("tables") | ours
    for part, found in new.items():
        assert adopted[part] == found, part


def test_vectors_that_agree_with_the_pictures_move_and_the_legacy_sql_still_works(
    bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some vectors belong to no single picture: these media wait to be embedded."""
    changes = (
        """UPDATE image_embeddings SET embedding = (SELECT array_agg(x * 7) FROM unnest(embedding::real[]) x)::vector
           WHERE "mediaId" < 'm2'""",
        """UPDATE image_embeddings SET embedding = NULL WHERE "mediaId" = 'm5'""",
        """UPDATE image_embeddings SET embedding = array_fill(0, ARRAY[512])::vector WHERE "mediaId" = 'm6'""",
        """UPDATE image_embeddings SET embedding = (SELECT embedding FROM image_embeddings WHERE "mediaId" = 'm8')
           WHERE "mediaId" = 'm7'""",
        """INSERT INTO image_embeddings SELECT * FROM image_embeddings WHERE "mediaId" = 'm9'""",
        """UPDATE products SET "isActive" = NULL WHERE id = 'p10'""",
    )
    waiting = {5, 6, 7, 8, 9}
    with legacy_database(bare_database_url, real_vectors(), *changes) as connection:
        assert adopt_database(bare_database_url, tmp_path) == 0
        said = capsys.readouterr().out
        for number, vector in enumerate(real_vectors()):
            found = legacy_search(connection, vector)
            if number not in {*waiting, 10}:
                assert found[0][0] == f"p{number}"
                assert found[0][2] == pytest.approx(-1, abs=1e-3)
        assert len(ask(connection, "SELECT FROM image_embeddings")) == len(NAMES) - len(waiting)
        assert len(ask(connection, "SELECT FROM twinlens_older_embeddings")) == len(NAMES) + 1
        connection.execute("""UPDATE products SET "isActive" = false WHERE id = 'p0'""")
        assert "p0" not in [row[0] for row in legacy_search(connection, real_vectors()[0])]
        assert legacy_search(connection, real_vectors()[0], "another") == []
        connection.execute("DELETE FROM media WHERE id = 'm0'")
    assert f"Moved into that space, at unit length: {len(NAMES) - len(waiting)}." in said
    assert f"To be embedded: {len(waiting)} images." in said
    assert "35 pictures were embedded again with starter, and the lowest cosine is" in said
    assert adopt_database(bare_database_url, tmp_path) == 0
    assert "This is a Twinlens database already" in capsys.readouterr().out


def test_vectors_that_disagree_are_never_searched_and_the_server_embeds_the_pictures(
    bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [*real_vectors()[:30], *random_vectors()[30:]]
    with legacy_database(bare_database_url, mixed) as connection:
        with pytest.raises(DatabaseUnusable, match=r"migrate --adopt takes them over"):
            migrations.migrate(bare_database_url)
        adopt_database(bare_database_url, tmp_path)
        said = capsys.readouterr().out
        assert "10 of them disagree (0.999 is needed)" in said
        assert f"To be embedded: {len(NAMES)} images." in said
        assert "reembed --artifact" in said
        assert legacy_search(connection, real_vectors()[0]) == []
        assert ask(connection, "SELECT FROM twinlens_spaces") == []
        # Where the older system kept its pictures.
        store = tmp_path / "store"
        store.mkdir()
        (store / "pictures").symlink_to(DEMO_PICTURES)
        command = ["reembed", "--artifact", str(STARTER), "--media-url", str(store), "--data", str(tmp_path / "data")]
        flags = ["--database-url", bare_database_url, "--device", "cpu", "--threads", "2", "--batch", "8"]
        done = subprocess.run(
            [sys.executable, "-m", "server", *command, *flags], cwd=ROOT, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for number, vector in enumerate(real_vectors()):
            assert legacy_search(connection, vector)[0][0] == f"p{number}"
        with serving(bare_database_url, tmp_path / "data", media_url=str(store)) as client:
            picture = (DEMO_PICTURES / f"{NAMES[3]}.webp").read_bytes()
            answer = client.post("/v1/search", files={"file": picture}, data={"clientId": "shop"}).json()
            assert (answer["results"][0]["productId"], answer["results"][0]["similarity"]) == ("p3", 100.0)


def test_vectors_whose_pictures_are_not_at_hand_are_not_trusted(
    bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in NAMES[:10]:
        (few / f"{name}.webp").symlink_to(DEMO_PICTURES / f"{name}.webp")
    with legacy_database(bare_database_url, real_vectors()) as connection:
        adopt_database(bare_database_url, tmp_path, media=few)
        assert ask(connection, "SELECT FROM image_embeddings") == []
    assert "of 40, 10 are at hand and can be read, and 16 are needed (--media DIR)" in capsys.readouterr().out


def test_rows_that_cannot_be_kept_are_archived_in_full_with_the_reason(
    bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = (
        'ALTER TABLE media DROP CONSTRAINT "media_productId_fkey"',
        "ALTER TABLE products DROP CONSTRAINT products_sku_key",
        """DELETE FROM products WHERE id = 'p1'""",
        """UPDATE products SET "clientId" = '' WHERE id = 'p2'""",
        """UPDATE media SET "s3Key" = NULL WHERE id = 'm3'""",
        """UPDATE products SET sku = 'S4' WHERE id = 'p5'""",
        """UPDATE media SET width = -1 WHERE id = 'm6'""",
        """ALTER TABLE media DROP CONSTRAINT media_pkey; INSERT INTO media SELECT * FROM media WHERE id = 'm7'""",
    )
    with legacy_database(bare_database_url, real_vectors(), *changes) as connection:
        adopt_database(bare_database_url, tmp_path)
        archived = ask(connection, 'SELECT "table", id, kept, "row" ->> \'id\' FROM twinlens_older_rows ORDER BY 1, 2')
        assert archived == [
            ("media", "m1", False, "m1"),
            ("media", "m2", False, "m2"),
            ("media", "m3", False, "m3"),
            ("media", "m6", True, "m6"),
            ("media", "m7", False, "m7"),
            ("products", "p2", False, "p2"),
            ("products", "p5", True, "p5"),
        ]
        assert ask(connection, "SELECT count(*) FROM products") == [(len(NAMES) - 2,)]
        assert ask(connection, "SELECT count(*) FROM media") == [(len(NAMES) - 3,)]
        assert ask(connection, "SELECT sku FROM products WHERE id IN ('p4', 'p5') ORDER BY id") == [("S4",), (None,)]
    said = capsys.readouterr().out
    assert "- media, moved there: 2, because its product is not there" in said
    assert "- products, moved there: 1, because it belongs to no client" in said


def test_what_a_mapper_made_is_adopted_with_its_ids_its_values_and_its_own_columns(
    bare_database_url: str, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        connection.execute(MAPPED_SCHEMA)
        connection.execute(
            """
            INSERT INTO products SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'shop',
                'Thing ' || n, 'S' || n, true, 'red', '{"a": 1}', '2024-02-03 04:05:06.789', '2024-02-03 04:05:06.789'
            FROM generate_series(1, 4) n;
            INSERT INTO media SELECT id, id, (ARRAY['IMAGE', 'VIDEO', 'DRAWING', 'IMAGE'])[right(sku, 1)::int]::kind,
                (ARRAY['ready', 'processed', NULL, 'ready'])[right(sku, 1)::int], 'k/' || sku, 640, 480,
                (ARRAY[repeat('AB', 32), 'md5', NULL, '\\x' || repeat('cd', 32)])[right(sku, 1)::int]
            FROM products;
            INSERT INTO image_embeddings ("mediaId", embedding)
            SELECT id, array_fill(1, ARRAY[512])::vector FROM media
            """
        )
        products = ask(connection, "SELECT id::text, name, colour FROM products ORDER BY id")
        assert adopt_database(bare_database_url, tmp_path, media=None) == 0
        assert ask(connection, "SELECT id, name, colour FROM products ORDER BY id") == products
        assert ask(
            connection, """SELECT DISTINCT extract(epoch FROM "createdAt" AT TIME ZONE 'UTC')::float FROM products"""
        ) == [(1706933106.789,)]
        rows = ask(
            connection, """SELECT kind, status, "clientId", encode("contentDigest", 'hex') FROM media ORDER BY id"""
        )
        assert rows == [
            ("image", "ready", "shop", "ab" * 32),
            ("video", "ready", "shop", None),
            ("image", "ready", "shop", None),
            ("image", "ready", "shop", "cd" * 32),
        ]
        # What Twinlens does not name must not stand in its way, nor what the older system allowed.
        connection.execute(
            """INSERT INTO products (id, "clientId", name, sku) VALUES ('new', 'other', 'A thing', 'S1');
               INSERT INTO media (id, "productId", "clientId", status, "s3Key")
               VALUES ('n', 'new', 'other', 'failed', 'k')"""
        )
        adopted = shape_of(connection)
        extra = {"colour", "olderAttributes", "olderApiId"}
        with psycopg.connect(database_url) as fresh:
            new = shape_of(fresh)
        left = {row for row in adopted["columns"] if row[1] not in extra} ^ new["columns"]
        # The default of an id is the older application's, and harms nobody.
        assert {row[:2] for row in left} == {("products", "id")}
        assert adopted["constraints"] ^ new["constraints"] == {("media", "media_s3Key_key", 'UNIQUE ("s3Key")', True)}
        # The older application goes on changing what is its own.
        connection.execute("ALTER TABLE products ALTER COLUMN colour TYPE varchar(80)")
        connection.execute("ALTER TABLE products DROP COLUMN colour")
    said = capsys.readouterr().out
    assert "products.attributes is called olderAttributes now" in said
    assert "media.apiId is called olderApiId now: Twinlens has another apiId." in said
    assert "products.colour may be NULL now" in said
    assert "- media, changed: 1, because its contentDigest is no SHA-256, and was left out" in said
    assert "- media, changed: 1, because Twinlens does not know its kind, and treats it as an image" in said


@contextmanager
def nothing_changed(connection: psycopg.Connection[Any]) -> Iterator[None]:
    state = """SELECT c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c
               JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
               WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'twinlens_migrations%' ORDER BY 1, 3"""
    rows = "SELECT md5(string_agg(x::text, '' ORDER BY x::text)) FROM {} x"
    tables = ("products", "media", "image_embeddings")
    before = [ask(connection, state), *(ask(connection, rows.format(table)) for table in tables)]
    yield
    assert [ask(connection, state), *(ask(connection, rows.format(table)) for table in tables)] == before


REFUSED = {
    "a view of the vectors": ("CREATE VIEW nearest AS SELECT * FROM image_embeddings", "Views read.*nearest. Drop"),
    "a view of a column whose type changes": (
        "ALTER TABLE media ALTER COLUMN width TYPE bigint; CREATE VIEW sizes AS SELECT width FROM media",
        "cannot be adopted as they are, and nothing was changed: cannot alter type of a column used by a view.*sizes",
    ),
    "rows elsewhere that would go": (
        """CREATE TABLE orders (product text REFERENCES products (id) ON DELETE CASCADE);
           UPDATE products SET "clientId" = '' WHERE id = 'p1'""",
        "1 products cannot be kept.*rows of orders would go",
    ),
    "a type that does not fit": (
        "ALTER TABLE products ALTER COLUMN \"isActive\" TYPE text USING 'perhaps'",
        "invalid input syntax for type boolean",
    ),
    "a partitioned table": (
        "DROP TABLE media; CREATE TABLE media (id text) PARTITION BY LIST (id)",
        "media should be a plain table",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_adopted_is_refused_and_stays_as_it_was(
    name: str, bare_database_url: str, tmp_path: Path
) -> None:
    change, sentence = REFUSED[name]
    with (
        legacy_database(bare_database_url, real_vectors(), change) as connection,
        nothing_changed(connection),
        pytest.raises(DatabaseUnusable, match=sentence),
    ):
        adopt_database(bare_database_url, tmp_path)


def test_references_from_elsewhere_to_ids_that_change_their_type_are_refused(
    bare_database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        connection.execute(MAPPED_SCHEMA + "CREATE TABLE orders (product uuid REFERENCES products (id))")
        with nothing_changed(connection), pytest.raises(DatabaseUnusable, match=r"orders refers to products.id .*uuid"):
            adopt_database(bare_database_url, tmp_path)


def test_a_failure_at_any_step_leaves_the_legacy_database_as_it_was(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time another step fails, the last one first."""
    run = psycopg.Cursor.execute
    with legacy_database(bare_database_url, real_vectors()) as connection, nothing_changed(connection):
        steps: list[int] = []
        for wanted in (10**6, 40, 25, 12, 3):
            count = itertools.count()

            def execute(
                self: Any, query: Any, *rest: Any, wanted: int = wanted, count: Iterator[int] = count, **more: Any
            ) -> Any:
                steps.append(step := next(count))
                return run(self, b"SELECT 1 / 0" if step == wanted else query, *rest, **more)

            with monkeypatch.context() as patched:
                patched.setattr(psycopg.Cursor, "execute", execute)
                # Even when all but the end has been done.
                if wanted == 10**6:
                    patched.setattr(adopt.Adoption, "summary", lambda *_: connection.execute("SELECT 1 / 0"))
                with pytest.raises((DatabaseUnusable, psycopg.Error)):
                    adopt_database(bare_database_url, tmp_path)
        assert max(steps) > 40


def test_an_artifact_that_drifts_adopts_nothing(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drift(*_: Any) -> float:
        raise ArtifactInvalid("The golden cat.png no longer gives the vector of its export.")

    monkeypatch.setattr("server.artifact.artifact.Artifact.self_test", drift)
    with (
        legacy_database(bare_database_url, real_vectors()) as connection,
        nothing_changed(connection),
        pytest.raises(ArtifactInvalid, match=r"cat\.png"),
    ):
        adopt_database(bare_database_url, tmp_path)


def test_the_wait_for_an_application_that_holds_the_tables_is_limited(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Queries.read("adopt.sql")
    hasty = {name: sql.SQL(text.as_string(None).replace("'10s'", "'50ms'")) for name, text in patient._texts.items()}
    monkeypatch.setattr(patient, "_texts", hasty)
    monkeypatch.setattr(patient, "_complete", {})
    with legacy_database(bare_database_url, real_vectors()) as connection, psycopg.connect(bare_database_url) as other:
        other.execute("SELECT FROM media LIMIT 1")
        with nothing_changed(connection), pytest.raises(DatabaseUnusable, match="Stop the older application"):
            adopt_database(bare_database_url, tmp_path)


def test_an_empty_database_has_nothing_to_adopt_and_stays_empty(bare_database_url: str, tmp_path: Path) -> None:
    before = contents(bare_database_url)
    with pytest.raises(DatabaseUnusable, match="holds no tables of the older system"):
        adopt_database(bare_database_url, tmp_path)
    assert contents(bare_database_url) == before


def test_of_migration_1_only_the_two_tables_are_left_out() -> None:
    first = migrations.load_migrations()[0]
    rest = adopt.rest_of(first)
    assert "CREATE TABLE twinlens_spaces" in rest
    assert "CREATE TABLE products" not in rest
    assert "CREATE TABLE media" not in rest
    assert rest.count("CREATE ") == first.text.count("CREATE ") - 2
    with pytest.raises(DatabaseUnusable, match="no longer makes the table products"):
        adopt.rest_of(migrations.Migration(1, "0001_catalogue", rest))
