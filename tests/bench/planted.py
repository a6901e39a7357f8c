"""Readers with faults, for the benches that are there to find them. They run in processes of their own."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from bench.decoders.case import Samples
from bench.decoders.readers import twinlens
from bench.decoders.worker import MEMORY, Refused

_BLACK = np.zeros((2, 3, 3), np.uint8)


def black(_: bytes) -> Samples:
    return _BLACK


def refuses(_: bytes) -> Samples:
    raise Refused("This is a painting, which is not read here.", named=True)


def raises(_: bytes) -> Samples:
    raise KeyError("MPO")


def dies(_: bytes) -> Samples:
    os.kill(os.getpid(), signal.SIGKILL)
    return _BLACK


def hangs(_: bytes) -> Samples:
    time.sleep(60)
    return _BLACK


def computes(_: bytes) -> Samples:
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    return _BLACK


def complains(_: bytes) -> Samples:
    os.write(2, b"TIFFReadDirectory: a library says so itself\n")
    return _BLACK


def prints(_: bytes) -> Samples:
    print("to standard output")
    return _BLACK


def holds(_: bytes) -> Samples:
    block = b"x" * (64 << 20)
    return _BLACK if block else np.empty(0, np.uint8)


def wants_everything(_: bytes) -> Samples:
    return black(b"x" * (MEMORY + 1))


def on_tiff(data: bytes) -> Samples:
    """Twinlens, but for TIFF, which ends the process."""
    return dies(data) if data[:4] in (b"II*\0", b"MM\0*") else twinlens(data)
