"""A container engine for tests: Debian's podman, with a store of its own, and a base image made of Debian's packages.

No registry of images is asked. The base stands for `python:3.11-slim-bookworm`: the same Debian with the same Python,
but Debian's own build of it, at `/usr/bin/python3` with a link from `/usr/local/bin/python`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BASE = "localhost/base:latest"
SUITE = "bookworm"

_PROGRAMS = ("podman", "runc", "mmdebstrap")
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_MOST_SECONDS = 400


def why_not() -> str | None:
    """Why there can be no containers on this machine, as a reason to skip."""
    if os.geteuid() != 0:
        return "needs root, to make a file system of Debian's packages"
    missing = [name for name in _PROGRAMS if not shutil.which(name)]
    if missing:
        return f"needs Debian's packages {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], text=True, capture_output=True)
    return None if tried.returncode == 0 else f"this machine allows no namespaces: {tried.stderr.strip()}"


class Podman:
    """Commands of podman on images and containers that nothing else sees."""

    def __init__(self, folder: Path) -> None:
        self._store = [f"--root={folder}/images", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        self._store += ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--log-level=fatal"]

    def __call__(self, *arguments: str, stdin: str | None = None, may_fail: bool = False) -> str:
        """What the command prints on standard output; with `may_fail` also where it failed."""
        done = subprocess.run(
            ["podman", *self._store, *arguments], input=stdin, text=True, capture_output=True, timeout=_MOST_SECONDS
        )
        assert may_fail or done.returncode == 0, f"podman {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def build(self, dockerfile: Path, context: Path, tag: str, *flags: str) -> None:
        """`docker build`, with the network and with no image but those that are here."""
        here = ["--pull=never", "--isolation=chroot", "--format=docker", "--network=host"]
        self("build", *here, *flags, f"--tag={tag}", f"--file={dockerfile}", str(context))

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """`docker run`. Without a network unless one is named."""
        network = [] if any(one.startswith("--network") for one in arguments) else ["--network=none"]
        limits = [f"--ulimit={name}={_most(which)}" for name, which in _LIMITS]
        return self(
            "run", "--pull=never", "--runtime=runc", "--log-driver=k8s-file", *limits, *network, *arguments, stdin=stdin
        )

    def logs(self, name: str) -> str:
        """What a container has printed, on standard output and on standard error."""
        command = ["podman", *self._store, "logs", name]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def clear(self) -> None:
        """Remove all containers and their volumes."""
        # Whose network another one shares goes only after that one.
        self("rm", "--force", "--all", "--time=1", may_fail=True)
        self("rm", "--force", "--all", "--time=1")
        self("volume", "rm", "--force", "--all")

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = json.loads(self(kind, "inspect", name))
        return dict(found)


# Podman asks for more than a process without the right to raise its limits may have.
_LIMITS = (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))


def _most(which: int) -> str:
    hard = resource.getrlimit(which)[1]
    most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    return f"{most}:{most}"


@contextmanager
def podman() -> Iterator[Podman]:
    """An engine with the image `BASE` in it; removed with all that it made."""
    # Where sockets lie, a path must be short.
    folder = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))
    engine = Podman(folder)
    try:
        _make_base(engine, folder / "base")
        yield engine
    finally:
        engine.clear()
        engine("rmi", "--force", "--all", may_fail=True)
        shutil.rmtree(folder, ignore_errors=True)


def _make_base(engine: Podman, folder: Path) -> None:
    folder.mkdir()
    # What this machine trusts and where its pip looks, the container does, too.
    index = f"index-url = {os.environ['PIP_INDEX_URL']}\n" if os.environ.get("PIP_INDEX_URL") else ""
    settings = folder / "pip.conf"
    settings.write_text(f"[global]\ncert = {_CERTIFICATES}\n{index}")
    hooks = [
        'ln -s /usr/bin/python3 "$1/usr/local/bin/python"',
        'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',  # a note that the image does not have
        f"upload {settings} /etc/pip.conf",
        f"upload {_CERTIFICATES} {_CERTIFICATES}",
    ]
    archive = folder / "base.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    made = subprocess.run([*command, SUITE, str(archive)], text=True, capture_output=True, timeout=_MOST_SECONDS)
    assert made.returncode == 0, made.stderr[-2000:]
    engine("import", str(archive), BASE)
    archive.unlink()


needs_containers = pytest.mark.skipif((_why := why_not()) is not None, reason=_why or "")
