"""The server as a process of its own: start, stop, and what happens when parts of it are killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest

from server.artifact.artifact import Artifact
from server.database.migrations import load_migrations
from server.ingest.storage import MARK
from server.postgres.server import EmbeddedPostgres
from server.spaces.spaces import SpaceDescription
from tests import DEMO_PICTURES, PHOTOGRAPHS, ROOT, STARTER
from tests.support.changed_artifacts import other_artifact, rewrite_manifest
from tests.support.databases import applied, contents, discard
from tests.support.process import PATIENCE, Process, Serve, until
from tests.support.spaces import older_database

FEW = 24
MANY = 96
"""Products in the demo catalogue: few to start with, or so many that a server can be caught while it loads them."""


@pytest.fixture(scope="module")
def loaded() -> Iterator[Callable[[], Path]]:
    """Makes data folders with FEW products, as a server has loaded them and left them: loading takes the longest."""
    # All can walk to it, so that under root, too, a folder and its database are copied as one.
    with tempfile.TemporaryDirectory(prefix="twinlens-test-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        process = Process(home / "loaded", "--demo", "on", products=FEW)
        try:
            process.ready()
        finally:
            assert process.stop() == 0
        numbers = count()

        def copy() -> Path:
            made = home / str(next(numbers))
            subprocess.run(["cp", "-a", home / "loaded", made], check=True)
            return made

        yield copy


@pytest.fixture
def shop(loaded: Callable[[], Path]) -> Path:
    """One of the test's own."""
    return loaded()


def test_what_was_added_is_found_after_a_restart_and_the_end_leaves_nothing_behind(serve: Serve) -> None:
    process = serve("--demo", "on", products=FEW).ready()
    first = process.search()
    assert (first[0]["productName"], first[0]["similarity"]) == ("Keyboard", 100.0)
    children = process.children
    assert process.stop() == 0
    until(lambda: not left(children))
    again = serve().ready()
    assert again.search() == first


@contextlib.contextmanager
def in_flight(process: Process) -> Iterator[None]:
    """Many requests, some of which are admitted when the block begins; at its end the admitted ones are answered."""
    photograph = (PHOTOGRAPHS / "drum-and-wine.jpg").read_bytes()
    with process.client() as client, ThreadPoolExecutor(24) as pool:
        client.get("/health/ready").raise_for_status()
        # Bytes after its end make each another file: equal ones would be embedded once.
        files = [{"file": photograph + bytes([at])} for at in range(24)]
        asked = [pool.submit(client.post, "/embed-image", files=file) for file in files]

        def inside() -> float:
            (figure,) = re.findall(r"^twinlens_pictures_inside (\S+)", client.get("/metrics").text, re.MULTILINE)
            return float(figure)

        until(lambda: inside() >= 8 or all(one.done() for one in asked))
        assert not all(one.done() for one in asked), "too quick to be caught in flight"
        taken = inside()
        yield
        answered = [one for one in asked if one.exception() is None and one.result().status_code == 200]
    # Those still in the client's own queue never reached the server; all admitted ones were answered.
    assert len(answered) >= taken > 0


def test_requests_in_flight_are_answered_on_sigterm(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    with in_flight(process):
        assert process.stop() == 0


def test_requests_in_flight_are_answered_when_ctrl_c_is_pressed_twice(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop, session=True).ready()
    children = process.children
    with in_flight(process):
        os.killpg(process.process.pid, signal.SIGINT)
        time.sleep(0.2)  # between two presses; nothing is awaited by it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.process.pid, signal.SIGINT)
        assert process.end() in (0, 128 + signal.SIGINT)
    assert "Traceback" not in "".join(process.log)
    until(lambda: not left(children))


def left(children: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    return [one for one in children if runs(one)]


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def test_an_upload_that_stalls_is_answered_within_the_deadline_and_does_not_keep_the_server_from_ending(
    serve: Serve, shop: Path
) -> None:
    process = serve("--deadline", "2", data=shop).ready()
    with process.connect() as sender:
        sender.sendall(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=frontier\r\n\r\n"
            b'--frontier\r\nContent-Disposition: form-data; name="file"\r\n\r\nthe first bytes'
        )
        with sender.makefile("rb") as answer:
            head = b"".join(iter(answer.readline, b"\r\n")).decode().lower()
            (length,) = re.findall(r"content-length: (\d+)", head)
            body = json.loads(answer.read(int(length)))
    assert head.startswith("http/1.1 503 ")
    assert re.search(r"retry-after: [1-9]", head)
    assert body["code"] == "deadline_missed"
    with process.client() as client:
        assert client.get("/health/ready").status_code == 200
    assert process.stop() == 0


def test_an_upload_that_stalls_while_the_server_ends_does_not_hold_it_up(serve: Serve, shop: Path) -> None:
    process = serve("--deadline", "2", data=shop).ready()
    with process.connect() as sender:
        sender.sendall(
            b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            b"Content-Type: multipart/form-data; boundary=frontier\r\n\r\n--frontier\r\n"
        )
        with process.client() as client:
            client.get("/health/ready").raise_for_status()
        assert process.stop() == 0


def test_an_end_while_the_demo_catalogue_loads_is_clean_and_the_next_start_has_all_of_it(serve: Serve) -> None:
    process = serve("--demo", "on", products=MANY)
    until(lambda: count_media(process) > 0)
    assert "Ready after" not in "".join(process.log), "too quick to be caught loading"
    children = process.children
    assert process.stop() == 0
    until(lambda: not left(children))
    assert "Traceback" not in "".join(process.log)
    again = serve("--demo", "on", products=MANY).ready()
    assert count_media(again) == MANY
    assert stored(again) == listed(again)


def test_a_kill_while_the_demo_catalogue_loads_leaves_no_row_without_bytes_and_the_next_start_completes_it(
    serve: Serve,
) -> None:
    process = serve("--demo", "on", products=MANY)
    until(lambda: count_media(process) > 0)
    children = process.children
    process.stop(signal.SIGKILL)
    until(lambda: not left(children))
    assert "Ready after" not in "".join(process.log), "too quick to be caught loading"
    bare = serve().ready()
    assert 0 < count_media(bare) < MANY
    assert stored(bare) >= listed(bare)
    assert bare.stop() == 0
    again = serve("--demo", "on", products=MANY).ready()
    assert count_media(again) == MANY
    assert stored(again) >= listed(again)
    assert again.search()[0]["similarity"] == 100.0


def test_ctrl_c_while_the_demo_catalogue_loads_ends_and_the_next_start_has_all_of_it(serve: Serve) -> None:
    process = serve("--demo", "on", session=True, products=MANY)
    until(lambda: count_media(process) > 0)
    assert "Ready after" not in "".join(process.log), "too quick to be caught loading"
    children = process.children
    os.killpg(process.process.pid, signal.SIGINT)
    assert process.end() in (0, 128 + signal.SIGINT)
    until(lambda: not left(children))  # Python's own tracker of resources ends when it sees that its parent has
    assert "Killing worker" not in "".join(process.log)
    assert count_media(serve("--demo", "on", products=MANY).ready()) == MANY


def stored(process: Process) -> set[str]:
    """The keys of all objects in the media store, but for its mark."""
    folder = process.data / "media"
    return {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file()} - {MARK}


def listed(process: Process) -> set[str]:
    """The keys that the catalogue names."""
    with psycopg.connect(EmbeddedPostgres(process.data).url) as connection:
        rows = connection.execute('SELECT "s3Key", "thumbnailKey" FROM media').fetchall()
    return {key for row in rows for key in row}


def count_media(process: Process) -> int:
    """How many media with a vector there are; 0 also while there is no database yet."""
    try:
        with psycopg.connect(EmbeddedPostgres(process.data).url) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM image_embeddings").fetchall()
            return int(count)
    except psycopg.Error:
        return 0


def test_a_locked_product_holds_up_its_own_uploads_and_nothing_else(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    url = EmbeddedPostgres(process.data).url
    path = "/v1/products/demo-keyboard/media"
    pictures = [one.read_bytes() for one in sorted(DEMO_PICTURES.glob("*.webp")) if one.stem != "keyboard"][:12]
    with (
        process.client() as client,
        ThreadPoolExecutor(len(pictures)) as pool,
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as onlooker,
    ):
        holder.execute("SELECT FROM products WHERE id = 'demo-keyboard' FOR UPDATE")
        uploads = [pool.submit(client.post, path, files={"file": data}) for data in pictures]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until(lambda: onlooker.execute(waiting).fetchall()[0][0] >= 3)
        ready = client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert process.search()[0]["productId"] == "demo-keyboard"
        answers = [one.result() for one in uploads]
        assert {(one.status_code, one.json()["code"]) for one in answers} == {(503, "database_busy")}
        assert all(int(one.headers["Retry-After"]) >= 1 for one in answers)
        holder.rollback()
        assert client.post(path, files={"file": pictures[0]}).status_code == 201
    assert count_media(process) == FEW + 1


def test_a_killed_database_comes_back_by_itself(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    before = process.postmaster
    before.kill()
    with process.client() as client:
        until(lambda: client.get("/health/ready").status_code == 200 and not before.is_running())
        assert 'twinlens_restarts_total{child="postgres"} 1.0' in client.get("/metrics").text
    assert process.postmaster.pid != before.pid
    assert process.search()[0]["similarity"] == 100.0


def test_a_server_started_beside_a_command_that_runs_the_database_goes_on_when_that_ends(
    serve: Serve, shop: Path
) -> None:
    command = [sys.executable, "-m", "server", "postgres", "--data", str(shop), "psql", "--no-align", "--tuples-only"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        psql.stdin.write("SELECT 'it runs';\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "it runs\n"
        process = serve("--demo", "on", products=FEW, data=shop).ready()
        found = process.search()
        assert found[0]["similarity"] == 100.0
        psql.stdin.close()
        assert psql.wait(PATIENCE) == 0
    process.wait_for("It is started again here")
    with process.client() as client:
        until(lambda: client.get("/health/ready").status_code == 200 and process.postmaster)
        assert 'twinlens_restarts_total{child="postgres"} 1.0' in client.get("/metrics").text
    assert process.search() == found
    assert process.stop() == 0


def test_a_killed_worker_comes_back_by_itself(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    process.worker.kill()
    process.ready(times=2)
    assert process.search()[0]["similarity"] == 100.0


def test_a_worker_killed_while_an_external_database_is_away_comes_back_with_it(serve: Serve, shop: Path) -> None:
    postgres = EmbeddedPostgres(shop)
    try:
        store = ("--media-url", str(shop / "media"))
        process = serve("--database-url", postgres.start(), *store, "--demo", "on", products=FEW).ready()
        found = process.search()
        postgres.close()
        process.worker.kill()
        process.wait_for("Waiting for the database")
        postgres.start()
        process.ready(times=2)
        assert process.search() == found
        assert process.stop() == 0
    finally:
        discard(postgres)


def test_a_killed_parent_ends_everything_and_the_next_start_finds_all(serve: Serve) -> None:
    process = serve("--demo", "on", products=FEW).ready()
    children = process.children
    process.stop(signal.SIGKILL)
    until(lambda: not left(children))
    assert serve(port=process.port).ready().search()[0]["similarity"] == 100.0


def test_two_servers_on_one_folder_are_refused(serve: Serve, shop: Path) -> None:
    first = serve(data=shop).ready()
    second = serve(data=shop)
    assert second.end() == 2
    assert "".join(second.log).count("twinlens: ") == 1
    with first.client() as client:
        assert client.get("/health/ready").status_code == 200


def test_another_artifact_on_a_filled_database_stops_with_both_spaces_named(
    serve: Serve, shop: Path, tmp_path: Path
) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    ours = process.search()
    live = json.loads((STARTER / "manifest.json").read_bytes())["space"]["id"]
    assert process.stop() == 0
    other = other_artifact(tmp_path / "other")
    refused = serve(data=shop, model=tmp_path / "other")
    assert refused.end() == 2
    said = "".join(refused.log)
    assert live in said
    assert other in said
    assert "TWINLENS_DATA" in said
    assert "Traceback" not in said
    assert serve(data=shop).ready().search() == ours


Goldens = list[dict[str, Any]]
Change = Callable[[Path, Goldens], list[str]]
"""Changes an artifact in a folder; the names of the files that it changed."""


def drifting(folder: Path, change: Change) -> Path:
    """The starter with a change to its goldens, in a manifest that knows of it: every digest is right."""
    shutil.copytree(STARTER, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in change(folder, manifest["goldens"]):
        manifest["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    rewrite_manifest(folder, manifest)
    return folder


def turned_vector(folder: Path, goldens: Goldens) -> list[str]:
    name: str = goldens[0]["embeddings"]["fp32"]
    vector = np.load(folder / name)
    vector[0] += 0.02
    np.save(folder / name, vector)
    return [name]


def swapped_pictures(folder: Path, goldens: Goldens) -> list[str]:
    one, other = (golden["picture"] for golden in goldens[:2])
    (folder / one).rename(folder / "aside")
    (folder / other).rename(folder / one)
    (folder / "aside").rename(folder / other)
    return [one, other]


@pytest.mark.parametrize(
    ("change", "link"), [(turned_vector, "pixels to vector"), (swapped_pictures, "bytes to pixels")]
)
def test_a_golden_that_drifts_stops_the_start_and_names_the_link(
    serve: Serve, shop: Path, tmp_path: Path, change: Change, link: str
) -> None:
    refused = serve(data=shop, model=drifting(tmp_path / "drifted", change))
    assert refused.end() == 2
    assert f"(link: {link})" in " ".join("".join(refused.log).split())


def test_a_refused_upgrade_leaves_the_database_to_the_version_before(
    serve: Serve, bare_database_url: str, tmp_path: Path
) -> None:
    space = SpaceDescription.of(Artifact.read(STARTER), "fp32")
    older = older_database(bare_database_url, tmp_path / "sql", space)
    before = contents(bare_database_url)
    other = other_artifact(tmp_path / "other")
    drifting(tmp_path / "drifted", turned_vector)
    for model, said in (("other", other), ("drifted", "(link: pixels to vector)")):
        refused = serve("--database-url", bare_database_url, model=tmp_path / model)
        assert refused.end() == 2
        log = " ".join("".join(refused.log).split())
        assert said in log
        assert "Traceback" not in log
        assert contents(bare_database_url) == before
    assert applied(bare_database_url) == older
    serve("--database-url", bare_database_url).ready()
    assert applied(bare_database_url) == [one.name for one in load_migrations()]


def test_a_small_bound_on_pictures_does_not_bound_the_goldens(serve: Serve, shop: Path) -> None:
    process = serve("--max-pixels", "10000", data=shop).ready()
    with process.client() as client:
        response = client.post("/embed-image", files={"file": (PHOTOGRAPHS / "raccoon.jpg").read_bytes()})
    assert (response.status_code, response.json()["code"]) == (413, "picture_too_large")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "/nowhere"), "There is no model artifact in /nowhere"),
        (("--port", "high"), "--port must be a port"),
        (("--host", "0.0.0.0"), "TWINLENS_TRUST_NETWORK=on where a gateway"),
        (("--device", "cuda"), "TWINLENS_DEVICE is cuda"),
        (("--precision", "int8"), "has no int8 graph"),
        (("--database-url", "postgresql://nobody:hush@127.0.0.1:1/none"), "database"),
    ],
)
def test_a_start_that_cannot_be_says_why_in_one_sentence(serve: Serve, flags: tuple[str, ...], said: str) -> None:
    if "cuda" in flags and shutil.which("nvidia-smi"):
        pytest.skip("this machine has CUDA")
    refused = serve(*flags)
    assert refused.end() == 2
    log = "".join(refused.log)
    assert said in log
    assert "Traceback" not in log
    assert "hush" not in log


def test_database_url_prints_where_the_legacy_application_may_connect(serve: Serve, shop: Path) -> None:
    process = serve("--demo", "on", products=FEW, data=shop).ready()
    command = [sys.executable, "-m", "server", "database-url", "--data", str(process.data)]
    url = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM image_embeddings").fetchone() == (FEW,)


def test_the_server_needs_neither_torch_nor_the_export() -> None:
    code = "import sys, server.__main__, server.app; print([m for m in sys.modules if m.split('.')[0] in "
    code += "('torch', 'transformers', 'optimum', 'onnx', 'export')])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_volume_that_is_not_mounted_stops_the_start_with_a_sentence_and_no_folder_is_made(
    serve: Serve, shop: Path
) -> None:
    (shop / "media").rename(shop / "volume")
    process = serve(data=shop)
    assert process.end() == 2
    said = "".join(process.log)
    assert "not mounted" in said
    assert "Traceback" not in said
    assert "Ready" not in said
    assert not (shop / "media").exists()
    (shop / "volume").rename(shop / "media")
    process = serve(data=shop).ready()
    assert process.search()[0]["similarity"] == 100.0
