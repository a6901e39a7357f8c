"""The checkpoint's tower in torch.compile on the same GPU, in a Python that has torch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from bench import pictures
from bench.gpu.setting import Setting


def measure(setting: Setting, checkpoint: Path) -> list[dict[str, Any]]:
    """Pictures a second of torch.compile for each batch size. Raises RuntimeError when it does not run."""
    command = [setting.torch_python, "-m", "bench.gpu.torch_tower", "--checkpoint", str(checkpoint)]
    command += ["--batches", ",".join(map(str, setting.batches)), "--seconds", str(setting.seconds)]
    command += ["--device", f"cuda:{setting.gpu}" if setting.on_gpu else "cpu"]
    done = subprocess.run(command, cwd=pictures.ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["torch stopped without a message"])[-1])
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows
