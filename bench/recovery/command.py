"""python -m bench recovery: what callers see when a part breaks, and how soon they are answered again.

A server of its own, on an embedded PostgreSQL with a standby, is searched and written to at a steady, light pace while
one part after the other is broken: PostgreSQL, its connections, the worker, the store. Then all that was acknowledged
must be there, and each picture must find itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

import psycopg

from bench import machine
from bench.recovery.breaks import KINDS, Stage
from bench.recovery.traffic import Asked, Traffic
from bench.serving import serving
from server.errors import TwinlensError
from server.postgres.server import EmbeddedPostgres
from tests.support.databases import discard
from tests.support.standby import Standby, hosts_url

_CALM_SECONDS = 1.5  # without a refusal, after which the next part is broken
_CALM_LIMIT = 40.0


@dataclass(frozen=True, slots=True)
class Row:
    """What callers saw of one kind of break."""

    kind: str
    answered: int = 0
    refused: int = 0
    """With 503."""
    reasons: dict[str, int] = field(default_factory=dict)
    """What the answers were that were no 2xx, refusals among them."""
    longest: float = 0.0
    """Seconds until the answer that took longest, of whatever kind."""
    first_search: float | None = None
    """Seconds from the moment when it could be answered again to the first search that was; and the first write."""
    first_write: float | None = None
    last_refusal: float = 0.0
    """Seconds from then to the last answer that was no 2xx."""
    failed: str | None = None
    """Why this could not be measured."""


async def measure(stage: Stage, kinds: Sequence[str], pace: float) -> tuple[list[Row], dict[str, int]]:
    """A row for each kind, and what of that which was acknowledged is there in the end and what is lost."""
    traffic = Traffic(stage.server.port, pace)
    running = asyncio.create_task(traffic.run())
    rows = []
    await _calm(traffic, perf_counter())
    for kind in kinds:
        name, break_it = KINDS[kind]
        began = back = perf_counter()
        failed = None
        try:
            back = await asyncio.to_thread(break_it, stage)
            await _calm(traffic, back)
        except Exception as exc:  # one that fails must not end the others
            failed = f"{type(exc).__name__}: {exc}"
        rows.append(row_of(name, [one for one in traffic.asked if one.came >= began], back, failed))
        print(line_of(rows[-1]), flush=True)
    running.cancel()
    await traffic.end()
    wrong = sum(one.status == "wrong" for one in traffic.asked)
    there = [await traffic.has(product) for product in traffic.products]
    there += [await traffic.search(product) for product in traffic.media]
    return rows, {
        "acknowledged": len(there),
        "lost": sum(one.status.startswith(("404", "wrong")) for one in there),
        "unanswered": sum(not one.answered and not one.status.startswith(("404", "wrong")) for one in there),
        "wrong answers": wrong,
    }


async def _calm(traffic: Traffic, since: float) -> None:
    """Until all has been answered well for a while; raises RuntimeError when that does not come."""
    deadline = perf_counter() + _CALM_LIMIT
    while perf_counter() < deadline:
        await asyncio.sleep(0.1)
        begin = max(since, perf_counter() - _CALM_SECONDS)
        late = [one for one in traffic.asked if one.sent >= begin]
        calm = all(one.answered for one in late) and {one.what for one in late} == {"search", "write"}
        if calm and perf_counter() - since > _CALM_SECONDS:
            return
    raise RuntimeError(f"requests were not answered well again within {_CALM_LIMIT:g} s")


def row_of(name: str, asked: Sequence[Asked], back: float, failed: str | None = None) -> Row:
    """What callers saw who were answered after the break; `back`: when an answer was possible again."""

    def first(what: str) -> float | None:
        came = [one.came - back for one in asked if one.what == what and one.answered and one.came >= back]
        return min(came, default=None)

    statuses = Counter(one.status for one in asked if not one.answered)
    refusals = {status: count for status, count in statuses.items() if status.startswith("503")}
    return Row(
        kind=name,
        answered=sum(one.answered for one in asked),
        refused=sum(refusals.values()),
        reasons=dict(statuses),
        longest=max((one.came - one.sent for one in asked), default=0.0),
        first_search=first("search"),
        first_write=first("write"),
        last_refusal=max([0.0, *(one.came - back for one in asked if not one.answered)]),
        failed=failed,
    )


HEAD = f"{'break':39}{'2xx':>6}{'503':>6}{'other':>7}{'longest':>9}{'search':>9}{'write':>9}{'last':>8}"


def line_of(row: Row) -> str:
    """A row as text; times in seconds but for those from the moment when it was possible again, in milliseconds."""
    first, write = ("-" if one is None else f"{one * 1000:.0f} ms" for one in (row.first_search, row.first_write))
    notes = [f"{count} x {what}" for what, count in row.reasons.items()] + ([row.failed] if row.failed else [])
    return (
        f"{row.kind:39}{row.answered:6}{row.refused:6}{sum(row.reasons.values()) - row.refused:7}{row.longest:7.2f} s"
        f"{first:>9}{write:>9}{row.last_refusal:6.1f} s  {', '.join(notes)}"
    ).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Break, measure, print and write down. The exit code is 1 when something was lost or could not be measured."""
    parser = argparse.ArgumentParser("python -m bench recovery", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--pace", type=float, default=20.0, help="searches a second, and a quarter as many writes (20)")
    parser.add_argument("--only", default=",".join(KINDS), help=f"kinds of break, in this order ({','.join(KINDS)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    kinds = asked.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"there is no break {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    try:
        rows, kept = run(asked.model, kinds, asked.pace)
    except (TwinlensError, RuntimeError, psycopg.Error) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{what}: {count}" for what, count in kept.items()))
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": machine.describe(), "pace": asked.pace, "breaks": [asdict(row) for row in rows], **kept}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    good = not any(row.failed for row in rows)
    return 0 if good and not any(count for what, count in kept.items() if what != "acknowledged") else 1


def run(model: Path, kinds: Sequence[str], pace: float) -> tuple[list[Row], dict[str, int]]:
    """Start all that is needed, measure, and stop it again. Raises RuntimeError, TwinlensError's kinds."""
    print(machine.sentence())
    print(f"{pace:g} searches and {pace / 4:g} writes a second; search, write, last: from when an answer was possible")
    # Readable by all: under root, PostgreSQL runs as another user, which must reach its data in here.
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinlens-", ignore_cleanup_errors=True)))
        home.chmod(0o755)
        primary = EmbeddedPostgres(home / "primary")
        stack.callback(discard, primary)
        primary.start()
        standby = stack.enter_context(Standby(primary, home / "standby"))
        url = hosts_url(primary, standby.postgres, target_session_attrs="read-write")
        server = stack.enter_context(serving(model, environment={"TWINLENS_DATABASE_URL": url}))
        print(HEAD, flush=True)
        return asyncio.run(measure(Stage(server, primary, standby, url), kinds, pace))


if __name__ == "__main__":
    sys.exit(main())
