"""python -m server doctor --recall: searches through indexes beside exact ones, as a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from server.catalogue.recall import measure
from server.database.migrations import require_migrated
from server.settings import Settings


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """`doctor --recall`: 0 where every client's recall is what it should be, 1 where one's is not."""
    require_migrated(url)
    found = asyncio.run(measure(settings, url))
    poor = [one for one in found if one.recall < settings.target_recall or one.short]
    if arguments.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return 1 if poor else 0
    if not found:
        print("No client is large enough for an index: every search is exact, and its recall is 1.")
        return 0
    rows = [("client", "vectors", "ef_search", "live", "drawn", "by index", "short", "recall", "lowest")]
    rows += [
        (
            one.client,
            f"{one.vectors:,}",
            str(one.ef_search),
            str(one.live_queries),
            str(one.drawn_queries),
            str(one.by_index),
            str(one.short),
            f"{one.recall:.4f}",
            f"{one.lowest:.3f}",
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for client, *figures in rows:
        cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
        print("  ".join([client.ljust(widths[0]), *cells]))
    print("Every other client is searched exactly, with recall 1.")
    for one in poor:
        print(
            f"{one.client}: recall {one.recall:.4f}, and {settings.target_recall} is the target "
            f"(TWINLENS_TARGET_RECALL); {one.short} short answers. The server measures an index when it is built and "
            f'when it has grown by half. DROP INDEX CONCURRENTLY "{one.index}" has a running server build and '
            "measure it again.",
            file=sys.stderr,
        )
    return 1 if poor else 0
