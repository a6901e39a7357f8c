"""docs/benchmarks.md and its plot, from the figures of a run: every number in them comes from the JSON."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine
from bench.pictures import ROOT

Report = Mapping[str, Any]
System = Mapping[str, Any]

_OURS = "twinlens"
_BASES = ("older", "litserve")
_PAGE = "benchmarks.md"
_PLOT = "benchmarks.svg"
_LEAST_COSINE = 0.999


def write(report: Report, folder: Path, source: Path | None) -> None:
    """Write both files into the folder; `source` is the report's file, named in the page if it is in the repository."""
    (folder / _PLOT).write_text(plot(report))
    (folder / _PAGE).write_text(page(report, source))


# --- the page --------------------------------------------------------------------------------------------------------


def page(report: Report, source: Path | None = None) -> str:
    """The document, in Markdown."""
    found = report["machine"]
    rounds = "1 round" if report["rounds"] == 1 else f"{report['rounds']} rounds"
    kept = ""
    if source is not None and source.resolve().is_relative_to(ROOT):
        inside = source.resolve().relative_to(ROOT).as_posix()
        kept = f" Every round of it is in [`{inside}`](../{inside})."
    parts = [
        "# Twinlens beside others",
        "<!-- Written by `python -m bench peers --write-docs`: edit bench/peers/document.py instead. -->",
        "How many pictures a second become vectors over HTTP, by Twinlens and by what one would otherwise use or "
        "write: on one machine, in one run, with identical weights and identical pictures.",
        f"![Pictures a second of each system under each load, as in the first table]({_PLOT})",
        f"**Machine:** {found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB; "
        f"{machine.versions(found)}. "
        f"**Run:** {report['started'][:10]}, `{report['command']}`: {rounds} of "
        f"{report['seconds']:g} s for each figure.{kept}",
        "## Pictures a second",
        "Median of the rounds, with the lowest and the highest in brackets.",
        paces(report),
        _left_out(report),
        _cached(report),
        "## How long one waits",
        "p50 and p95 in milliseconds, medians of the rounds. A closed loop: with 32 callers most of it is waiting for "
        "the other 31.",
        _table(report, _waits, bare=False),
        "## As ratios",
        "Divided by the older service's and by LitServe's figures of the same round: the median over the rounds.",
        _table(report, _ratios(report)),
        "## Against what we aimed at",
        "The aims come from a machine of two cores with AVX2 and without VNNI. On another one the ratios say more than "
        "the absolute figures.",
        _aims(report),
        "## Where somebody else is better",
        _better(report),
        "## Are they the same vectors?",
        f"Speed of wrong answers means nothing, so what comes back in the measured seconds is compared with the "
        f"vectors that transformers and torch give for the same bytes. *Lowest cosine*: the worst picture's; fp32 "
        f"should be above {_LEAST_COSINE}. *Own first*: how many pictures came back nearest to their own reference, "
        f"among all of that size. (Large JPEGs are decoded at a scale by Twinlens and by `draft`: the same picture, "
        f"but not the same pixels, as torch's in full.)",
        _likeness(report),
        "## What they cost",
        "Cores busy at 8 callers on 640 x 480: the server's processes, and the load generator beside them on the same "
        "cores. *Idle*: cores busy when nobody asks, measured for two seconds after the first answers.",
        _costs(report),
        "## What was measured",
        _systems(report),
        f"**Weights.** {_weights(report)}",
        f"**Pictures.** {_pictures(report)} All systems get the same bytes; only the row that says so caches vectors.",
        "**Load.** Callers on loopback, each with a connection of its own, that ask again as soon as they are "
        "answered. A second of settling is cut off before each measurement. A round in which any answer is not a 200 "
        "counts as failed.",
        "**Fairness.** All servers are started first and asked once. Then they take turns, and another begins each "
        "round. While one is measured, all processes of the others are stopped (SIGSTOP), because some poll or spin "
        "when nobody asks them. Each may use all cores.",
        "## What the figures do not say",
        "- They are of this machine. On more cores, with VNNI or on a GPU the order may be another one.\n"
        "- The load generator runs on the same cores as the servers, and there is no network between them.\n"
        "- Random weights are as quick as trained ones, but say nothing of how good a model's vectors are, nor of what "
        "int8 costs a trained model: [releasing a model](export.md) has that.\n"
        "- A fixed crowd slows down with the server. How long people wait at a given rate is measured by "
        "`python -m bench load`.\n"
        "- The older service and the LitServe application were written by us: the first from a description, the second "
        "as well as we could. Both are short; read them in `bench/peers/` and improve them.\n"
        "- transformers prepares pictures with its slower processor here, because the quicker one needs torchvision, "
        "whose published build does not go with the CPU build of torch. That concerns the older service and infinity: "
        "some milliseconds for each picture.",
        "## Do it again",
        "    make test  # once: installs what is needed\n"
        "    .venv/bin/python -m bench peers --json bench/results/peers-mine.json\n"
        "    .venv/bin/python -m bench peers --read bench/results/peers-mine.json --write-docs",
        "The first run makes an environment for each of the others in `.bench/`, a ViT-B/32 of random weights and its "
        "artifact: about ten minutes and 5 GB, and then some seven minutes for each round. `--checkpoint FOLDER` takes "
        "a CLIP of yours instead. Leave the machine alone meanwhile.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def paces(report: Report) -> str:
    """The first table: pictures a second."""
    return _table(report, _pace)


Cell = Callable[[System, Mapping[str, Any]], str]


def _table(report: Report, cell: Cell, *, bare: bool = True) -> str:
    """A row for each system that was measured under the main loads, a column for each load."""
    loads = [load for load in report["loads"] if load["name"] != "repeated"]
    rows = []
    for system in _measured(report):
        if not bare and system["name"].startswith("bare"):
            continue
        cells = [cell(system, load) for load in loads]
        if any(text != "" for text in cells):
            rows.append([_title(system), *cells])
    return _rows(["", *(load["title"] for load in loads)], rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _measured(report: Report) -> list[System]:
    return [system for system in report["systems"] if not system["why"]]


def _title(system: System) -> str:
    title: str = system["title"]
    return f"**{title}**" if system["name"].startswith(_OURS) else title


def _figure(system: System, load: str, name: str) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = system["figures"].get(load, {}).get(name)
    return found


def _of(report: Report, name: str, load: str, figure: str = "picturesPerSecond") -> float | None:
    """A median, if it was measured."""
    for system in report["systems"]:
        if system["name"] == name and (found := _figure(system, load, figure)):
            return found["median"]
    return None


def _pace(system: System, load: Mapping[str, Any]) -> str:
    found = system["figures"].get(load["name"])
    if found is None:
        return ""
    if "picturesPerSecond" not in found:
        return f"failed: {found['error'][:80]}"
    pace = found["picturesPerSecond"]
    text = f"{pace['median']:.1f} ({pace['min']:.1f} to {pace['max']:.1f})"
    if found["failedRounds"]:
        text += f"; {found['failedRounds']} of {len(found['rounds'])} rounds failed"
    return text


def _waits(system: System, load: Mapping[str, Any]) -> str:
    p50, p95 = (_figure(system, load["name"], name) for name in ("p50", "p95"))
    return f"{p50['median']:,.0f}, {p95['median']:,.0f}" if p50 and p95 else ""


def _ratios(report: Report) -> Cell:
    def cell(system: System, load: Mapping[str, Any]) -> str:
        found = [_ratio(report, system["name"], base, load["name"]) for base in _BASES]
        return ", ".join("-" if one is None else f"{one:.2f}" for one in found) if any(found) else ""

    return cell


def _ratio(report: Report, name: str, base: str, load: str) -> float | None:
    """Median of the ratios of rounds: what disturbed a round is in both of its figures."""
    by_name = {system["name"]: system["figures"].get(load, {}).get("rounds", []) for system in report["systems"]}
    pairs = zip(by_name.get(name, []), by_name.get(base, []), strict=False)
    ratios = [
        one["picturesPerSecond"] / other["picturesPerSecond"]
        for one, other in pairs
        if "error" not in one and "error" not in other
    ]
    return median(ratios) if ratios else None


def _left_out(report: Report) -> str:
    lines = [f"- **{one['title']}** is left out: {one['why']}" for one in report["systems"] if one["why"]]
    return "\n".join(lines)


def _cached(report: Report) -> str:
    pace, p50, p95 = (_of(report, "twinlens-cached", "repeated", name) for name in ("picturesPerSecond", "p50", "p95"))
    if pace is None:
        return ""
    return (
        f"A picture that Twinlens has seen before needs no model: {pace:,.0f} answers/s to 8 callers (p50 "
        f"{p50:.1f} ms, p95 {p95:.1f} ms), all for one picture of 640 x 480 that comes from its cache. "
        f"The others have none."
    )


def _aims(report: Report) -> str:
    def text(aim: str, found: float | None, bound: float, unit: str, *, most: bool = False) -> list[str]:
        if found is None:
            return [aim, "not measured", ""]
        reached = found <= bound if most else found >= bound
        return [aim, f"{found:,.2f}{unit}" if bound < 10 else f"{found:,.1f}{unit}", "yes" if reached else "**no**"]

    rows = []
    for load, callers in (("small-8", 8), ("small-32", 32)):
        pace = _of(report, "twinlens-int8", load)
        rows.append(text(f"int8, {callers} callers: 28 pictures/s", pace, 28, ""))
        rows.append(text("... 4 times the older service", _ratio(report, "twinlens-int8", "older", load), 4, ""))
        rows.append(text("... 1.9 times LitServe", _ratio(report, "twinlens-int8", "litserve", load), 1.9, ""))
    rows.append(text("int8, 12 megapixels: 20 pictures/s", _of(report, "twinlens-int8", "large-8"), 20, ""))
    rows.append(text("... 6 times LitServe", _ratio(report, "twinlens-int8", "litserve", "large-8"), 6, ""))
    for load, callers in (("small-8", 8), ("small-32", 32)):
        ratio = _ratio(report, "twinlens-fp32", "bare-fp32", load)
        rows.append(text(f"fp32, {callers} callers: 0.90 of bare ONNX Runtime", ratio, 0.9, ""))
    p50 = _of(report, "twinlens-int8", "small-1", "p50")
    rows.append(text("int8, 1 caller: p50 of 50 ms at most", p50, 50, " ms", most=True))
    cached = _of(report, "twinlens-cached", "repeated")
    rows.append(text("a picture that was seen before: 1,500 answers/s", cached, 1500, ""))
    return _rows(["Aim", "measured", "reached"], rows)


def _better(report: Report) -> str:
    found = list(_ahead(report))
    return "\n".join(f"- {one}" for one in found) if found else "Nowhere in this run."


def _ahead(report: Report) -> Iterator[str]:
    """Where another server is ahead of Twinlens: in pace, in waiting, or in what it costs when idle."""
    ours = [one for one in _measured(report) if one["name"] in ("twinlens-fp32", "twinlens-int8")]
    others = [one for one in _measured(report) if not one["name"].startswith((_OURS, "bare"))]
    for load in report["loads"]:
        for mine in ours:
            for other in others:
                for figure, unit, sign in (("picturesPerSecond", "pictures/s", 1), ("p50", "ms (p50)", -1)):
                    a, b = _figure(mine, load["name"], figure), _figure(other, load["name"], figure)
                    if a and b and (b["median"] - a["median"]) * sign > 0:
                        yield (
                            f"{load['title']}: {other['title']} {b['median']:.1f} {unit}, "
                            f"{mine['title']} {a['median']:.1f}."
                        )
    for mine in ours:
        for other in others:
            a, b = mine["idleCores"], other["idleCores"]
            if a is not None and b is not None and a - b > 0.01:  # a hundredth of a core is the clock's step
                yield f"Idle: {other['title']} {b:.2f} cores, {mine['title']} {a:.2f}."


def _likeness(report: Report) -> str:
    rows = []
    for system in _measured(report):
        cells = []
        for size in ("small", "large"):
            found = system["likeness"].get(size)
            cells += [f"{found['minCosine']:.6f}", f"{found['ownFirst']} of {found['pictures']}"] if found else ["", ""]
        if any(cells):
            rows.append([_title(system), *cells])
    head = ["", "640 x 480: lowest cosine", "own first", "12 megapixels: lowest cosine", "own first"]
    return _rows(head, rows)


def _costs(report: Report) -> str:
    rows = []
    cores = report["machine"]["cores"]
    for system in _measured(report):
        if system["name"].startswith("bare"):
            continue
        load = "repeated" if "repeated" in system["figures"] else "small-8"
        server, generator = (_figure(system, load, name) for name in ("serverCores", "generatorCpu"))
        if server is None or generator is None:
            continue
        pace = _figure(system, load, "picturesPerSecond")
        each = f"{1000 * server['median'] / pace['median']:,.1f}" if pace else ""
        idle = "" if system["idleCores"] is None else f"{system['idleCores']:.2f}"
        rows.append([_title(system), f"{server['median']:.2f}", each, f"{generator['median'] * cores:.3f}", idle])
    return _rows(["", "server, cores", "core-ms a picture", "load generator, cores", "idle, cores"], rows)


def _systems(report: Report) -> str:
    rows = []
    for one in report["systems"]:
        installed = f" (`{' '.join(one['installed'])}`)" if one["installed"] else ""
        rows.append(f"- **{one['title']}**: {one['about']}{installed}")
    return "\n".join(rows)


def _weights(report: Report) -> str:
    artifact = report["artifact"]
    made = "a CLIP ViT-B/32 of random weights" if report["random"] else "the checkpoint that was given"
    return (
        f"`{artifact['name']}`: {made}, as a folder in Hugging Face format for those that run torch, and as the "
        f"artifact that `python -m export` makes of it for the others."
    )


def _pictures(report: Report) -> str:
    small, large = (report["pictures"].get(size) for size in ("small", "large"))
    sentences = []
    if small:
        sentences.append(
            f"{small['count']} distinct JPEGs of 640 x 480 ({small['meanBytes'] / 1000:.0f} kB each), cut from the "
            f"photographs in `export/pictures`."
        )
    if large:
        sentences.append(
            f"{large['count']} distinct JPEGs of 4000 x 3000 ({large['meanBytes'] / 1e6:.1f} MB each), enlarged from "
            f"the same photographs and given a grain."
        )
    return " ".join(sentences)


# --- the plot --------------------------------------------------------------------------------------------------------

_WIDTH, _LABELS, _VALUES = 860, 240, 76
_BAR, _STEP, _HEAD, _BETWEEN, _EDGE = 15, 21, 26, 16, 18

# A background of its own: the page around it may be light where the reader's system is dark.
_STYLE = """
  .ground { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #24292f } .head { font-weight: 600 }
  .peer { fill: #9aa4af } .ours { fill: #0b6bcb } .bare { fill: none; stroke: #57606a; stroke-dasharray: 4 3 }
  .range { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .peer { fill: #6e7781 } .ours { fill: #4ea1f7 }
    .bare { stroke: #9aa4af } .range { stroke: #e6edf3 }
  }
"""


def plot(report: Report) -> str:
    """A group of bars for each load, with a line from the lowest to the highest round at the end of each, as SVG."""
    parts: list[str] = []
    top = float(_EDGE)
    for load in report["loads"]:
        rows = [
            (system, pace)
            for system in _measured(report)
            if load["name"] != "repeated" and (pace := _figure(system, load["name"], "picturesPerSecond"))
        ]
        if not rows:
            continue
        parts.append(f'<text class="head" x="{_EDGE}" y="{top + 13:g}">{html.escape(load["title"])}, pictures/s</text>')
        top += _HEAD
        scale = (_WIDTH - _LABELS - _VALUES - _EDGE) / max(pace["max"] for _, pace in rows)
        for system, pace in rows:
            parts += _bar(system, pace, top, scale)
            top += _STEP
        top += _BETWEEN
    height = top - _BETWEEN + _EDGE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" role="img" '
            f'aria-label="Pictures a second of each system under each load">',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" width="{_WIDTH}" height="{height:g}" rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _bar(system: System, pace: Mapping[str, float], top: float, scale: float) -> list[str]:
    kind = next(
        (kind for start, kind in ((_OURS, "ours"), ("bare", "bare")) if system["name"].startswith(start)), "peer"
    )
    low, middle, high = (_LABELS + pace[name] * scale for name in ("min", "median", "max"))
    line = top + _BAR / 2
    title = html.escape(system["title"].replace("`", ""))
    return [
        f'<text x="{_LABELS - 8}" y="{top + 12:g}" text-anchor="end">{title}</text>',
        f'<rect class="{kind}" x="{_LABELS}" y="{top:g}" width="{middle - _LABELS:.1f}" height="{_BAR}"/>',
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{line:g}" y2="{line:g}"/>',
        f'<text x="{high + 7:.1f}" y="{top + 12:g}">{pace["median"]:.1f}</text>',
    ]
