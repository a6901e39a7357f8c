"""Where things lie that the tests use."""

from pathlib import Path

import export  # noqa: F401  # first of all: it says how torch's threads wait, which torch reads once

ROOT = Path(__file__).parent.parent
STARTER = ROOT / "models" / "starter"
DEMO_PICTURES = ROOT / "server" / "ingest" / "demo_catalogue" / "pictures"
PHOTOGRAPHS = ROOT / "tests" / "data" / "photographs"
