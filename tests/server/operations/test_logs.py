"""Log lines: what is secret is in none of them, tracebacks included."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT

SETUP = """
import logging
from server.operations.logs import log_to_stderr
from server.settings import Settings
log_to_stderr(Settings(database_url="postgresql://shop:h%40shhush@db/shop").redact)
"""


@pytest.mark.parametrize(
    "code",
    [
        "logging.getLogger('psycopg.pool').error(\"error connecting in 'catalogue': %s\", 'no h@shhush here')",
        "logging.getLogger('_granian').error('startup failed: h%40shhush')",
        "try:\n    raise ValueError('h@shhush')\nexcept ValueError:\n    logging.exception('It failed.')",
        "raise ValueError('h@shhush')",
        "import threading; threading.Thread(target=lambda: int('h@shhush')).start()",
    ],
)
def test_a_secret_is_in_no_line_whichever_way_it_takes(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{SETUP}\n{code}"], cwd=ROOT, capture_output=True, text=True)
    assert "***" in done.stderr
    assert "hush" not in done.stderr
