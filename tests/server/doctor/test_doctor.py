"""The command: what it refuses, what it prints, and its exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from server.doctor.doctor import examine
from server.errors import DatabaseUnusable
from tests import ROOT, STARTER
from tests.support.databases import database_of, fresh_database, run_sql
from tests.support.legacy import legacy_database, random_vectors, settings


def test_a_database_that_is_no_catalogue_is_refused_in_plain_words(bare_database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        with pytest.raises(DatabaseUnusable, match="holds no catalogue"):
            examine(settings(bare_database_url, tmp_path), bare_database_url)
        connection.execute('CREATE TABLE products (id text); CREATE TABLE media (id text, "productId" text)')
        with pytest.raises(DatabaseUnusable, match="has media and products, and no image_embeddings"):
            examine(settings(bare_database_url, tmp_path), bare_database_url)
        connection.execute('CREATE TABLE image_embeddings ("mediaId" text, embedding real[])')
        with pytest.raises(DatabaseUnusable, match=r'lack products."clientId", products."name" and media."s3Key"'):
            examine(settings(bare_database_url, tmp_path), bare_database_url)
        connection.execute(
            'ALTER TABLE products ADD "clientId" text, ADD name text; ALTER TABLE media ADD "s3Key" text'
        )
        with pytest.raises(DatabaseUnusable, match=r"of the type real\[\], not pgvector's vector"):
            examine(settings(bare_database_url, tmp_path), bare_database_url)


def test_ivfflat_indexes_are_a_finding_before_the_pgvector_that_builds_them_safely(
    bare_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = "CREATE SCHEMA other; CREATE TABLE other.texts (embedding vector(3)); "
    build += "CREATE INDEX lists ON other.texts USING ivfflat (embedding vector_ip_ops) WITH (lists = 2)"

    def found() -> dict[str, tuple[int, list[str]]]:
        seen = examine(settings(bare_database_url, tmp_path), bare_database_url)
        return {one.name: (one.count, list(one.examples)) for one in seen.findings if "ivfflat" in one.name}

    with legacy_database(bare_database_url, random_vectors(), build):
        monkeypatch.setattr("server.doctor.examination.SAFE_IVFFLAT", (99, 0, 0))
        assert found() == {"unsafe-ivfflat": (1, ["other.lists"])}
        monkeypatch.setattr("server.doctor.examination.SAFE_IVFFLAT", (0, 8, 4))
        assert found() == {}


def test_an_encoding_that_lacks_names_is_a_finding(postgres_url: str, tmp_path: Path) -> None:
    with fresh_database(postgres_url) as url:
        run_sql(postgres_url, f"DROP DATABASE {database_of(url)}")
        run_sql(postgres_url, f"CREATE DATABASE {database_of(url)} TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'")
        with legacy_database(url, random_vectors()):
            names = {one.name for one in examine(settings(url, tmp_path), url).findings}
    assert names == {"encoding", "random-vectors"}


def test_the_command_reports_by_its_exit_code_and_changes_nothing(bare_database_url: str, tmp_path: Path) -> None:
    def ask(*flags: str) -> subprocess.CompletedProcess[str]:
        where = ["--database-url", bare_database_url, "--data", str(tmp_path / "data"), "--model", str(STARTER)]
        command = [sys.executable, "-m", "server", "doctor", *where, "--device", "cpu", *flags]
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)

    assert ask().returncode == 2
    assert "holds no catalogue" in ask().stderr
    with legacy_database(bare_database_url, random_vectors()) as connection:
        state = "SELECT sum(xmin::text::bigint), count(*) FROM image_embeddings"
        before = connection.execute(state).fetchone()
        text = ask("--sample", "30")
        as_json = ask("--json")
        assert connection.execute(state).fetchone() == before
    assert (text.returncode, as_json.returncode) == (1, 1)
    assert text.stdout.splitlines()[3].startswith("1. Vectors that look random: ")
    assert " of 30 sampled" in text.stdout
    assert re.search(r"What mends it: python -m server --data .* --database-url .* migrate --adopt", text.stdout)
    assert text.stdout.endswith("\n1 finding.\n")
    record = json.loads(as_json.stdout)
    assert record["database"] == "older"
    assert {"name", "sentence", "count", "of", "unit", "examples", "effect", "remedy"} == set(record["findings"][0])
    assert not (tmp_path / "data").exists()
