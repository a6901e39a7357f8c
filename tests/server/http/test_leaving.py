"""Callers who leave, callers in no hurry, and callers who ask for the same thing."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import PHOTOGRAPHS
from tests.support.pictures import unseen
from tests.support.process import KEYBOARD, Process, Serve, until
from tests.support.serving import Client

LEFT = r'twinlens_requests_total\{code="caller_left",method="POST",route="/embed-image",status="499"\}'

PICTURE = (PHOTOGRAPHS / "drum-and-wine.jpg").read_bytes()


def figure(url: str, pattern: str) -> float:
    found = re.search(rf"^{pattern} (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def sent(server: Process, data: bytes) -> socket.socket:
    """A connection on which a complete request was sent, and whose answer nobody has read."""
    body = httpx.Request("POST", f"{server.url}/embed-image", files={"file": data})
    head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(f"POST /embed-image HTTP/1.1\r\n{head}\r\n".encode() + body.read())
    return connection


def test_the_work_of_a_caller_who_left_is_dropped_and_the_others_are_answered(serve: Serve, database_url: str) -> None:
    server = serve("--cache", "0", "--database-url", database_url).ready()
    connections = [sent(server, PICTURE + bytes([at])) for at in range(60)]
    until(lambda: figure(server.url, "twinlens_pictures_inside") >= 20)
    for connection in connections:
        connection.close()
    answer = httpx.post(f"{server.url}/embed-image", files={"file": KEYBOARD}, timeout=60)
    assert answer.status_code == 200
    until(lambda: figure(server.url, "twinlens_pictures_inside") == 0)
    left = figure(server.url, LEFT)
    done = figure(server.url, r'twinlens_batch_size_sum\{tower="image"\}')
    assert left > 0
    assert done < 60  # it did not do all of their work before it came to the next caller's
    assert not any("Traceback" in line for line in server.log)


def test_equal_pictures_that_come_together_are_embedded_once_and_then_known(serve: Serve, database_url: str) -> None:
    server = serve("--database-url", database_url).ready()
    with ThreadPoolExecutor(16) as threads:
        answers = [
            threads.submit(httpx.post, f"{server.url}/embed-image", files={"file": PICTURE}, timeout=60)
            for _ in range(16)
        ]
        vectors = {answer.result().raise_for_status().text for answer in answers}
    assert len(vectors) == 1
    assert figure(server.url, r'twinlens_batch_size_sum\{tower="image"\}') == 1
    found = {
        how: figure(server.url, rf'twinlens_cache_total\{{found="{how}",tower="image"\}}')
        for how in ("made", "joined", "kept")
    }
    assert found["made"] == 1
    assert sum(found.values()) == 16
    assert 0 < figure(server.url, r'twinlens_cache_bytes\{tower="image"\}') < 10_000


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_a_lane_may_be_named(api: Client, lane: str) -> None:
    answer = api.post("/embed-image", files={"file": unseen(KEYBOARD)}, headers={"Twinlens-Lane": lane})
    assert answer.status_code == 200


def test_an_unknown_lane_is_refused(api: Client) -> None:
    response = api.post("/embed-image", files={"file": KEYBOARD}, headers={"Twinlens-Lane": "fast"})
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "interactive or bulk" in response.json()["error"]


def test_many_pictures_in_one_call_of_which_some_are_known(api: Client) -> None:
    known, new = unseen(KEYBOARD), [unseen(KEYBOARD), unseen(PICTURE)]
    (alone,) = api.post("/v1/embeddings", files=[("file", known)]).json()["embeddings"]
    together = api.post("/v1/embeddings", files=[("file", one) for one in (new[0], known, new[1])])
    vectors = together.json()["embeddings"]
    assert vectors[1] == vectors[0] == alone
    assert vectors[2] != alone
    again = api.post("/v1/embeddings", files=[("file", one) for one in (new[0], known, new[1])])
    assert again.json()["embeddings"] == vectors
    assert "cache;desc=hit" in again.headers["Server-Timing"]
    broken = api.post("/v1/embeddings", files=[("file", one) for one in (known, new[0], b"text")])
    assert broken.status_code == 415
    assert broken.json()["error"].startswith("Picture 3 of 3: ")


def test_a_caller_who_leaves_while_sending_is_no_fault_of_ours(serve: Serve, database_url: str) -> None:
    server = serve("--database-url", database_url).ready()
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = "POST /embed-image HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    connection.sendall(f"{head}Content-Length: 100000\r\n\r\n--b\r\n".encode())
    connection.close()
    until(lambda: figure(server.url, LEFT) == 1)
    assert not any("Traceback" in line or "ERROR" in line for line in server.log)
