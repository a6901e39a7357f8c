"""An environment of its own for each peer, made once in the cache folder: nothing of theirs enters ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_LIMIT = 1800.0


def make(folder: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment with exactly these requirements, made again when they have changed.

    Raises RuntimeError with what pip said when they do not install.
    """
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"  # written last: an interrupted environment has none
    wanted = "\n".join(requirements) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {' '.join(requirements)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    stamp.write_text(wanted)
    return python


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)  # noqa: S603 - venv and pip
    except subprocess.TimeoutExpired as exc:
        raise RuntimeError(f"installing took longer than {_LIMIT:.0f} s") from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise RuntimeError(f"it does not install: {' '.join(errors)[-300:]}")
