"""`python -m server` as tests start it: a process of its own, whose log can be waited for."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from server.settings import PREFIX, TEST_PREFIX
from tests import DEMO_PICTURES, ROOT, STARTER
from tests.support import few_products

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
PATIENCE = 60


class Process:
    """`python -m server` with a folder of its own; its lines of log as they come."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        model: Path = STARTER,
        port: int | None = None,
        session: bool = False,
        products: int | None = None,
        module: str = "server",
        from_this_machine: bool = False,
    ) -> None:
        """`session`: of its own, with a process group that can be signalled as a terminal does.

        `products`: how many the demo catalogue has, keyboard and teapot among them; all unless given. `module`: what is
        run in place of the server, where that is given. `from_this_machine`: whether it may fetch pictures from here.
        """
        self.data = data
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        run = module if products is None else few_products.__name__
        command = [sys.executable, "-m", run, "--data", str(data), "--model", str(model), "--port", str(self.port)]
        command += ["--threads", "2", "--batch", "8"]  # given, so that no start measures what is best
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        if from_this_machine:
            environment[f"{TEST_PREFIX}FETCH_LOOPBACK"] = "on"
        self.process = subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            env={**environment, few_products.VARIABLE: str(products)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=session,
        )
        self.log: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self.log.append(line)
                    self._news.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> Process:
        """Until so many lines of the log match."""
        with self._news:
            seen = self._news.wait_for(
                lambda: sum(bool(re.search(pattern, line)) for line in self.log) >= times, PATIENCE
            )
        assert seen, "".join(self.log)
        return self

    def ready(self, times: int = 1) -> Process:
        """Until it has said so that many times, and takes connections: the port opens just after the line."""
        self.wait_for("Ready after", times)
        until(self._listens)
        return self

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError), self.connect():
            return True
        return False

    def connect(self) -> socket.socket:
        """A bare connection, for what no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def search(self, data: bytes = KEYBOARD) -> list[dict[str, Any]]:
        """The matches of a picture."""
        with self.client() as client:
            answer = client.post("/v1/search", files={"file": data}).raise_for_status()
            results: list[dict[str, Any]] = answer.json()["results"]
            return results

    @property
    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def worker(self) -> psutil.Process:
        return next(one for one in self.children if "spawn_main" in " ".join(one.cmdline()))

    @property
    def postmaster(self) -> psutil.Process:
        return next(one for one in self.children if one.name() == "postgres" and one.ppid() == self.process.pid)

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send the signal; the exit code."""
        self.process.send_signal(how)
        return self.end()

    def end(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


class Serve(Protocol):
    """The type of the fixture `serve`: starts a server, with the test's own data folder unless another is given.

    `from_nothing`: with no folder where there is none; else with a cluster that has just been made.
    """

    def __call__(
        self,
        *flags: str,
        data: Path = ...,
        from_nothing: bool = ...,
        model: Path = ...,
        port: int | None = ...,
        session: bool = ...,
        products: int | None = ...,
        module: str = ...,
    ) -> Process: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """The processes' own doing is awaited, bounded by patience; no test passes because time went by."""
    deadline = time.monotonic() + patience
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline
        # To ask all the time would take a core from those who are awaited: where asking is work, the pause is longer.
        time.sleep(min(max(0.005, 2 * (now - asked)), 0.05))
