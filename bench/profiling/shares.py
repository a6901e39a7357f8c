"""Where the time of a request went, by stage, and where the core-seconds went, by process and thread."""

from __future__ import annotations

from bench import cpu
from bench.load.figures import read_stages

STAGES = ("read", "decode", "resize", "queue", "encode", "search", "server", "http")
"""`server` is what the server's `total` has beside its stages, `http` what the caller waited beyond `total`."""

SHARES = ("encode", "decode", "event loop", "http threads", "other threads", "parent", "postgres")
"""What core-seconds are used for: threads of the workers, and the processes beside them."""


def split(header: str, milliseconds: float) -> dict[str, float]:
    """A caller's wait by STAGES, which add up to it; without a `total`, what no stage accounts for is `http`."""
    stages, _ = read_stages(header)
    total = stages.pop("total", None)
    inside = sum(stages.values())
    if total is not None:
        stages["server"] = max(0.0, total - inside)
    stages["http"] = max(0.0, milliseconds - max(total or 0.0, inside))
    return stages


def core_seconds(parent: int) -> dict[str, float]:
    """Core-seconds of a server's processes and threads until now, by SHARES."""
    used = dict.fromkeys(SHARES, 0.0)
    for pid in cpu.tree(parent):
        if pid == parent or "resource_tracker" in cpu.title(pid):
            used["parent"] += cpu.process_seconds(pid)
        elif cpu.name(pid) == "postgres":
            used["postgres"] += cpu.process_seconds(pid)
        else:
            for thread, (name, seconds) in cpu.thread_seconds(pid).items():
                used[share_of(name, main=thread == pid)] += seconds
    return used


def share_of(thread: str, *, main: bool) -> str:
    """What a worker's thread is for, by its name; threads of ONNX Runtime bear the name of the one that made them."""
    if main:
        return "event loop"
    for beginning, share in (("encode", "encode"), ("decode", "decode"), ("tokio", "http threads")):
        if thread.startswith(beginning):
            return share
    return "encode" if thread.startswith("python") else "other threads"
