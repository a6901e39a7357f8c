"""The systemd units, as systemd itself reads them. The server's runs under systemd in `test_containers.py`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import Settings
from tests import ROOT

UNIT = ROOT / "deploy" / "systemd" / "twinlens.service"
WORKER = UNIT.with_name("twinlens-worker.service")

# Of 10: what remains is the network, the socket, and what the unit says why it is not there.
MOST_EXPOSED = 1.6

pytestmark = pytest.mark.skipif(
    not shutil.which("systemd-analyze") and not os.environ.get("CI"), reason="needs Debian's package systemd"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system in which the unit and what it names are there."""
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    units.parent.mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", units, symlinks=True)
    for unit in (UNIT, WORKER):
        shutil.copy(unit, units)
    python = tmp_path / "opt" / "twinlens" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy("/bin/true", python)
    page = tmp_path / "opt" / "twinlens" / "docs" / "deploying.md"
    page.parent.mkdir()
    page.touch()
    return tmp_path


def analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", f"--root={root}", *arguments], text=True, capture_output=True)


each_unit = pytest.mark.parametrize("unit", [UNIT, WORKER], ids=["server", "worker"])


@each_unit
def test_systemd_finds_nothing_wrong_with_it(root: Path, unit: Path) -> None:
    done = analyze(root, "verify", unit.name)
    assert (done.returncode, done.stderr) == (0, "")


@each_unit
def test_little_of_the_machine_is_exposed_to_it(root: Path, unit: Path) -> None:
    done = analyze(root, "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", "--no-pager", unit.name)
    assert done.returncode == 0, done.stdout


def test_it_waits_longer_than_a_stop_takes() -> None:
    wait = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert wait is not None
    assert int(wait[1]) >= Settings().deadline + 10


def test_a_worker_has_the_servers_user_settings_and_sandbox() -> None:
    """What differs is what it runs, when, and how it is stopped."""
    server, worker = (
        [line for line in unit.read_text().splitlines() if line and not line.startswith("#")] for unit in (UNIT, WORKER)
    )
    assert {line.partition("=")[0] for line in set(server) ^ set(worker)} == {"Description", "After", "ExecStart"}


def test_a_worker_is_started_by_a_command_that_there_is() -> None:
    started = re.search(r"^ExecStart=.*?python (-m server worker .*)$", WORKER.read_text(), re.MULTILINE)
    assert started is not None
    done = subprocess.run(
        [sys.executable, *started[1].split(), "--help"], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--low-priority" in done.stdout


@each_unit
def test_the_server_reads_the_settings_that_it_gives(unit: Path) -> None:
    given = dict(re.findall(r"^Environment=.*?(TWINLENS_[A-Z_]+)=(\S+)", unit.read_text(), re.MULTILINE))
    assert Settings.read(given).data == Path("/var/lib/twinlens")
