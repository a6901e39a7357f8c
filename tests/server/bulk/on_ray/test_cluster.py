"""What is no cluster that a run can work on is refused in a sentence, before anything is read."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server.__main__ import main
from server.bulk.on_ray.cluster import Cluster, Node, _require_fit, cluster_at
from server.bulk.on_ray.run import Shares
from server.errors import IngestRefused
from server.settings import Settings
from tests.support.process import free_port

ONE, TWO = Node("one", 8, 0), Node("two", 4, 0)


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["ingest", str(tmp_path), "--data", str(tmp_path / "data"), "--on", "ray"]) == 2
    said = capsys.readouterr().err
    assert "This needs ray, which is not installed. It comes with the extra ray" in said
    assert not (tmp_path / "data").exists()


def test_an_address_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", str(tmp_path), "--data", str(tmp_path / "data"), "--address", "10.0.0.1:6379"]) == 2
    assert "say --on ray as well" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "127.0.0.1:99999", "ray://127.0.0.1:10001"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(IngestRefused), cluster_at(Settings(), address):
        pass


def test_an_address_where_nobody_answers_is_refused() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(IngestRefused, match=f"No Ray cluster answers at {address}"), cluster_at(Settings(), address):
        pass


def test_an_address_where_somebody_else_answers_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(IngestRefused, match="is no Ray cluster"), cluster_at(Settings(), address):
            pass


def test_the_embedded_database_is_for_one_machine() -> None:
    _require_fit(Settings(), [ONE, ONE])
    _require_fit(Settings(database_url="postgresql://db/x"), [ONE, TWO])
    with pytest.raises(IngestRefused, match=r"embedded one, which other machines .* cannot reach"):
        _require_fit(Settings(), [ONE, TWO])


def test_a_cluster_without_gpus_is_none_for_cuda() -> None:
    with pytest.raises(IngestRefused, match="no machine of the Ray cluster has a GPU"):
        _require_fit(Settings(device="cuda"), [ONE])
    _require_fit(Settings(device="cuda"), [replace(ONE, gpus=1)])
    with pytest.raises(IngestRefused, match="at least 2 are needed"):
        _require_fit(Settings(), [Node("one", 1, 0)])


@pytest.mark.parametrize(
    ("nodes", "threads", "gpu", "shares"),
    [
        ([Node("one", 2, 0)], None, False, Shares(1, 1, False, 1, 2)),
        ([Node("one", 1, 0), Node("two", 1, 0)], 4, False, Shares(1, 1, False, 1, 2)),
        ([Node("one", 64, 0)] * 4, None, False, Shares(4, 32, False, 128, 8)),
        ([Node("one", 16, 0)], 2, False, Shares(4, 2, False, 8, 8)),
        ([Node("one", 2, 0)], 2, False, Shares(1, 1, False, 1, 2)),
        ([Node("gpu", 32, 8), Node("cpu", 64, 0)], None, True, Shares(8, 1, True, 96, 8)),
    ],
    ids=["two cores", "two machines", "four large ones", "threads are said", "too many are said", "gpus"],
)
def test_the_cluster_is_divided_so_that_every_worker_finds_a_place(
    nodes: list[Node], threads: int | None, gpu: bool, shares: Shares
) -> None:
    assert Shares.of(Cluster(local=False, nodes=nodes), threads, gpu=gpu) == shares
