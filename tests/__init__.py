"""Where things lie that the tests use."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
STARTER = ROOT / "models" / "starter"
DEMO_PICTURES = ROOT / "server" / "demo_catalogue" / "pictures"
PHOTOGRAPHS = ROOT / "tests" / "data" / "photographs"
