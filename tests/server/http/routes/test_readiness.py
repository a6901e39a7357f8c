"""Readiness: what is looked at, what it says of what is wrong, and that a stuck session is seen."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from numpy.typing import NDArray

from server.artifact.artifact import Vectors
from server.inference.runner import PlainRunner
from server.ingest.storage import MARK
from server.operations import disks
from tests import DEMO_PICTURES
from tests.support.databases import database_of, in_database
from tests.support.full_disk import fill, small_disk
from tests.support.pictures import unseen
from tests.support.process import until
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
WELL = {"ok": True}


def wrong(client: Client) -> dict[str, str]:
    """The codes of what is wrong, by check; the answer's own parts agree with them."""
    answer = client.get("/health/ready")
    body = answer.json()
    found = {name: check["code"] for name, check in body["checks"].items() if not check["ok"]}
    assert set(body["checks"]) == {"model", "database", "store", "disk"}
    if not found:
        assert (answer.status_code, body["status"]) == (200, "ready")
        return {}
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    first = next(check for check in body["checks"].values() if not check["ok"])
    assert (body["code"], body["error"]) == (first["code"], first["error"])
    return found


def failed(client: Client, check: str) -> bool:
    """Whether the metrics say so."""
    return f'twinlens_check_failed{{check="{check}"}} 1.0' in client.get("/metrics").text


def test_all_that_was_looked_at_is_said(api: Client) -> None:
    assert api.get("/health/ready").json()["checks"] == dict.fromkeys(("model", "database", "store", "disk"), WELL)


def test_a_stuck_session_turns_it_red_until_the_run_ends(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engine._LEAST_STUCK_SECONDS", 0.0)
    free = threading.Event()
    run = PlainRunner.__call__

    def hang(self: PlainRunner, entries: Sequence[NDArray[Any]], /) -> Vectors:
        free.wait()
        return run(self, entries)

    with serving(database_url, tmp_path, deadline=1.0) as client, ThreadPoolExecutor(1) as threads:
        assert wrong(client) == {}
        monkeypatch.setattr(PlainRunner, "__call__", hang)
        asked = threads.submit(client.post, "/embed-image", files={"file": unseen(KEYBOARD)})
        try:
            until(lambda: wrong(client) == {"model": "model_stuck"})
            assert failed(client, "model")
            assert client.get("/health/live").status_code == 200
            answer = asked.result()
            assert (answer.status_code, answer.json()["code"]) == (503, "deadline_missed")
        finally:
            free.set()
        until(lambda: wrong(client) == {})
        assert not failed(client, "model")
        assert client.post("/embed-image", files={"file": unseen(KEYBOARD)}).status_code == 200


def test_a_session_that_fails_on_everything_turns_it_red_until_it_does_not(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: PlainRunner, entries: Sequence[NDArray[Any]], /) -> Vectors:
        raise RuntimeError("CUDA error 700: an illegal memory access was encountered")

    with serving(database_url, tmp_path) as client:
        with monkeypatch.context() as broken:
            broken.setattr(PlainRunner, "__call__", fail)
            answer = client.post("/embed-image", files={"file": unseen(KEYBOARD)})
            assert (answer.status_code, answer.json()["code"]) == (500, "encoder_failed")
            until(lambda: wrong(client) == {"model": "model_failing"})
            assert "CUDA" not in client.get("/health/ready").text
        until(lambda: wrong(client) == {})


def test_a_full_disk_turns_it_red_until_there_is_room(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(disks, "LEAST_FREE_BYTES", 1_000_000)
    with (
        small_disk(tmp_path / "volume", 8) as volume,
        serving(database_url, tmp_path / "data", media_url=str(volume / "media")) as client,
    ):
        client.put("/v1/products/p", json={"name": "A thing"})
        upload = "/v1/products/p/media"
        assert client.post(upload, files={"file": unseen(KEYBOARD)}).status_code == 201
        filling = fill(volume)
        until(lambda: wrong(client) == {"disk": "disk_full"})
        assert failed(client, "disk")
        assert str(tmp_path) not in client.get("/health/ready").text
        answer = client.post(upload, files={"file": unseen(KEYBOARD)})
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert client.post("/v1/search", files={"file": KEYBOARD}).status_code == 200
        filling.unlink()
        until(lambda: wrong(client) == {})
        assert client.post(upload, files={"file": unseen(KEYBOARD)}).status_code == 201


def test_several_things_that_are_wrong_are_all_said(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr("server.lifespan._STORE_EACH_SECONDS", 0.05)
    monkeypatch.setattr("server.lifespan._CONNECTION_TIMEOUT_SECONDS", 1.0)
    with serving(database_url, tmp_path) as client:
        assert wrong(client) == {}
        mark = tmp_path / "media" / MARK
        kept = mark.rename(tmp_path / "kept")
        monkeypatch.setattr(disks, "LEAST_FREE_BYTES", 1 << 62)
        until(lambda: wrong(client) == {"store": "storage_unavailable", "disk": "disk_full"})
        name = database_of(database_url)
        with psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            all_three = {"database": "database_unavailable", "store": "storage_unavailable", "disk": "disk_full"}
            until(lambda: wrong(client) == all_three)
            until(lambda: failed(client, "database"))
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        kept.rename(mark)
        monkeypatch.setattr(disks, "LEAST_FREE_BYTES", 1)
        until(lambda: wrong(client) == {})
