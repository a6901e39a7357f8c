"""Where log lines go."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """Plain lines on standard error, for the parent and for each worker."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # Every connection that is lost and replaced would be a line; what matters reaches the caller as an error.
    # So would every statement whose caller did not wait for it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
