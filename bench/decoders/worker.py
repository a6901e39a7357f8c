"""A reader in a process of its own, which may die, hang or take all memory without taking the bench with it.

The process is asked with four bytes of length and a file; it answers with a line of JSON and, if asked for, samples.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from bench.decoders.case import Samples
from bench.pictures import ROOT

Read = Callable[[bytes], Samples]
"""A file to RGB or RGBA, upright. Raises Refused where it declines; anything else it raises is its fault."""
Status = Literal["read", "refused", "raised", "died", "hung"]

MEMORY = 6 << 30
"""Bytes of address space that a process gets."""
WALL_LIMIT = 30.0
"""Seconds after which a process that has not answered is ended, however busy the machine is."""
_START_LIMIT = 180.0


# Not as a module with -m: its classes would exist twice.
_CHILD = "import sys; from bench.decoders.worker import main; main(sys.argv[1], int(sys.argv[2]))"


class Refused(Exception):
    """A reader declines a file. `named`: in a sentence that says what it is and that it is not read."""

    def __init__(self, sentence: str, *, named: bool = False) -> None:
        super().__init__(sentence)
        self.named = named


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a file."""

    status: Status
    text: str = ""
    """The sentence of a refusal, or what was raised."""
    named: bool = False
    samples: Samples | None = None
    seconds: float = 0.0
    """Core-seconds, all threads together; for one that hung the seconds that were waited."""
    growth: int = 0
    """Bytes that the process held at its peak beyond what it held before."""
    wrote: str = ""
    """What was written to standard error."""


class Worker:
    """A process with a reader in it, started when first asked and again whenever it has ended. A context manager."""

    def __init__(self, target: str, *, memory: int = MEMORY, wall_limit: float = WALL_LIMIT) -> None:
        """`target`: module:function, of type Read."""
        self.target = target
        self._memory, self._wall_limit = memory, wall_limit
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._errors.close()

    def ask(self, data: bytes) -> Answer:
        """Have a file read. Whatever it does to the process, this gives an Answer."""
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - it was asked for
        try:
            process.stdin.write(struct.pack(">I", len(data)) + data)
            process.stdin.flush()
            head = json.loads(self._receive(process, until=b"\n", limit=self._wall_limit))
            samples = None
            if shape := head.pop("shape", None):
                raw = self._receive(process, size=int(np.prod(shape)), limit=self._wall_limit)
                samples = np.frombuffer(raw, np.uint8).reshape(shape)
            return Answer(**head, samples=samples, wrote=self._written())
        except TimeoutError:
            self._stop()
            return Answer(
                "hung", f"no answer in {self._wall_limit:g} s", seconds=self._wall_limit, wrote=self._written()
            )
        except (EOFError, OSError):
            self._stop()
            return Answer("died", _how(process.returncode), wrote=self._written())

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _CHILD, self.target, str(self._memory)]
        pipe = subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=pipe, stdout=pipe, stderr=self._errors, cwd=ROOT, env=environment
        )
        line = self._receive(self._process, until=b"\n", limit=_START_LIMIT)  # it is up: what comes now is about files
        if line != b"ready\n":
            raise RuntimeError(f"{self.target} did not start: {self._written()[-500:]}")
        self._written()
        return self._process

    def _receive(self, process: subprocess.Popen[bytes], *, until: bytes = b"", size: int = 0, limit: float) -> bytes:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        deadline = time.monotonic() + limit
        out = bytearray()
        while not (until and out.endswith(until)) and not (size and len(out) == size):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError
            # Never beyond what is waited for: a line is short.
            got = os.read(process.stdout.fileno(), 1 if until else min(1 << 20, size - len(out)))
            if not got:
                raise EOFError
            out += got
        return bytes(out)

    def _written(self) -> str:
        if not os.fstat(self._errors.fileno()).st_size:
            return ""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        self._errors.seek(0)
        self._errors.truncate()
        return text

    def _stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        # One that has ended by itself keeps the code that says how.
        if not _ends(process):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, or does at once: its pipes close a moment before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
    return process.returncode is not None


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def serve(read: Read, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer until standard input ends."""
    stdout.write(b"ready\n")
    stdout.flush()
    while len(head := stdin.read(4)) == 4:
        data = stdin.read(struct.unpack(">I", head)[0])
        before, began = _begin_peak(), time.process_time()
        about: dict[str, Any] = {}
        raw = b""
        try:
            samples = read(data)
            about = {"status": "read"}
            if samples.size:
                raw = np.ascontiguousarray(samples).tobytes()
                about["shape"] = samples.shape
        except Refused as refusal:
            about = {"status": "refused", "text": str(refusal), "named": refusal.named}
        except Exception as exc:  # that is what it is asked for
            about = {"status": "raised", "text": f"{type(exc).__name__}: {exc}"}
        about |= {"seconds": time.process_time() - began, "growth": max(0, _peak() - before)}
        stdout.write(json.dumps(about).encode() + b"\n" + raw)
        stdout.flush()


def _begin_peak() -> int:
    """Forget the highest memory until now; bytes that are held."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status(b"VmRSS:")


def _peak() -> int:
    return _status(b"VmHWM:")


def _status(field: bytes) -> int:
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(target: str, memory: int) -> None:
    """The process: its own pipes are kept for answers, and whatever else is printed goes to standard error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, name = target.split(":")
    read: Read = getattr(importlib.import_module(module), name)
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    serve(read, sys.stdin.buffer, stdout)
