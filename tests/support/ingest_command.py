"""`python -m server ingest` as a process of its own, and folders of generated pictures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from PIL import Image

from tests import ROOT
from tests.support.process import PATIENCE

Command = subprocess.Popen[str]


def noise(number: int) -> bytes:
    """A picture like no other, as PNG."""
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def folder_of(path: Path, count: int, *, start: int = 0) -> dict[str, bytes]:
    """Fill a folder with pictures of so many products; the bytes by the products' ids."""
    path.mkdir(parents=True, exist_ok=True)
    pictures = {f"product-{number:04}": noise(number) for number in range(start, start + count)}
    for name, data in pictures.items():
        file = path / f"{name}.png"
        file.write_bytes(data)
        os.utime(file, (1_000_000_000,) * 2)
    return pictures


def start(
    source: Path | str, data: Path, url: str | None, *flags: str, environment: Mapping[str, str] | None = None
) -> Command:
    """The command at work on one picture at a time, so that it can be caught at it."""
    given = ("--database-url", url) if url is not None else ()
    here = {name: one for name, one in os.environ.items() if not name.startswith("TWINLENS_")}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "server", "ingest", str(source), "--data", str(data), *given),
            *("--device", "cpu", "--threads", "1", "--batch", "1", *flags),
        ],
        cwd=ROOT,
        text=True,
        env={**here, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process: Command) -> tuple[str, str, int]:
    """What it printed, and the exit code."""
    out, err = process.communicate(timeout=4 * PATIENCE)
    return out, err, process.returncode


def run(
    source: Path | str, data: Path, url: str | None, *flags: str, environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], str, int]:
    """The object of the last line, what was said beside it, and the exit code."""
    out, err, code = finished(start(source, data, url, "--json", *flags, environment=environment))
    return json.loads(out.splitlines()[-1]) if out else {}, err, code


def count(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        ((found,),) = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()
        return int(found)
