"""The starter with a change to its manifest: what another artifact, or a broken one, looks like to the server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests import STARTER


def other_artifact(folder: Path) -> str:
    """The starter with another space: what an export of other weights looks like to the server."""
    shutil.copytree(STARTER, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    other = "f" * 64
    manifest["space"]["id"] = other
    for variant in manifest["precisions"].values():
        variant["space"] = other
    rewrite_manifest(folder, manifest)
    return other


def with_a_graph_that_does_not_load(folder: Path) -> Path:
    """The starter, in the same space and with digests that are right, whose image tower is no graph."""
    shutil.copytree(STARTER, folder)
    graph, manifest = b"no graph", json.loads((folder / "manifest.json").read_bytes())
    name = manifest["precisions"]["fp32"]["image"]
    (folder / name).write_bytes(graph)
    manifest["files"][name] |= {"sha256": hashlib.sha256(graph).hexdigest(), "bytes": len(graph)}
    rewrite_manifest(folder, manifest)
    return folder


def rewrite_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    with contextlib.suppress(FileNotFoundError):
        sidecar = folder / "manifest.sha256"
        sidecar.write_text(re.sub(r"[0-9a-f]{64}", hashlib.sha256(data).hexdigest(), sidecar.read_text()))
