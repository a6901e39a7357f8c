"""A load test as one HTML page that opens anywhere: verdicts, plots over the offered load, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench import machine
from bench.load import plots
from bench.load.figures import KEEPS_UP, NEARLY_BEST, PERCENTILES, SLOWER, STAGES
from bench.load.plots import Line

PARTS = (*(stage for stage in STAGES if stage != "total"), "server", "outside", "other")
"""Where an answer's time may have gone, in the order that bars show it."""

_OUTCOMES = ("answered", "refused", "failed")


def render(result: Mapping[str, Any]) -> str:
    """The page of what `python -m bench load` measured, its objectives judged."""
    load, steps = result["load"], sorted(result["steps"], key=lambda step: float(step["load"]))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = lambda value: (
        "–" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    )
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.1%}"
    return environment.get_template("report.html").render(
        result=result,
        load=load,
        steps=steps,
        facts=_facts(result),
        open=load["mode"] == "open",
        verdict=_verdict(result, steps),
        matrix=_matrix(result),
        head=_head(result, steps),
        throughput=_throughput(result, steps) if len(steps) > 1 else None,
        latency=_latency(result, steps) if len(steps) > 1 else None,
        outcomes=_outcomes(steps) if any(step["refused"] or step["failed"] for step in steps) else None,
        spent=[(name, _spent(name, steps)) for name in _rows(steps)],
        parts=[part for part in PARTS if any(part in row["parts"] for step in steps for row in step["rows"].values())],
        stages=STAGES,
        percentiles=[f"p{share}" for share in PERCENTILES],
        definitions={"keeps_up": KEEPS_UP, "slower": SLOWER, "nearly_best": NEARLY_BEST},
    )


def _rows(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows that have parts to show, in all loads together."""
    return sorted({name for step in steps for name, row in step["rows"].items() if row["parts"]})


def _verdict(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """`good`, `bad` or `none`, and a sentence."""
    objectives = result["objectives"]
    if not objectives:
        return "none", "No objective was set."
    all_of_them = "The objective" if len({one["objective"] for one in objectives}) == 1 else "Every objective"
    missed = {one["load"] for one in objectives if one["met"] is False}
    unknown = {one["load"] for one in objectives if one["met"] is None} - missed
    met = [step["label"] for step in steps if step["load"] not in missed | unknown]
    if missed:
        first = next(step for step in steps if step["load"] in missed)
        which = sorted({one["objective"] for one in objectives if one["met"] is False})
        below = [step["label"] for step in steps if step["load"] < first["load"] and step["label"] in met]
        begin = f"{all_of_them} was met at {below[-1]}; missed" if below else "Missed"
        return "bad", f"{begin} at {first['label']}: {', '.join(which)}."
    if unknown:
        first = next(step for step in steps if step["load"] in unknown)
        return "none", f"At {first['label']} there was too little to judge every objective by."
    return "good", f"{all_of_them} was met{f' up to {met[-1]}, the heaviest load' if len(steps) > 1 else ''}."


def _matrix(result: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Each objective with its verdicts, the loads in their order."""
    names = dict.fromkeys(one["objective"] for one in result["objectives"])
    ordered = sorted(result["objectives"], key=lambda one: float(one["load"]))
    return [(name, [one for one in ordered if one["objective"] == name]) for name in names]


def _head(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The few figures that a reader takes away: a value and what it is."""
    bend = result["bend"]
    best = max(steps, key=lambda step: float(step["throughput"]))
    kept = bend and bend["below"]
    at = next((step for step in steps if step["load"] == kept), steps[0])
    due, wrong = (sum(step[name] for step in steps) for name in ("due", "failed"))
    head = []
    if kept is not None and result["load"]["mode"] == "open":
        head.append((f"{kept:g}/s", "kept up with"))
    head.append((f"{best['throughput']:.1f}/s", f"answered at most, at {best['label']}"))
    times = {name: at["latency"][name] for name in ("p50", "p95") if at["latency"][name] is not None}
    head += [(f"{time:,.0f} ms", f"{name} at {at['label']}") for name, time in times.items()]
    refused = sum(step["refused"] for step in steps) / due
    return [*head, (f"{refused:.1%}", "refused, of all loads"), (f"{wrong / due:.1%}", "failed, of all loads")]


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    found, artifact, server, load = result["machine"], result["artifact"], result["server"], result["load"]
    whose = "its own, started for this, with the demo catalogue" if server["own"] else server["host"]
    where = "machine" if server["loopback"] else "machine of the load generator"
    sent = load["pictures"]
    mix = ", ".join(f"{kind} {share}" for kind, share in load["mix"].items())
    repeated = (
        f"repeated by Zipf’s law with exponent {load['zipf']:g}" if load["zipf"] else "each as often as any other"
    )
    facts = [
        ("model", f"{artifact['model']}, {artifact['precision']} on {artifact['device']}"),
        ("space", artifact["space"]),
        ("server", whose + (f", with {' '.join(server['flags'])}" if server["flags"] else "")),
        (where, f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB"),
        ("versions", machine.versions(found)),
        ("requests", f"{mix}" + (" (the model reads no words)" if load["withoutWords"] else "")),
        ("pictures", f"{load['distinct']:,} different ones, {repeated}, {sent['meanBytes'] / 1000:,.0f} kB on average"),
        ("of the searches", f"{load['demoShare']:.0%} with a picture of the demo catalogue; {load['limit']} matches"),
        ("each load", f"{load['seconds']:g} s, after a warm-up of {load['warmUp']:g} s"),
        ("started", result["started"]),
        ("command", result["command"]),
    ]
    return [*facts, ("Twinlens", server["twinlens"])] if server["twinlens"] else facts


# --- plots -----------------------------------------------------------------------------------------------------------


def _over(result: Mapping[str, Any]) -> str:
    return "requests a second, offered" if result["load"]["mode"] == "open" else "callers"


def _bend(result: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    found = result["bend"]
    return (found["below"], found["above"]) if found and found["above"] is not None else None


def _throughput(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Any:
    loads = [step["load"] for step in steps]
    drawn = [Line("right", "answered", [step["throughput"] for step in steps])]
    if result["load"]["mode"] == "open":
        drawn.insert(0, Line("offered", "offered", loads))
    values = ", ".join(f"{step['throughput']:.1f} at {step['load']:g}" for step in steps)
    return plots.lines(
        loads, drawn, label=f"Right answers a second: {values}", across=_over(result), unit="per s", bend=_bend(result)
    )


def _latency(result: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Any:
    drawn = [
        Line(f"p{share}", f"p{share}", [step["latency"][f"p{share}"] for step in steps])
        for share in reversed(PERCENTILES)
    ]
    # The objective that is drawn is the first that bounds a percentile of all requests.
    bound = next(
        (one for one in result["objectives"] if one["objective"].startswith("p") and one.get("bound") is not None), None
    )
    values = ", ".join(f"{step['latency']['p50'] or 0:.0f} at {step['load']:g}" for step in steps)
    return plots.lines(
        [step["load"] for step in steps],
        drawn,
        label=f"Milliseconds to a right answer, median: {values}",
        across=_over(result),
        unit="ms",
        logarithmic=True,
        bend=_bend(result),
        bound=bound["bound"] if bound else None,
        bound_name=bound["objective"] if bound else "",
    )


def _outcomes(steps: Sequence[Mapping[str, Any]]) -> Any:
    rows = [
        (f"{step['label']}", {one: 100 * step[one] / step["due"] for one in _OUTCOMES if step[one]}) for step in steps
    ]
    counts = [f"of {step['due']:,}" for step in steps]
    return plots.bars(rows, label="Answered, refused and failed, in per cent of each load", unit="%", values=counts)


def _spent(name: str, steps: Sequence[Mapping[str, Any]]) -> Any:
    """Shares of the total, or one load beyond the bend would leave nothing to see of the others."""
    rows, totals = [], []
    for step in steps:
        parts = (step["rows"].get(name) or {}).get("parts")
        if parts:
            total = sum(parts.values())
            rows.append((f"{step['label']}", {one: 100 * parts[one] / total for one in PARTS if one in parts}))
            totals.append(f"{total:,.0f} ms")
    return plots.bars(rows, label=f"Where the time of {name} goes, in per cent", unit="%", values=totals)
