"""The server as a process of its own: start, stop, and what happens when parts of it are killed."""

import contextlib
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import psycopg
import pytest

from tests import PHOTOGRAPHS, ROOT, STARTER
from tests.process import until


def test_what_was_added_is_found_after_a_restart_and_the_end_leaves_nothing_behind(serve):
    process = serve("--demo", "on").ready()
    first = process.search()
    assert (first[0]["productName"], first[0]["similarity"]) == ("Keyboard", 100.0)
    children = process.children
    assert process.stop() == 0
    assert not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    again = serve().ready()
    assert again.search() == first


def test_requests_in_flight_are_answered_on_sigterm(serve):
    process = serve("--demo", "on").ready()
    photograph = (PHOTOGRAPHS / "drum-and-wine.jpg").read_bytes()
    with process.client() as client, ThreadPoolExecutor(24) as pool:
        client.get("/health/ready").raise_for_status()
        asked = [pool.submit(client.post, "/embed-image", files={"file": photograph}) for _ in range(24)]

        def inside():
            line = re.search(r"^twinlens_pictures_inside (\S+)", client.get("/metrics").text, re.MULTILINE)
            return float(line[1])

        until(lambda: inside() >= 8 or all(one.done() for one in asked))
        assert not all(one.done() for one in asked), "too quick to be caught in flight"
        taken = inside()
        code = process.stop()
        answered = [one for one in asked if one.exception() is None and one.result().status_code == 200]
    assert code == 0
    # Those still in the client's own queue never reached the server; all that had been let in were answered.
    assert len(answered) >= taken > 0


def test_a_killed_database_comes_back_by_itself(serve):
    process = serve("--demo", "on").ready()
    before = process.postmaster
    before.kill()
    with process.client() as client:
        until(lambda: client.get("/health/ready").status_code == 200 and not before.is_running())
    assert process.postmaster.pid != before.pid
    assert process.search()[0]["similarity"] == 100.0


def test_a_killed_worker_comes_back_by_itself(serve):
    process = serve("--demo", "on").ready()
    process.worker.kill()
    process.ready(times=2)
    assert process.search()[0]["similarity"] == 100.0


def test_a_killed_parent_takes_everything_with_it_and_the_next_start_is_whole(serve):
    process = serve("--demo", "on").ready()
    children = process.children
    process.stop(signal.SIGKILL)
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))
    assert serve(port=process.port).ready().search()[0]["similarity"] == 100.0


def test_two_servers_on_one_folder_are_refused(serve):
    first = serve().ready()
    second = serve()
    assert second.end() == 2
    assert "".join(second.log).count("twinlens: ") == 1
    with first.client() as client:
        assert client.get("/health/ready").status_code == 200


def other_artifact(folder):
    """The starter with another space: what an export of other weights looks like to the server."""
    shutil.copytree(STARTER, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    other = "f" * 64
    manifest["space"]["id"] = other
    for variant in manifest["precisions"].values():
        variant["space"] = other
    rewrite_manifest(folder, manifest)
    return other


def rewrite_manifest(folder, manifest):
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    with contextlib.suppress(FileNotFoundError):
        sidecar = folder / "manifest.sha256"
        sidecar.write_text(re.sub(r"[0-9a-f]{64}", hashlib.sha256(data).hexdigest(), sidecar.read_text()))


def test_another_artifact_on_a_filled_database_stops_with_both_spaces_named(serve, tmp_path):
    process = serve("--demo", "on").ready()
    ours = process.search()
    live = json.loads((STARTER / "manifest.json").read_bytes())["space"]["id"]
    assert process.stop() == 0
    other = other_artifact(tmp_path / "other")
    refused = serve(model=tmp_path / "other")
    assert refused.end() == 2
    said = "".join(refused.log)
    assert live in said
    assert other in said
    assert "TWINLENS_DATA" in said
    assert "Traceback" not in said
    assert serve().ready().search() == ours


def test_a_golden_that_drifts_stops_the_start_and_names_the_link(serve, tmp_path):
    shutil.copytree(STARTER, tmp_path / "drifted")
    manifest = json.loads((tmp_path / "drifted" / "manifest.json").read_bytes())
    golden = manifest["goldens"][0]
    path = tmp_path / "drifted" / golden["embeddings"]["fp32"]
    vector = np.load(path)
    vector[0] += 0.02
    np.save(path, vector)
    manifest["files"][golden["embeddings"]["fp32"]]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_manifest(tmp_path / "drifted", manifest)
    refused = serve(model=tmp_path / "drifted")
    assert refused.end() == 2
    assert "pixels to vector" in "".join(refused.log)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "/nowhere"), "There is no model artifact in /nowhere"),
        (("--port", "high"), "--port takes a port"),
        (("--host", "0.0.0.0"), "TWINLENS_TRUST_NETWORK"),
        (("--device", "cuda"), "TWINLENS_DEVICE is cuda"),
        (("--precision", "int8"), "has no int8 graph"),
        (("--database-url", "postgresql://nobody:hush@127.0.0.1:1/none"), "database"),
    ],
)
def test_a_start_that_cannot_be_says_why_in_one_sentence(serve, flags, said):
    if "cuda" in flags and shutil.which("nvidia-smi"):
        pytest.skip("this machine has CUDA")
    refused = serve(*flags)
    assert refused.end() == 2
    log = "".join(refused.log)
    assert said in log
    assert "Traceback" not in log
    assert "hush" not in log


def test_database_url_prints_where_the_older_application_may_connect(serve):
    process = serve("--demo", "on").ready()
    command = [sys.executable, "-m", "server", "database-url", "--data", str(process.data)]
    url = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM image_embeddings").fetchone() == (280,)


def test_the_server_needs_neither_torch_nor_the_export():
    code = "import sys, server.__main__, server.app; print([m for m in sys.modules if m.split('.')[0] in "
    code += "('torch', 'transformers', 'optimum', 'onnx', 'export')])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert printed.strip() == "[]"
