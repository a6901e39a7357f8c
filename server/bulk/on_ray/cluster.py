"""The Ray cluster that a run works on: one that is there, or one on this machine that is started for the run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from server.errors import IngestRefused
from server.settings import Settings, variable_of

_ANSWER_WITHIN_SECONDS = 5.0
_PROOF_WITHIN_SECONDS = 60.0

# Of a cluster that is started here: what is on its way between the stages, which is a few batches.
_OBJECT_STORE_BYTES = 512 * 1024 * 1024

# One worker that decodes, and one that encodes.
_LEAST_CPUS = 2


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what Ray may use of it."""

    host: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    local: bool
    """Whether it was started here, for this run."""
    nodes: Sequence[Node]

    @property
    def cpus(self) -> int:
        return sum(one.cpus for one in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(one.gpus for one in self.nodes)


@contextmanager
def cluster_at(settings: Settings, address: str | None) -> Iterator[Cluster]:
    """The cluster at this address; without one, a cluster on this machine as long as this block lasts.

    Raises IngestRefused.
    """
    _hush()
    if address is not None:
        _require_cluster(address)
    folder = tempfile.mkdtemp(prefix="ray-") if address is None else None
    try:
        with _connected(address, folder):
            nodes = _nodes()
            _require_fit(settings, nodes)
            yield Cluster(address is None, nodes)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _hush() -> None:
    """Before Ray is loaded: nothing is reported to its makers, and what is wrong with a run is said by us."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray").setLevel(logging.ERROR)


def _require_cluster(address: str) -> None:
    """That a cluster answers there: where none does, Ray would try for many minutes. Raises IngestRefused."""
    if "://" in address:
        raise IngestRefused(
            f"--address must be that of the cluster itself, such as 10.0.0.1:6379, and is {address}: run this on a "
            "machine of the cluster, not through Ray's client."
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_WITHIN_SECONDS).close()
        except (OSError, ValueError, OverflowError) as exc:
            raise IngestRefused(f"No Ray cluster answers at {address}: {exc}.") from exc
    proof = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        proof += [] if address == "auto" else ["--address", address]
        subprocess.run(proof, check=True, capture_output=True, timeout=_PROOF_WITHIN_SECONDS)  # noqa: S603 - our own
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        raise IngestRefused(
            f"What answers at {address} is no Ray cluster that this machine may use: see that it runs (ray status), "
            "and that its token is known here."
        ) from exc


@contextmanager
def _connected(address: str | None, folder: str | None) -> Iterator[None]:
    # Only now, when what it reads of the environment is there.
    import ray

    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        how |= {
            "num_cpus": max(_LEAST_CPUS, len(os.sched_getaffinity(0))),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }
    # Ray takes over what this process does at a signal.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address or "local", **how)
    except Exception as exc:  # Ray's, gRPC's and the system's have no common base
        ray.shutdown()
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        what = "Ray cannot be started here" if address is None else f"The Ray cluster at {address} cannot be used"
        raise IngestRefused(f"{what}: {reason}") from exc
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _nodes() -> list[Node]:
    import ray

    return [
        Node(one["NodeManagerHostname"], int(one["Resources"].get("CPU", 0)), int(one["Resources"].get("GPU", 0)))
        for one in ray.nodes()
        if one["Alive"]
    ]


def _require_fit(settings: Settings, nodes: Sequence[Node]) -> None:
    """That the run can work there at all. Raises IngestRefused."""
    if settings.owners_url is None and len({one.host for one in nodes}) > 1:
        raise IngestRefused(
            "The database is the embedded one, which other machines of the cluster cannot reach: give a PostgreSQL "
            f"that all of them reach as {variable_of('database_url')}."
        )
    gpus = sum(one.gpus for one in nodes)
    if settings.device == "cuda" and not gpus:
        raise IngestRefused(f"{variable_of('device')} is cuda, and no machine of the Ray cluster has a GPU for it.")
    cpus = sum(one.cpus for one in nodes)
    least = 1 if gpus and settings.device != "cpu" else _LEAST_CPUS
    if cpus < least:
        raise IngestRefused(f"The Ray cluster has {cpus} CPUs, and at least {least} are needed.")
