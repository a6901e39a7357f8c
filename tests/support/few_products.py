"""`python -m server` with a demo catalogue of a few products, for tests to which loading all of it says no more.

Its workers are spawned: each imports this module again, as its parent did, and so has the few products, too.
"""

from __future__ import annotations

import os
import sys

from server.ingest import demo

VARIABLE = "TESTS_DEMO_PRODUCTS"

_listed = demo.products


def products(count: int) -> list[demo.DemoProduct]:
    """As many of the demo's, those that tests search for among them."""
    return sorted(_listed(), key=lambda one: one.id not in ("demo-keyboard", "demo-teapot"))[:count]


if __name__ != "tests.support.few_products":  # this process is a server
    demo.products = lambda: products(int(os.environ[VARIABLE]))

if __name__ == "__main__":
    from server.__main__ import main

    sys.exit(main())
