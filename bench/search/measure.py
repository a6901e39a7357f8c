"""Systems take turns: every system, for every class of clients and number of connections."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from bench.search.systems import System, Turn
from bench.search.workload import Query, Workload

Record = dict[str, Any]

LEAST = 20
"""Queries of a cell, however slow they are."""


def measure(
    systems: Sequence[System],
    workload: Workload,
    queries: Mapping[int, list[Query]],
    connections: Sequence[int],
    *,
    seconds: float,
    rounds: int,
) -> list[Record]:
    """A record for each class, number of connections and system. `seconds`: of a cell, in all its rounds."""
    records = []
    for size, asked in queries.items():
        for number in connections:
            turns: dict[str, list[Turn]] = {system.name: [] for system in systems}
            for turn in range(rounds):
                # Another one begins each time, so that a machine that grows warm or busy slows all alike.
                first = turn % len(systems)
                for system in (*systems[first:], *systems[:first]):
                    least = -(-LEAST // rounds)
                    turns[system.name].append(system.measure(asked, number, seconds / rounds, least))
            for system in systems:
                records.append(_record(system.name, size, number, turns[system.name], workload, asked))
                print(_line(records[-1]), file=sys.stderr, flush=True)
    return records


def _record(
    name: str, size: int, connections: int, turns: Sequence[Turn], workload: Workload, queries: Sequence[Query]
) -> Record:
    recalls, short, known = [], 0, dict[tuple[int, tuple[int, ...]], tuple[float, bool]]()
    for turn in turns:
        for number, rows in turn.answers:
            key = number, tuple(rows)
            if key not in known:
                known[key] = workload.judge(queries[number], rows)
            recalls.append(known[key][0])
            short += known[key][1]

    def middle(share: int) -> float:
        return round(median(float(np.percentile(turn.milliseconds, share)) for turn in turns), 3)

    return {
        "system": name,
        "clientSize": size,
        "connections": connections,
        "recall": round(float(np.mean(recalls)), 5),
        "short": short,
        "p50Ms": middle(50),
        "p95Ms": middle(95),
        "p99Ms": middle(99),
        "qps": round(median(len(turn.milliseconds) / turn.seconds for turn in turns), 2),
        "queries": sum(len(turn.milliseconds) for turn in turns),
        "judged": len(recalls),
        "plan": turns[0].plan,
        "rows": workload.rows,
    }


def _line(record: Record) -> str:
    return (
        f"{record['clientSize']:>7,} media, {record['connections']:>2} connections: {record['system']:14} "
        f"recall {record['recall']:.3f}, {record['short']} short, p50 {record['p50Ms']:.1f}, "
        f"p95 {record['p95Ms']:.1f}, p99 {record['p99Ms']:.1f} ms, {record['qps']:.0f}/s {record['plan'] or ''}"
    )
