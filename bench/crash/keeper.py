"""The server under test, and its keeper: who starts it again when it ends, as a service manager does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from bench import cpu, pictures
from bench.crash.talk import ask
from server.postgres.server import EmbeddedPostgres

_PAUSE_SECONDS = 0.1
_STOP_SECONDS = 60.0
_START_SECONDS = 240.0
_OTHER_SPACE = "Vectors of different spaces cannot be compared"


class Keeper:
    """Keeps `python -m server` running until it is told to stop."""

    def __init__(self, home: Path, data: Path, port: int, models: Sequence[Path], flags: Sequence[str]) -> None:
        """`models`: two artifacts of which each has a space of its own; the first one is served first."""
        self.data = data
        self.port = port
        self.log = home / "server.log"
        self.feeds = home / "feeds"
        self.models = list(models)
        self.starts = 0
        self.refusals: list[str] = []
        """What starts said that ended with exit code 2."""
        self._flags = list(flags)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._wanted = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The database of the server, with the rights of its owner."""
        return EmbeddedPostgres(self.data).url

    @property
    def served(self) -> Path:
        return self.models[self._wanted]

    @property
    def other(self) -> Path:
        return self.models[1 - self._wanted]

    def command(self, *arguments: str | Path, model: Path | None = None) -> list[str]:
        """A command line with the settings of the server."""
        chosen = ["--data", str(self.data), "--model", str(model or self.served), "--device", "cpu"]
        return [sys.executable, "-m", "server", *map(str, arguments), *chosen]

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}

    async def start(self) -> None:
        """Start the server. Raises RuntimeError where it does not become ready."""
        self._task = asyncio.create_task(self._keep())
        deadline = perf_counter() + _START_SECONDS
        while not await self.ready():
            if perf_counter() > deadline or self.refusals:
                await self.stop()
                raise RuntimeError(f"the server did not become ready:\n{self.said()[-3000:]}")
            await asyncio.sleep(0.1)

    async def ready(self) -> bool:
        return (await ask(self.port, "GET", "/health/ready", longest=5.0)).status == 200

    def said(self) -> str:
        """All that the servers have written to their log."""
        return self.log.read_text(errors="replace")

    async def _keep(self) -> None:
        while not self._stopping:
            begin = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command("serve"),
                    *("--port", str(self.port), "--demo", "off", *self._flags),
                    cwd=pictures.ROOT,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                )
            self.starts += 1
            code = await self._process.wait()
            if code == 2:
                said = self.log.read_bytes()[begin:].decode(errors="replace")
                lines = [line for line in said.splitlines()[::-1] if line.startswith("twinlens: ")]
                self.refusals.append(next(iter(lines), said[-200:]))
                if _OTHER_SPACE in said:
                    self._wanted = 1 - self._wanted
            await asyncio.sleep(_PAUSE_SECONDS)

    def serve_other_model(self) -> None:
        """From its next start on."""
        self._wanted = 1 - self._wanted

    async def stop(self) -> None:
        """Stop the server, and start none again."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self.signal(self._process.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            self.signal(self._process.pid, signal.SIGKILL)
        if self._task is not None:
            await self._task

    # --- its processes ------------------------------------------------------------------------------------------------

    @property
    def parent(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def workers(self) -> list[int]:
        return [pid for pid in cpu.tree(self.parent or 0) if "spawn_main" in cpu.title(pid)] if self.parent else []

    def postmaster(self) -> int | None:
        """PostgreSQL's first process, whose children are its others."""
        if self.parent is None:
            return None
        return next((pid for pid in cpu.tree(self.parent) if " -D " in cpu.title(pid)), None)

    def backends(self) -> list[int]:
        """PostgreSQL's processes that serve a connection each."""
        first = self.postmaster()
        return [pid for pid in cpu.tree(first) if "[local]" in cpu.title(pid)] if first is not None else []

    def signal(self, pid: int, what: signal.Signals) -> bool:
        """Whether there was such a process."""
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            return False
        return True
