"""What came of it: tables for each class, the aims, and docs/search-benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.search.measure import Record
from bench.search.workload import LIMIT

Run = Mapping[str, Any]

OURS, BASE = "twinlens", "older"
LEAST_RECALL = 0.99
MOST_P95 = 25.0  # ms, at 8 connections
LARGE, LEAST_TIMES = 25_000, 20.0


def text(records: Sequence[Record], run: Run) -> str:
    """The tables, ratios and aims, for a terminal."""
    parts = [f"{_clients(size)}\n{_table(records, size)}" for size in _sizes(records)]
    parts.append(f"how many times as quick as the older system\n{_times(records)}")
    parts.append(f"aims\n{_aims(records)}")
    return "\n\n".join(parts)


def page(records: Sequence[Record], run: Run, path: Path | None) -> str:
    """docs/search-benchmarks.md."""
    found = run["machine"]
    about = f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB; {found['system']}, Python "
    settings = ", ".join(f"`{name}` {value}" for name, value in run["postgres"].items())
    kept = (
        f" Every figure is in [`bench/results/{path.name}`](../bench/results/{path.name})." if path is not None else ""
    )
    titles = "\n".join(f"- **{one['name']}**: {one['title']}. {one['about']}" for one in run["systems"])
    titles += "".join(f"\n- **{name}** is left out: {why}." for name, why in run["leftOut"].items())
    clients = ", ".join(f"{count:,} of {int(size):,}" for size, count in sorted(run["clients"].items(), key=_by_size))
    parts = [
        "# Searching, for clients of every size",
        "<!-- Written by `python -m bench search --write-docs`: edit bench/search/document.py instead. -->",
        f"Does a search find what an exact one finds, is its answer ever short, and how long does it take, for a "
        f"client with ten pictures and for one with hundreds of thousands in the same database? {run['rows']:,} "
        f"vectors of {run['dimensions']} dimensions, {LIMIT} matches a search.",
        f"**Machine:** {about}{found['python']}. **Run:** {run['started'][:10]}, `{run['command']}`: {run['rounds']} "
        f"rounds, {run['seconds']:g} s for each figure.{kept}",
        "## Against what we aimed at",
        _aims(records),
        "## How many times as quick as the older system",
        "Its p50 divided by ours, at the same number of connections.",
        _times(records),
        "## Every class of clients",
        "Medians of the rounds, in milliseconds. *Short* counts answers with fewer rows than there are to find. A p99 "
        "of fewer than a hundred queries (see the JSON) is little more than the slowest of them.",
        *(f"### {_clients(size)}\n\n{_table(records, size)}" for size in _sizes(records)),
        "## Who was asked",
        titles,
        "Qdrant is not among them: its client's local mode is a brute-force search in numpy that its makers mean for "
        "tests, and its server is not a Python package.",
        "## How it was measured",
        f"**Vectors.** Clustered, not uniform: a direction that all share, 4,096 clusters of which each client has its "
        f"own, and noise around them whose variance falls off with the dimension, as that of vectors of pictures does. "
        f"Clients: {clients}. Rows lie in the order in which uploads of at most 20 came in, "
        "those of all clients mixed.",
        "**Queries.** Stored vectors (a quarter), and stored vectors moved by noise of 0.35 of their length (a cosine "
        "of about 0.94 to the stored one): for each class as many distinct ones as the JSON says, of up to 8 "
        "clients.",
        "**Recall.** Of the 24 nearest by an exact search in numpy over the stored halves, how many were found; a row "
        "whose cosine equals the 24th's counts. Rows of other clients count nothing.",
        "**Turns.** In each class, for each number of connections, the systems take turns, and another begins each "
        "round. Connections are coroutines of one Python process, which asks on the same cores that PostgreSQL "
        "answers on; a connection asks again as soon as it is answered, so at 8 and 32 connections most of a latency "
        "is waiting for the others. Each turn begins with up to a second that is not counted, because "
        "PostgreSQL's buffers still hold the pages of the system before. The libraries run in processes of their own "
        "and need no database.",
        f"**PostgreSQL.** {settings}.",
        "**What was built.** Seconds are given where this run filled the database.",
        _databases(run),
        "## Do it again",
        "    make test  # once: installs what is needed\n"
        "    .venv/bin/python -m bench search --install-peers --json bench/results/search-mine.json\n"
        "    .venv/bin/python -m bench search --read bench/results/search-mine.json --write-docs",
        "`--rows 1000000 --data FOLDER` is the large run: it wants some 15 GB of disk, and FOLDER keeps the databases "
        "for the next time.",
    ]
    return "\n\n".join(parts) + "\n"


def aims(records: Sequence[Record]) -> Iterator[tuple[str, str, bool | None]]:
    """Each aim, what was measured, and whether it is reached; None where it was not measured."""
    ours = [record for record in records if record["system"] == OURS]
    by = {(record["system"], record["clientSize"], record["connections"]): record for record in records}

    def worst(aim: str, found: Sequence[tuple[float, Record]], good: Callable[[float], bool], form: str) -> Any:
        if not found:
            return aim, "not measured", None
        value, record = found[0]
        where = f"{_clients(record['clientSize'])}, {record['connections']} connections"
        return aim, f"{form.format(value)} ({where})", good(value)

    def ordered(key: Callable[[Record], float], some: Sequence[Record], *, most: bool) -> list[tuple[float, Record]]:
        return sorted(((key(one), one) for one in some), key=lambda pair: pair[0], reverse=most)

    def times(record: Record) -> float:
        base = by[BASE, record["clientSize"], record["connections"]]
        return float(base["p50Ms"] / record["p50Ms"])

    compared = [one for one in ours if (BASE, one["clientSize"], one["connections"]) in by]
    yield worst(
        f"recall@{LIMIT} of at least {LEAST_RECALL} in every class",
        ordered(lambda one: one["recall"], ours, most=False),
        lambda value: value >= LEAST_RECALL,
        "at worst {:.4f}",
    )
    yield worst(
        "never a short answer",
        ordered(lambda one: one["short"], ours, most=True),
        lambda value: value == 0,
        "at most {:,.0f}",
    )
    yield worst(
        f"p95 under {MOST_P95:g} ms at 8 connections",
        ordered(lambda one: one["p95Ms"], [one for one in ours if one["connections"] == 8], most=True),
        lambda value: value < MOST_P95,
        "at most {:.1f} ms",
    )
    yield worst(
        f"{LEAST_TIMES:g} times the older system for clients of {LARGE:,} and more",
        ordered(times, [one for one in compared if one["clientSize"] >= LARGE], most=False),
        lambda value: value >= LEAST_TIMES,
        "at least {:.1f} times",
    )
    yield worst(
        "slower than the older system for none",
        ordered(times, compared, most=False),
        lambda value: value >= 1,
        "at least {:.2f} times",
    )


def _aims(records: Sequence[Record]) -> str:
    words = {True: "yes", False: "**no**", None: ""}
    return _rows(["Aim", "measured", "reached"], [[aim, found, words[good]] for aim, found, good in aims(records)])


def _times(records: Sequence[Record]) -> str:
    by = {(record["system"], record["clientSize"], record["connections"]): record for record in records}
    names = [name for name in _names(records) if name != BASE]
    connections = sorted({record["connections"] for record in records})
    rows = []
    for size in _sizes(records):
        cells = []
        for name in names:
            pairs = [(by.get((BASE, size, number)), by.get((name, size, number))) for number in connections]
            cells.append(", ".join(f"{a['p50Ms'] / b['p50Ms']:.1f}" if a and b else "-" for a, b in pairs))
        rows.append([f"{size:,} media", *cells])
    head = f"at {', '.join(map(str, connections))} connections"
    return _rows([head, *names], rows)


def _table(records: Sequence[Record], size: int) -> str:
    rows = [
        [
            f"{record['connections']}",
            f"**{record['system']}**" if record["system"] == OURS else record["system"],
            f"{record['recall']:.4f}",
            f"{record['short']:,} of {record['judged']:,}" if record["short"] else "0",
            f"{record['p50Ms']:,.1f}",
            f"{record['p95Ms']:,.1f}",
            f"{record['p99Ms']:,.1f}",
            f"{record['qps']:,.0f}" if record["qps"] >= 10 else f"{record['qps']:.2f}",
            record["plan"] or "",
        ]
        for record in records
        if record["clientSize"] == size
    ]
    return _rows(["connections", "system", f"recall@{LIMIT}", "short", "p50", "p95", "p99", "searches/s", "plan"], rows)


def _databases(run: Run) -> str:
    rows = []
    for one in run["databases"]:
        tables = sum(table["bytes"] for table in one["tables"])
        vectors = sum(index["bytes"] for index in one["vectorIndexes"])
        others = sum(table["indexBytes"] for table in one["tables"]) - vectors
        seconds = ", ".join(f"{what} {value:,.0f}" for what, value in one["seconds"].items())
        sizes = [f"{size / 1e6:,.0f} MB" for size in (tables, others, vectors)]
        rows.append([f"`{one['name']}`", *sizes, f"{len(one['vectorIndexes'])}", seconds])
    return _rows(["database", "tables", "other indexes", "vector indexes", "how many", "seconds"], rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---" if name in ("system", "Aim", "database", "seconds", "plan", "measured") else "---:" for name in head]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _sizes(records: Sequence[Record]) -> list[int]:
    return sorted({record["clientSize"] for record in records})


def _names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["system"] for record in records))


def _clients(size: int) -> str:
    return f"{size:,} media"


def _by_size(pair: tuple[str, int]) -> int:
    return int(pair[0])
