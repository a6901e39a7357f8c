"""What nvidia-smi sees of a GPU: which one it is, and how busy it is meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from threading import Thread
from time import perf_counter


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    """Of `perf_counter`."""
    utilisation: float
    """Per cent."""
    memory: float
    """MiB."""


class GpuWatch:
    """Samples of one GPU, five a second for as long as the block runs; none where there is no GPU or no nvidia-smi."""

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        self._samples: list[_Sample] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuWatch:
        if self._gpu is not None:
            query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"]
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(  # noqa: S603 - the driver's own
                    ["nvidia-smi", f"--id={self._gpu}", *query],  # noqa: S607
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            with contextlib.suppress(ValueError):  # `[N/A]`
                utilisation, memory = map(float, line.split(","))
                self._samples.append(_Sample(perf_counter(), utilisation, memory))

    def between(self, began: float, ended: float) -> dict[str, float] | None:
        """Mean utilisation in per cent, and most memory in MiB, as JSON has it; None where nothing was sampled."""
        samples = [sample for sample in self._samples if began <= sample.at <= ended]
        if not samples:
            return None
        return {
            "utilisation": round(sum(sample.utilisation for sample in samples) / len(samples), 1),
            "memoryMiB": max(sample.memory for sample in samples),
        }

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def shown(gpu: dict[str, float] | None) -> str:
    """What `GpuWatch.between` gave, as the end of a line."""
    return "" if gpu is None else f", GPU {gpu['utilisation']:.0f} %, {gpu['memoryMiB']:,.0f} MiB"


def about(gpu: int) -> str | None:
    """Name, driver and memory of a GPU; None without nvidia-smi."""
    command = ["nvidia-smi", f"--id={gpu}", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the driver's own
    except OSError:
        return None
    return done.stdout.strip() or None
