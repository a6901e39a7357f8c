"""The machine and the versions that figures came from: no figure goes without them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_HARDWARE = ("processor", "cores", "memory_gib")


def describe() -> dict[str, str | int]:
    """The processor, the cores that this process may use, the memory, and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{
            name: version
            for name in ("onnxruntime", "onnxruntime-gpu", "pillow", "granian")
            if (version := _version(name))
        },
    }


def sentence() -> str:
    """The same in a line."""
    found = describe()
    return f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB; {versions(found)}"


def versions(found: Mapping[str, Any]) -> str:
    """Of what `describe` found all but the hardware: `python 3.11.7, onnxruntime 1.32.0, ...`."""
    return ", ".join(f"{name} {value}" for name, value in found.items() if name not in _HARDWARE)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
