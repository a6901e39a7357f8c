"""Bring a folder of pictures, or a table of products, into the catalogue; the same command goes on after a stop."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from twinlens.client import Client
from twinlens.commands.screen import Screen
from twinlens.errors import TwinlensError
from twinlens.feed import Feed, Wrong, agreed, feed_of
from twinlens.journal import Journal
from twinlens.push import Outcome, Pushed, PushReport, tasks
from twinlens.uploads import CONCURRENCY

SOME_FAILED = 1

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `push`."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a folder, where each product is a folder of its pictures, or a table with a column productId and any of "
        "name, sku, file, url, isActive and attributes; other columns are attributes",
    )
    parser.add_argument("--dry-run", action="store_true", help="read it all, say what is wrong, and send nothing")
    parser.add_argument(
        "--concurrency", type=int, default=CONCURRENCY, metavar="N", help=f"products at a time ({CONCURRENCY})"
    )
    parser.add_argument("--failures", type=Path, metavar="FILE", help="write what failed there, as JSON, one a line")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="where to keep what is done, until all is")
    parser.add_argument("--no-journal", action="store_true", help="keep nothing: a second run sends all again")


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Read the source twice: to see what is wrong with it, and to send it."""
    if given.concurrency < 1:
        raise ValueError("--concurrency must be 1 or more.")
    feed = feed_of(given.source)
    wrong, rows = _looked_at(feed)
    if given.dry_run:
        return _dry(screen, rows, wrong)
    work = f"{client.options.identity} {given.source.resolve()}"
    path = None if given.no_journal else given.journal or _usual_journal(work)
    report = PushReport()
    with Journal(path, work) as journal:
        try:
            with (
                screen.progress(str(given.source), max(rows + len(wrong), 1)) as update,
                closing(client.run_many(tasks(feed.read(), journal), given.concurrency)) as results,
            ):
                for pushed, count in results:
                    report.note(pushed, count)
                    update(report.rows, f", {len(report.failures):,} failed" if report.failures else "")
        except (KeyboardInterrupt, TwinlensError):
            screen.say("Stopped; the same command goes on where this one was." if path else "Stopped.")
            raise
        finally:
            _write(given.failures, report.failures)
        if not report.failures:
            journal.remove()
    _print(screen, report)
    return SOME_FAILED if report.failures else 0


def _looked_at(feed: Feed) -> tuple[list[Wrong], int]:
    """The lines that are wrong, those whose files are missing among them; and how many rows there are beside them."""
    wrong, rows = [], 0
    for one in agreed(feed.read()):
        if isinstance(one, Wrong):
            wrong.append(one)
        elif one.picture is not None and not one.picture.is_file():
            wrong.append(Wrong(one.number, f"There is no file {one.picture}."))
        else:
            rows += 1
    return wrong, rows


def _dry(screen: Screen, rows: int, wrong: list[Wrong]) -> int:
    if screen.as_json:
        lines = [{"line": one.number, "reason": one.reason} for one in wrong]
        screen.json({"rows": rows, "wrong": lines})
    else:
        for one in wrong:
            screen.print(f"Line {one.number:,}: {one.reason}")
        screen.print(f"{rows:,} rows can be sent, {len(wrong):,} cannot.")
    return SOME_FAILED if wrong else 0


def _usual_journal(work: str) -> Path:
    """One for each server, client and source, where programs keep such things."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "twinlens" / f"push-{hashlib.sha256(work.encode()).hexdigest()[:16]}.journal"


def _write(path: Path | None, failures: list[Pushed]) -> None:
    if path is not None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(_of(one), ensure_ascii=False)}\n" for one in failures)


def _of(one: Pushed) -> dict[str, Any]:
    return {
        "line": one.number,
        "productId": one.product_id,
        "what": one.what,
        "where": one.where or None,
        "reason": one.reason,
        "code": one.code,
    }


def _print(screen: Screen, report: PushReport) -> None:
    if screen.as_json:
        failures = [_of(one) for one in report.failures]
        screen.json({"products": report.products, "pictures": report.pictures, "failures": failures})
        return
    for what, counts in (("Products", report.products), ("Pictures", report.pictures)):
        said = ", ".join(f"{counts[outcome]:,} {word}" for outcome, word in _WORDS.items() if outcome in counts)
        screen.print(f"{what}: {said or 'none'}.")
    if report.failures:
        screen.print(f"Failed: {len(report.failures):,}.")
        rows = [(one.number, one.product_id, one.where, one.reason) for one in report.failures[:_SHOWN]]
        screen.table(("line", "product", "picture", "why"), rows)
        if len(report.failures) > _SHOWN:
            screen.print("And more; --failures FILE writes them all.")


_WORDS: dict[Outcome, str] = {
    "created": "new",
    "changed": "updated",
    "added": "added",
    "there": "there already",
    "skipped": "done before",
}
