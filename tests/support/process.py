"""`python -m server` as tests start it: a process of its own, whose log can be waited for."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import psutil

from tests import DEMO_PICTURES, ROOT, STARTER

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
PATIENCE = 60


class Process:
    """`python -m server` with a folder of its own; its lines of log as they come."""

    def __init__(self, data, *flags, model=STARTER, port=None, session=False):
        """`session`: of its own, with a process group that can be signalled as a terminal does."""
        self.data = data
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "server", "--data", str(data), "--model", str(model), "--port", str(self.port)]
        command += ["--threads", "2", "--batch", "8"]  # given, so that no start measures what is best
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}
        self.process = subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=session,
        )
        self.log = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.log.append(line)
                self._news.notify_all()

    def wait_for(self, pattern, times=1):
        """Until so many lines of the log match."""
        with self._news:
            seen = self._news.wait_for(
                lambda: sum(bool(re.search(pattern, line)) for line in self.log) >= times, PATIENCE
            )
        assert seen, "".join(self.log)
        return self

    def ready(self, times=1):
        """Until it has said so that many times, and takes connections: the port opens just after the line."""
        self.wait_for("Ready after", times)
        until(self._listens)
        return self

    def _listens(self):
        with contextlib.suppress(ConnectionRefusedError), self.connect():
            return True
        return False

    def connect(self):
        """A bare connection, for what no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def client(self):
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def search(self, data=KEYBOARD):
        with self.client() as client:
            return client.post("/v1/search", files={"file": data}).raise_for_status().json()["results"]

    @property
    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def worker(self):
        return next(one for one in self.children if "spawn_main" in " ".join(one.cmdline()))

    @property
    def postmaster(self):
        return next(one for one in self.children if one.name() == "postgres" and one.ppid() == self.process.pid)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.end()

    def end(self):
        """The exit code, once it has ended."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition):
    """The processes' own doing is awaited, bounded by patience; no test passes because time went by."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
