"""A server embeds what its own space lacks."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.support.process import KEYBOARD, until
from tests.support.serving import serving


def test_what_waits_to_be_embedded_is_found_soon_and_what_cannot_be_is_recorded_once(
    database_url: str, tmp_path: Path
) -> None:
    def run_sql(statement: str, *parameters: str) -> list[tuple[int]] | list[tuple[str, int]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    run_sql("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'demo', 'P')""")
    add = """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p', 'demo', %s)"""
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "keyboard").write_bytes(KEYBOARD)
    run_sql(add, "waits", "keyboard")
    run_sql(add, "never", "nothing")
    with serving(database_url, tmp_path) as client:
        until(lambda: run_sql("SELECT 1 FROM image_embeddings"))
        until(lambda: run_sql("SELECT 1 FROM twinlens_unreadable"))
        (match,) = client.post("/v1/search", files={"file": KEYBOARD}).json()["results"]
    assert (match["mediaId"], match["similarity"], match["width"]) == ("waits", 100.0, 256)
    with serving(database_url, tmp_path):
        run_sql(add, "later", "keyboard")
        until(lambda: len(run_sql("SELECT 1 FROM image_embeddings")) == 2)
    assert run_sql('SELECT "mediaId", attempts FROM twinlens_unreadable') == [("never", 1)]
