"""A server to measure: on a free loopback port, with an empty data folder of its own, for as long as a block."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from urllib.error import URLError
from urllib.request import urlopen

from bench import cpu, pictures
from server.postgres.server import LOCKS

UNCACHED: Sequence[str] = ("--cache", "0")
"""For a benchmark that measures the model's way and sends the same pictures again."""

_TWINLENS = (sys.executable, "-m", "server")
_START_LIMIT = 240.0
_STOP_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that runs and is ready."""

    port: int
    pid: int
    """Of the parent process; see `cpu.tree` for the others."""
    data: Path
    """Its data folder."""
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """What it has written to standard error until now."""
        return self.log_file.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """Core-seconds, user and system, of everything that belongs to it: parent, workers, PostgreSQL."""
        return cpu.tree_seconds(self.pid)


@contextlib.contextmanager
def serving(
    model: Path,
    precision: str = "fp32",
    device: str = "cpu",
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    demo: bool = False,
    program: Sequence[str] | None = None,
) -> Iterator[Serving]:
    """Start a server with a catalogue that is empty but for the demo's products, if asked; stop it after the block.

    `arguments` go to its command line after ours, `environment` beside this process's variables without TWINLENS_
    ones; `program`, which takes the flags of `python -m server`, stands in its place. Raises RuntimeError, with the end
    of its log, when it does not become ready.
    """
    # Readable by all: under root, PostgreSQL runs as another user, which must reach its data in here.
    with tempfile.TemporaryDirectory(prefix="twinlens-bench-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        port = free_port()
        flags = ["--port", str(port), "--data", str(home / "data"), "--model", str(model.resolve())]
        flags += ["--precision", precision, "--device", device, "--demo", "on" if demo else "off", *arguments]
        variables = {key: value for key, value in os.environ.items() if not key.startswith("TWINLENS_")}
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(  # noqa: S603 - our own server
                [*(program or _TWINLENS), *flags],
                cwd=pictures.ROOT,
                env=variables | dict(environment or {}),
                stderr=log,
            )
        try:
            _await_ready(server, port, home / "log")
            yield Serving(port, server.pid, home / "data", home / "log")
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            _forget_cluster(home / "data")


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = perf_counter() + _START_LIMIT
    while perf_counter() < deadline and server.poll() is None:
        with contextlib.suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
            return
        sleep(0.1)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text(errors='replace')[-3000:]}")


def _forget_cluster(data: Path) -> None:
    """Under root the database of a folder may lie outside it; the note inside says where."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        cluster = Path((data / "postgres.location").read_text().splitlines()[0])
        shutil.rmtree(cluster, ignore_errors=True)
        for lock in LOCKS:
            cluster.with_name(cluster.name + lock).unlink(missing_ok=True)
