"""compose.yaml with its variables filled in, as Compose does it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests import ROOT

COMPOSE = ROOT / "compose.yaml"

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")


def compose(**variables: str) -> dict[str, Any]:
    """Raises KeyError for a variable that must be given and is not."""

    def filled(found: re.Match[str]) -> str:
        value = variables.get(found["name"], "")
        if not value and found["how"] == "?":
            raise KeyError(found["name"])
        return value or (found["rest"] if found["how"] == "-" else "")

    whole: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(filled, COMPOSE.read_text()))
    return whole
