"""The whole schema by schemathesis, against a running server: nothing fails, nothing undocumented is answered, and
nothing that the schema forbids is accepted. With keys of each kind, without one, and while no key is needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.fuzz.shop import Shop, fill
from tests import ROOT
from tests.support import schemathesis_hooks
from tests.support.databases import fresh_database
from tests.support.process import Process

pytestmark = pytest.mark.slow

SEED = "18"
LONGEST = 900  # seconds, for a run that hangs: others work at the same time

# Which statuses a sound request may have is more than a schema can say: bytes that are no picture, a filter in a form.
# `not_a_server_error` is ours, in the hooks.
LEFT_OUT = "positive_data_acceptance,not_a_server_error"


@pytest.fixture(scope="module")
def open_server(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One whose callers need no key."""
    with fresh_database(postgres_url, template_database) as url:
        process = Process(tmp_path_factory.mktemp("open"), "--database-url", url)
        try:
            yield process.ready().url
        finally:
            process.stop()


@pytest.fixture(scope="module")
def with_keys(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Shop]]:
    with fresh_database(postgres_url, template_database) as url:
        process = Process(tmp_path_factory.mktemp("keys"), "--database-url", url)
        try:
            yield process.ready().url, fill(url, process.port)
        finally:
            process.stop()


def run(address: str, folder: Path, *, examples: int, key: str | None = None, needs_key: bool = True) -> None:
    """Every operation of the server's schema, sound and unsound; fails with what schemathesis prints."""
    given = ["-H", f"Authorization: Bearer {key}"] if key is not None else []
    left_out = LEFT_OUT if needs_key else f"{LEFT_OUT},ignored_auth"  # as it says of itself
    given += ["--phases", "examples,coverage,fuzzing", "--mode", "all", "--max-examples", str(examples), "--no-shrink"]
    given += ["--checks", "all", "--exclude-checks", left_out, "--seed", SEED, "--generation-deterministic"]
    given += ["--suppress-health-check", "all", "--continue-on-failure", "--no-color"]
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", *given]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": schemathesis_hooks.__name__, "PYTHONPATH": str(ROOT)}
    environment |= {} if needs_key else {schemathesis_hooks.NO_KEY_NEEDED: "yes"}
    done = subprocess.run(
        [*command, "--warnings", "off", f"{address}/schema/openapi.json"],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=LONGEST,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
    assert urlsplit(address).netloc in done.stdout


def test_while_no_key_is_needed(open_server: str, tmp_path: Path) -> None:
    run(open_server, tmp_path, examples=20, needs_key=False)


@pytest.mark.parametrize("kind", ["writer", "admin", "searcher", None])
def test_with_a_key_of_each_kind_and_without_one(with_keys: tuple[str, Shop], kind: str | None, tmp_path: Path) -> None:
    address, shop = with_keys
    run(address, tmp_path, examples=4, key=getattr(shop, kind) if kind else None)
