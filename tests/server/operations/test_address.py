"""The address that a server holds: one server at a time, whichever forms of the address the two were given."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.errors import AddressRefused
from server.operations.address import held
from tests import ROOT
from tests.support.process import Serve, free_port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for that will not come."""
    monkeypatch.setattr("server.operations.address._PATIENCE_SECONDS", 0.1)


def listener(port: int, host: str = "127.0.0.1", *, shared: bool = False) -> socket.socket:
    """A socket that listens as other programs do, or, `shared`, as a worker does."""
    one = socket.socket()
    if shared:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    one.listen()
    return one


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::"])
@pytest.mark.usefixtures("impatient")
def test_an_address_where_somebody_listens_is_refused_and_named(port: int, host: str, shared: bool) -> None:
    with (
        listener(port, shared=shared),
        pytest.raises(AddressRefused, match=rf":{port} already.*--port"),
        held(host, port),
    ):
        pass


@pytest.mark.parametrize(
    ("first", "second"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "127.0.0.1")]
)
@pytest.mark.usefixtures("impatient")
def test_a_held_address_is_refused_though_nobody_listens_there_yet(port: int, first: str, second: str) -> None:
    with held(first, port), pytest.raises(AddressRefused), held(second, port):
        pass
    with held(second, port):
        pass


@pytest.mark.usefixtures("impatient")
def test_of_many_that_start_at_one_moment_one_holds_the_address(port: int) -> None:
    hold = (
        "from server.operations import address; import sys; address._PATIENCE_SECONDS = 0.1; sys.stdin.readline()\n"
        f"with address.held('127.0.0.1', {port}): print('held', flush=True); sys.stdin.readline()"
    )
    several = [
        subprocess.Popen(
            [sys.executable, "-c", hold],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(6)
    ]
    for one in several:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()

    def first_line(one: subprocess.Popen[str]) -> str:
        assert one.stdout is not None
        return one.stdout.readline()

    with ThreadPoolExecutor(len(several)) as threads:
        said = list(threads.map(first_line, several))
    for one in several:
        one.communicate("\n")
    assert sorted(said) == [""] * 5 + ["held\n"]


def test_workers_may_share_the_address_and_get_every_connection(port: int) -> None:
    taken = 0
    with held("127.0.0.1", port), listener(port, shared=True) as one, listener(port, shared=True) as two:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port)).close()
        for worker in (one, two):
            worker.setblocking(False)
            while (connection := accepted(worker)) is not None:
                connection.close()
                taken += 1
    assert taken == 20


def accepted(worker: socket.socket) -> socket.socket | None:
    try:
        return worker.accept()[0]
    except BlockingIOError:
        return None


def test_another_address_of_the_machine_is_no_hindrance(port: int) -> None:
    with held("127.0.0.1", port), held("127.0.0.2", port) as address:
        assert address.host == "127.0.0.2"


def test_connections_that_are_just_ending_are_no_hindrance(port: int) -> None:
    with listener(port, shared=True) as worker:
        caller = socket.create_connection(("127.0.0.1", port))
        callee, _ = worker.accept()
        callee.close()  # first, so that its end of the connection remains for a minute
        assert caller.recv(1) == b""
        caller.close()
    with held("127.0.0.1", port) as address:
        assert address.port == port


def test_port_0_becomes_one_that_is_free_and_stays_held() -> None:
    with held("127.0.0.1", 0) as address, socket.socket() as other:
        assert address.port > 0
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", address.port))


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "no address of this machine"), ("nowhere.invalid", "neither an IP address nor")]
)
def test_an_address_of_somebody_else_is_refused(host: str, said: str, port: int) -> None:
    with pytest.raises(AddressRefused, match=said), held(host, port):
        pass


@pytest.fixture
def taken(port: int) -> Iterator[int]:
    with listener(port):
        yield port


def test_a_start_on_a_busy_port_ends_before_anything_is_made(serve: Serve, taken: int, tmp_path: Path) -> None:
    refused = serve(port=taken, data=tmp_path / "never", from_nothing=True)
    assert refused.end() == 2
    said = "".join(refused.log)
    assert f"Something listens at 127.0.0.1:{taken} already" in said
    assert "Traceback" not in said
    assert len(refused.log) == 1
    assert not (tmp_path / "never").exists()


def test_of_two_servers_on_one_port_the_second_is_refused_and_the_first_answers(serve: Serve, tmp_path: Path) -> None:
    first = serve("--host", "localhost").ready()
    second = serve(port=first.port, data=tmp_path / "second")
    assert second.end() == 2
    with first.client() as client:
        put = client.put("/v1/products/only-here", json={"name": "Only here"})
        assert put.status_code in (200, 201)
        assert {client.get("/v1/products/only-here").status_code for _ in range(6)} == {200}
