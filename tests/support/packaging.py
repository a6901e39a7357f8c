"""What pyproject.toml says that each extra installs."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests import ROOT


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def brought_by(extra: str) -> set[str]:
    """The requirements of an extra, those of the extras that it names among them."""
    found = set()
    for requirement in project()["optional-dependencies"][extra]:
        if ours := re.fullmatch(r"twinlens\[(.+)\]", requirement):
            found |= {one for name in ours[1].split(",") for one in brought_by(name.strip())}
        else:
            found.add(requirement)
    return found
