"""A real Prometheus on loopback, which scrapes a server; Debian's package `prometheus` brings it and `promtool`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.support.process import PATIENCE, free_port, until

DEPLOY = ROOT / "deploy" / "prometheus"
RULES = DEPLOY / "twinlens.rules.yml"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not installed; on Debian: apt install prometheus",
)


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """What promtool says; fails the test where it finds a fault."""
    done = subprocess.run(
        ["promtool", *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Prometheus:
    """One that runs, and what it knows."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=PATIENCE).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that a line of PromQL gives, once the last scrape has succeeded."""
        until(lambda: self.get("query", query="up == 1")["result"])
        found = self.get("query", query=query)
        assert found["resultType"] == "vector", found
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]


@contextmanager
def scraping(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus with our rules, which asks these hosts and ports each second."""
    job = {"job_name": "twinlens", "static_configs": [{"targets": [*targets]}]}
    often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration = {"global": often, "rule_files": [str(RULES)], "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--web.listen-address={address}", f"--config.file={folder / 'prometheus.yml'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=log, cwd=folder
        )
        try:
            until(lambda: process.poll() is not None or _is_ready(address))
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready").status_code == 200
    except httpx.TransportError:
        return False
