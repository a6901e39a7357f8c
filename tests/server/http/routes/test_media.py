"""Media whose bytes, or whose store, are away: never \"not found\", and back as soon as they are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from server import lifespan
from server.http import problems
from tests.support.pictures import unseen
from tests.support.process import KEYBOARD, until
from tests.support.serving import Client, serving


def upload(client: Client) -> str:
    """The id of the media."""
    answer = client.post("/v1/products/p/media", files={"file": unseen(KEYBOARD)})
    assert answer.status_code == 201, answer.text
    media_id: str = answer.json()["id"]
    return media_id


def test_a_store_that_goes_away_is_503_and_not_ready_until_it_is_back(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifespan, "_STORE_EACH_SECONDS", 0.1)
    folder = tmp_path / "media"
    with serving(database_url, tmp_path) as client:
        client.put("/v1/products/p", json={"name": "P"})
        media = upload(client)
        thumbnail = client.get(f"/v1/media/{media}/thumbnail")
        assert "max-age" in thumbnail.headers["Cache-Control"]
        volume = folder.rename(tmp_path / "volume")
        folder.mkdir()
        for answer in (
            client.get(f"/v1/media/{media}/thumbnail"),
            client.post("/v1/products/p/media", files={"file": unseen(KEYBOARD)}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["Cache-Control"] == "no-store"
            assert str(tmp_path) not in answer.text
        until(lambda: client.get("/health/ready").status_code == 503)
        lines = len([one for one in caplog.records if one.levelno >= logging.WARNING])
        assert client.get("/health/ready").json()["code"] == "storage_unavailable"
        assert client.post("/v1/search", files={"file": KEYBOARD}).status_code == 200
        assert not list(folder.iterdir())
        assert client.post("/v1/products/p/media", files={"file": unseen(KEYBOARD)}).status_code == 503
        assert (
            len([one for one in caplog.records if one.levelno >= logging.WARNING]) == lines
        )  # that the store is away has been said
        folder.rmdir()
        volume.rename(folder)
        until(lambda: client.get("/health/ready").status_code == 200)
        assert client.get(f"/v1/media/{media}/thumbnail").content == thumbnail.content
        upload(client)
    said = [record for record in caplog.records if record.name == problems.__name__]
    assert all(record.exc_info is None and "\n" not in record.getMessage() for record in said)
    assert any("lacks its mark" in record.getMessage() for record in said)


def test_bytes_that_a_row_promises_and_that_are_gone_are_503_and_counted(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as client:
        client.put("/v1/products/p", json={"name": "P"})
        media = upload(client)
        for path in (tmp_path / "media").rglob(f"{media}.*"):
            path.unlink()
        answer = client.get(f"/v1/media/{media}/thumbnail")
        assert (answer.status_code, answer.json()["code"]) == (503, "bytes_missing")
        assert answer.headers["Cache-Control"] == "no-store"
        assert client.get("/v1/media/never-there/thumbnail").status_code == 404
        assert client.get("/health/ready").status_code == 200  # one lost picture is not a lost store
        assert 'twinlens_store_failures_total{kind="missing"} 2.0' in client.get("/metrics").text
