"""A server embeds what its own space lacks."""

from __future__ import annotations

import io
from pathlib import Path

import psycopg
from PIL import Image

from tests.support.pictures import in_format
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


def test_a_server_corrects_what_an_earlier_version_misread_and_finds_what_is_blank(
    database_url: str, tmp_path: Path
) -> None:
    """As an upgrade leaves a catalogue: every vector was read by version 0, one of them wrongly."""

    def run_sql(statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    pictures = {
        "misread": in_format(Image.open(io.BytesIO(KEYBOARD)).convert("RGB"), "TIFF"),
        "right": KEYBOARD,
        "blank": in_format(Image.new("RGB", (60, 40), (9, 9, 200)), "PNG"),
    }
    with serving(database_url, tmp_path) as client:
        ids = {}
        for name, data in pictures.items():
            client.put(f"/v1/products/{name}", json={"name": name})
            ids[name] = client.post(f"/v1/products/{name}/media", files={"file": data}).json()["id"]
    run_sql(
        f"""
        DELETE FROM twinlens_readings;
        UPDATE twinlens_space_1 SET reading = 0, blank = false;
        UPDATE twinlens_space_1 SET embedding =
            (SELECT embedding FROM twinlens_space_1 WHERE "mediaId" = '{ids["blank"]}')
        WHERE "mediaId" = '{ids["misread"]}';
        UPDATE media SET width = 1, height = 1 WHERE id = '{ids["misread"]}'
        """
    )
    with serving(database_url, tmp_path) as client:
        until(lambda: client.get(f"/v1/media/{ids['blank']}").json()["blank"])
        until(lambda: client.get(f"/v1/media/{ids['misread']}").json()["width"] == 256)
        found = client.post("/v1/search", files={"file": pictures["misread"]}).json()["results"]
        assert (found[0]["mediaId"], found[0]["similarity"]) == (ids["misread"], 100.0)
        metrics = client.get("/metrics").text
    for result, media in (("corrected", 2), ("same", 1), ("failed", 0)):
        assert f'twinlens_reread_media_total{{result="{result}"}} {media}.0' in metrics
    assert [*run_sql("SELECT reading FROM twinlens_space_1 ORDER BY 1")] == [(0,), (1,), (1,)]
