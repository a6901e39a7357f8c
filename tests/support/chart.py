"""The Helm chart as tests render it: by helm itself, where it is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

CHART = ROOT / "deploy" / "helm" / "twinlens"

# The least that an operator gives.
LEAST: dict[str, Any] = {"secret": {"name": "twinlens"}, "settings": {"MEDIA_URL": "s3://shop/pictures"}}

_BESIDE = Path(sys.executable).parent / "helm"
HELM = shutil.which("helm") or (str(_BESIDE) if _BESIDE.exists() else None)

needs_helm = pytest.mark.skipif(
    HELM is None and not os.environ.get("CI"), reason="needs helm: make helm brings it into .venv"
)


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """`values` beside the chart's own; JSON is YAML."""
    assert HELM is not None, "CI brings helm: make helm"
    return subprocess.run(
        [HELM, *arguments, "--values", "-"], input=json.dumps(values or {}), text=True, capture_output=True
    )


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that `helm install shop` would make in the namespace `search`, with `LEAST` and these."""
    done = helm("template", "shop", str(CHART), "--namespace", "search", values=merged(LEAST, values))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As helm merges two files of values. What is None in the second is taken out of the first."""
    whole = {**under, **over}
    for name in under.keys() & over.keys():
        if over[name] is None:
            del whole[name]
        elif isinstance(under[name], dict) and isinstance(over[name], dict):
            whole[name] = merged(under[name], over[name])
    return whole


def of_kind(objects: list[dict[str, Any]], kind: str, component: str = "server") -> dict[str, Any]:
    """The one of that kind for the server, or for another component."""
    (found,) = [
        one
        for one in objects
        if one["kind"] == kind and one["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    return found
