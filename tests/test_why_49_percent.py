"""The statements of docs/why-49-percent.md, run as a reader would run them on the legacy system's tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.rows import dict_row

from tests import ROOT

STATEMENTS = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "why-49-percent.md").read_text(), re.DOTALL)
ROWS = 605

LEGACY_SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE products (id text PRIMARY KEY, "clientId" text, name text, sku text UNIQUE, "isActive" boolean);
CREATE TABLE media (id text PRIMARY KEY, "productId" text, "s3Key" text, width int, height int);
CREATE TABLE image_embeddings ("mediaId" text, embedding vector(512));
"""


def vectors(kind: str) -> NDArray[np.float64]:
    random = np.random.default_rng(49)
    drawn: NDArray[np.float64] = random.standard_normal((ROWS, 512))
    if kind != "random":
        drawn += 1.05 * random.standard_normal(512)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn * random.uniform(6, 14, (ROWS, 1)) if kind == "long" else drawn


@pytest.fixture(params=["random", "alike", "long"])
def legacy(request: pytest.FixtureRequest, bare_database_url: str) -> Iterator[tuple[psycopg.Connection, str]]:
    """A connection to a database of the legacy system, and what kind of vectors it holds."""
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        connection.execute(LEGACY_SCHEMA)
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO products VALUES ('p', 'shop', 'A thing', 'S', true)")
            cursor.executemany(
                "INSERT INTO media SELECT %s, 'p', %s, 640, 480",
                [(f"m{row}", f"pictures/{row % 600}.jpg") for row in range(ROWS)],
            )
            cursor.executemany(
                "INSERT INTO image_embeddings VALUES (%s, %s)",
                [(f"m{row}", str(vector.tolist())) for row, vector in enumerate(vectors(request.param))],
            )
        yield connection, request.param


def run(connection: psycopg.Connection, statement: str) -> list[dict[str, Any]]:
    filled = statement.replace("[0.0123, -0.0456, ...]", str([1.0] + [0.0] * 511))
    return psycopg.Cursor(connection, row_factory=dict_row).execute(filled.encode()).fetchall()


def test_every_statement_runs_and_only_reads(legacy: tuple[psycopg.Connection, str]) -> None:
    connection, _ = legacy
    assert len(STATEMENTS) == 8
    connection.execute("SET default_transaction_read_only = on")
    for statement in STATEMENTS:
        run(connection, statement)


def test_the_one_check_that_tells_most_tells_them_apart(legacy: tuple[psycopg.Connection, str]) -> None:
    connection, kind = legacy
    (row,) = run(connection, STATEMENTS[0])
    if kind == "random":
        assert float(row["mean_cosine"]) == pytest.approx(0, abs=0.005)
        assert float(row["deviation"]) == pytest.approx(1 / np.sqrt(512), abs=0.003)
    elif kind == "alike":
        assert row["mean_cosine"] > 0.4


def test_vectors_that_are_not_of_unit_length_do_not_find_themselves_first(
    legacy: tuple[psycopg.Connection, str],
) -> None:
    connection, kind = legacy
    statement = next(one for one in STATEMENTS if "not_first" in one)
    (row,) = run(connection, statement)
    assert (row["not_first"] > 0) == (kind == "long")


def test_a_perfect_match_reads_nought_where_the_sign_is_wrong(legacy: tuple[psycopg.Connection, str]) -> None:
    connection, kind = legacy
    statement = next(one for one in STATEMENTS if "AS meant" in one)
    (row,) = run(connection, statement)
    if kind != "long":
        assert (float(row["shown"]), float(row["meant"])) == (0.0, 100.0)
