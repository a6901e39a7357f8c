"""What the operator's page is made of: who may read it, that it is true, and what it says when something is away."""

from __future__ import annotations

import hashlib
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from server import __version__
from server.database import isolation
from server.http.routes.operator import REPORT
from server.operations import disks
from tests import STARTER
from tests.support.databases import database_of, fresh_database, in_database
from tests.support.keys import ACME, OTHER, new_key
from tests.support.process import Process, until
from tests.support.serving import Client, serving
from twinlens import derive_search_key

PATH = "/v1/operator"


@pytest.fixture(scope="module")
def keyed(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, dict[str, str]]]:
    """A server where keys are on, with two clients' products; the keys by what they may."""
    with fresh_database(postgres_url, template_database) as url:
        keys = {scope: new_key(url, scope).key for scope in ("search", "read", "write")}
        keys |= {"admin": new_key(url, "admin", None).key, "derived": derive_search_key(keys["search"], limit=5)}
        other = new_key(url, "write", OTHER).key
        with serving(url, tmp_path_factory.mktemp("keyed")) as client:
            for key, products in ((keys["write"], 3), (other, 1)):
                for number in range(products):
                    product = {"name": "A thing", "isActive": number > 0}
                    client.put(f"/v1/products/{number}", json=product, headers=bearer(key)).raise_for_status()
            yield client, keys


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def overview(client: Client, key: str | None = None) -> Any:
    answer = client.get(PATH, headers=bearer(key) if key is not None else {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def counted(client: Client, key: str | None = None) -> Any:
    """The overview, once the clients were counted."""
    until(lambda: overview(client, key)["clients"] is not None)
    return overview(client, key)


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [PATH, "/operator/report", "/metrics"])
@pytest.mark.parametrize("kind", ["search", "read", "write", "derived"])
def test_every_key_but_an_admins_is_told_what_it_lacks(
    keyed: tuple[Client, dict[str, str]], path: str, kind: str
) -> None:
    client, keys = keyed
    answer = client.get(path, headers=bearer(keys[kind]))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert "admin" in answer.json()["error"]
    assert client.get(path).status_code == 401
    assert client.get(path, headers=bearer(keys["admin"])).status_code == 200


def test_the_page_itself_needs_no_key_has_no_data_and_says_that_a_key_is_needed(
    keyed: tuple[Client, dict[str, str]], api: Client
) -> None:
    client, _ = keyed
    answer = client.get("/operator")
    assert answer.status_code == 200
    assert 'data-keys="on"' in answer.text
    assert not re.search(rf"{ACME}|{OTHER}|starter", answer.text)
    assert 'data-keys="off"' in api.get("/operator").text


def test_the_page_may_run_and_show_nothing_that_is_written_into_it(api: Client) -> None:
    answer = api.get("/operator")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", answer.text)


def test_a_slash_at_the_end_leads_to_the_page(api: Client) -> None:
    answer = api.get("/operator/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "../operator")


# --- what it says -----------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_clients_under_the_policies_of_the_database(database_url: str, tmp_path: Path) -> None:
    assert isolation.find(database_url).role is not None, "the server serves as a role that sees one client at a time"
    key, other = new_key(database_url, "write").key, new_key(database_url, "write", OTHER).key
    admin = new_key(database_url, "admin", None).key
    with serving(database_url, tmp_path) as client:
        for name, product in ((key, "a"), (key, "b"), (other, "a")):
            body = {"name": "A thing", "isActive": product == "a"}
            client.put(f"/v1/products/{product}", json=body, headers=bearer(name)).raise_for_status()
    with serving(database_url, tmp_path) as client:  # which counts at its start
        assert counted(client, admin)["clients"]["largest"] == [
            {"id": ACME, "products": 2, "activeProducts": 1, "media": 0},
            {"id": OTHER, "products": 1, "activeProducts": 1, "media": 0},
        ]


def test_without_clients_the_lists_are_empty(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as client:
        found = counted(client)
        assert (found["clients"]["total"], found["clients"]["largest"]) == (0, [])
        assert found["indexes"] == {"total": 0, "largest": []}
        (space,) = found["spaces"]
        assert (space["state"], space["served"], space["vectors"], space["retiredAt"]) == ("live", True, 0, None)
        assert space["progress"] == {"running": False, "embedded": 0, "untried": 0, "failed": 0}


def test_it_says_what_runs(api: Client) -> None:
    found = overview(api)
    ready = api.get("/health/ready").json()
    server = found["server"]
    assert (server["version"], server["workers"], server["report"]) == (__version__, 1, True)
    assert {name: server[name] for name in ("model", "device", "precision", "space", "text")} == {
        name: ready[name] for name in ("model", "device", "precision", "space", "text")
    }
    assert server["dimensions"] == found["spaces"][0]["dimensions"] == 512
    started = datetime.fromisoformat(server["startedAt"])
    assert abs((datetime.now(UTC) - started).total_seconds() - server["uptimeSeconds"]) < 60
    assert found["checks"] == ready["checks"]


def test_disks_are_those_of_the_metrics(api: Client) -> None:
    sizes = dict(re.findall(r'^twinlens_disk_size_bytes\{folder="(\w+)"\} (\S+)$', api.get("/metrics").text, re.M))
    assert {one["folder"]: one["size"] for one in overview(api)["disks"]} == {
        folder: float(size) for folder, size in sizes.items()
    }


def test_what_is_wrong_is_said_in_a_sentence(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "LEAST_FREE_BYTES", 1 << 62)
    with serving(database_url, tmp_path) as client:
        disk = overview(client)["checks"]["disk"]
        assert (disk["ok"], disk["code"]) == (False, "disk_full")
        assert disk["error"].startswith("A disk of this server is full")


def test_while_the_database_is_away_it_is_503_and_the_metrics_go_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.catalogue.overview._FRESH_SECONDS", 0.0)
    with serving(database_url, tmp_path) as client:
        assert overview(client)["spaces"]
        name = database_of(database_url)
        with psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            until(lambda: client.get(PATH).status_code == 503)
            answer = client.get(PATH)
            assert answer.json()["code"] == "database_unavailable"
            assert answer.headers["retry-after"]
            assert "twinlens_requests_total" in client.get("/metrics").text
            assert client.get("/operator").status_code == 200
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        until(lambda: client.get(PATH).status_code == 200)


def ask(process: Process) -> tuple[int, dict[str, Any]]:
    """Which worker takes a new connection, and what it says."""
    with httpx.Client(base_url=process.url, timeout=60) as client:
        answer = client.get(PATH).raise_for_status()
        _, port = answer.extensions["network_stream"].get_extra_info("client_addr")
        workers = [one for one in process.children if "spawn_main" in " ".join(one.cmdline())]
        (worker,) = (one for one in workers if any(at.raddr and at.raddr.port == port for at in one.net_connections()))
        return worker.pid, answer.json()


def test_any_of_several_workers_knows_what_one_has_counted_and_since_when_the_server_runs(
    database_url: str, tmp_path: Path
) -> None:
    process = Process(tmp_path, "--database-url", database_url, "--demo", "on", "--workers", "2")
    try:
        process.ready()
        found: dict[int, dict[str, Any]] = {}

        def both_know() -> bool:
            # A connection is one worker's; which one's, the system decides.
            worker, told = ask(process)
            if told["clients"] is not None:
                found[worker] = told
            return len(found) == 2

        until(both_know)
        assert len({one["server"]["startedAt"] for one in found.values()}) == 1
        assert {one["server"]["workers"] for one in found.values()} == {2}
    finally:
        process.stop()


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_of_the_export_is_shown_with_its_own_styles_and_nothing_else(api: Client) -> None:
    answer = api.get("/operator/report")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == (STARTER / REPORT).read_bytes()
    policy = answer.headers["content-security-policy"]
    styles = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    hashes = [f"'sha256-{b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in styles]
    assert hashes
    assert f"style-src {' '.join(hashes)};" in policy
    assert policy.startswith("default-src 'none'; ")
    assert f"style-src 'self' {' '.join(hashes)}" in api.get("/operator").headers["content-security-policy"]


def test_a_model_without_a_report_has_none(database_url: str, tmp_path: Path) -> None:
    model = shutil.copytree(STARTER, tmp_path / "model")
    (model / REPORT).unlink()
    with serving(database_url, tmp_path / "data", model=model) as client:
        assert overview(client)["server"]["report"] is False
        answer = client.get("/operator/report")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert client.get("/operator").status_code == 200
