"""A Ray cluster of two machines with a CPU each, which are processes: `python -m tests.support.ray_cluster`.

It prints its address, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import ROOT
from tests.support.process import PATIENCE, until

_OBJECT_STORE_BYTES = 150_000_000

# Nothing is reported, and no token is written into the home folder.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class Machines:
    """The cluster, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    @property
    def processes(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def workers(self, stage: str) -> list[psutil.Process]:
        """The workers of this stage that are at work now, such as Decode."""
        found = []
        for one in self.processes:
            with contextlib.suppress(psutil.Error):
                title = " ".join(one.cmdline())
                if title.startswith("ray::") and f"({stage})" in title:
                    found.append(one)
        return found

    def lose(self, stage: str) -> None:
        """Kill a worker of this stage, and not before there is one."""
        until(lambda: self.workers(stage))
        self.workers(stage)[0].kill()


@contextmanager
def two_machines() -> Iterator[Machines]:
    """They are there as long as this block lasts; none of their processes is afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ray_cluster"],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    started: list[psutil.Process] = []
    try:
        machines = Machines(process, process.stdout.readline().strip())
        assert machines.address, "the cluster did not start"
        started = machines.processes
        yield machines
        started = machines.processes
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()
        _, left = psutil.wait_procs(started, PATIENCE)
        assert not left


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # in whose subfolder `ray` the address is kept, also where it lies elsewhere
        (Path(folder) / "ray").mkdir()

        # Only now, when what it reads of the environment is there.
        from ray.cluster_utils import Cluster

        machine = {"num_cpus": 1, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
        out = os.dup(1)
        os.dup2(2, 1)  # what Ray prints is not the address
        cluster = Cluster(initialize_head=True, head_node_args={**machine, "temp_dir": folder})
        cluster.add_node(**machine, temp_dir=folder)
        cluster.wait_for_nodes()
        os.write(out, f"{cluster.address}\n".encode())
        os.close(out)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main()
