"""python -m bench load: how a server does under load, at a steady pace or with a crowd, and whether that is enough.

Without --host it starts a server of its own, with the demo catalogue. Each load is a run of `locustfile.py` in a
process of its own; what comes back is printed, judged by the objectives, and written as JSON and as one HTML page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import machine
from bench.load import figures, objectives, report, traffic
from bench.load.objectives import CannotJudge, Objective
from bench.load.traffic import KEY_VARIABLE
from bench.pictures import ROOT
from bench.serving import serving

_OWN_MIX = f"{traffic.DEFAULT_MIX},ingest=1"
_STANDARD = (5.0, 10.0, 20.0, 40.0, 80.0)
_MOST_LOADS = 20
# Seconds beside what is measured: the start, the last answers, and taking out what was put in.
_MARGIN = 180.0


class CannotMeasure(Exception):
    """A run came to nothing; the reason is in the message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 0 when every objective was met, 1 when one was missed, 2 when it cannot be judged."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = _parser().parse_args(given)
    try:
        if refusal := _refused(asked):
            raise CannotMeasure(refusal)
        loads, wanted = _loads(asked), [objectives.read(text) for text in asked.slo]
        with _stopped_in_order():
            result = measure(asked, loads, command=_command(given))
        result["objectives"], code = _judged(wanted, result["steps"])
    except (CannotMeasure, ValueError, OSError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    for path, content in ((asked.json, json.dumps(result, indent=2) + "\n"), (asked.html, report.render(result))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            print(f"written: {path}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench load", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--host", default="", help="server to load, such as http://127.0.0.1:8000; else one of its own")
    parser.add_argument("--allow-remote", action="store_true", help="load a server that is not on this machine")
    parser.add_argument("--key", default="", help=f"API key (better: the variable {KEY_VARIABLE})")
    how = parser.add_argument_group("how much")
    how.add_argument(
        "--rps", metavar="N,...", default="", help="requests a second, one load after the other: open loop"
    )
    how.add_argument("--callers", metavar="N,...", default="", help="callers that ask again when answered: closed loop")
    how.add_argument("--seconds", type=traffic.read_seconds, default=10.0, help="time of each load that counts (10s)")
    how.add_argument("--warm-up", type=traffic.read_seconds, default=3.0, help="time before it that does not (3s)")
    traffic.add_options(parser.add_argument_group("what"))
    own = parser.add_argument_group("a server of its own")
    own.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    own.add_argument("--precision", default="fp32", help="variant to run (fp32)")
    own.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="device to run on (cpu)")
    own.add_argument("--server", metavar="FLAGS", default="", help="more flags of its, such as '--cache 0'")
    out = parser.add_argument_group("what comes of it")
    out.add_argument("--slo", metavar="WHAT=BOUND", action="append", default=[], help="objective, such as p95=200ms")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    out.add_argument("--html", type=Path, metavar="FILE", help="write a report here, one file")
    return parser


def _refused(asked: argparse.Namespace) -> str | None:
    if not asked.mix:
        asked.mix = traffic.DEFAULT_MIX if asked.host else _OWN_MIX
    if refusal := traffic.refused(asked):
        return refusal
    if asked.host and (refusal := traffic.refused_host(asked.host, asked.allow_remote)):
        return refusal
    if asked.host and asked.server:
        return "--server is for a server of its own; --host names one that runs already"
    if asked.seconds < 1:
        return "--seconds takes 1s and more: less is too short to measure"
    return None


def _loads(asked: argparse.Namespace) -> tuple[str, list[float]]:
    """The mode, and its loads in ascending order. Raises ValueError with a sentence."""
    if asked.rps and asked.callers:
        raise ValueError("--rps and --callers are two ways of loading; take one of them")
    if asked.callers:
        return "closed", [float(one) for one in _numbers("--callers", asked.callers, "[0-9]{1,4}")]
    if asked.rps:
        return "open", _numbers("--rps", asked.rps, r"[0-9]{1,5}(?:\.[0-9]{1,3})?")
    return "open", list(_STANDARD)


def _numbers(option: str, text: str, form: str) -> list[float]:
    parts = [one.strip() for one in text.split(",")]
    if not all(re.fullmatch(form, one) and float(one) > 0 for one in parts):
        raise ValueError(f"{option} takes numbers above 0, such as {option} 5,10,20, not {text!r}")
    if len(set(map(float, parts))) < len(parts) or len(parts) > _MOST_LOADS:
        raise ValueError(f"{option} takes at most {_MOST_LOADS} loads, each once")
    return sorted(map(float, parts))


def _command(given: Sequence[str]) -> str:
    """The command line as it may be written down: without the key."""
    shown, hide = [], False
    for one in given:
        name = one.partition("=")[0]
        secret = len(name) > 3 and "--key".startswith(name)  # argparse takes --ke for --key, too
        shown.append("..." if hide else f"{name}=..." if secret and "=" in one else one)
        hide = secret and "=" not in one
    return shlex.join(["python", "-m", "bench", "load", *shown])


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(asked: argparse.Namespace, loads: tuple[str, list[float]], *, command: str) -> dict[str, Any]:
    """Everything but the verdicts. Raises CannotMeasure, RuntimeError for a server that does not start."""
    mode, numbers = loads
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    print(machine.sentence())
    with _server(asked) as (host, pid):
        steps, run = [], dict[str, Any]()
        for number in numbers:
            run = _step(asked, mode, number, host, pid)
            steps.append(
                {
                    "load": number,
                    "label": figures.label(number, mode),
                    **{name: run[name] for name in run if name in _OF_A_STEP},
                }
            )
            print(_line(steps[-1]), flush=True)
    served = run["served"]
    bend = figures.bend(steps, mode)
    if bend is not None:
        print(bend.sentence)
    return {
        "machine": machine.describe(),
        "command": command,
        "artifact": {
            # A server that runs already does not say what its folder is called.
            "name": asked.model.resolve().name if not asked.host else None,
            **{name: served[name] for name in ("model", "precision", "device", "space")},
        },
        "started": started,
        "server": {
            "own": not asked.host,
            "host": asked.host or None,
            "flags": shlex.split(asked.server),
            "loopback": traffic.is_loopback(urlsplit(host).hostname or ""),
            "twinlens": _version() if not asked.host else None,
        },
        "load": {
            "mode": mode,
            "loads": numbers,
            "seconds": asked.seconds,
            "warmUp": asked.warm_up,
            "mix": run["mix"],
            "withoutWords": "words" in traffic.read_mix(asked.mix) and "words" not in run["mix"],
            **run["traffic"],
        },
        "steps": steps,
        "bend": asdict(bend) if bend is not None else None,
    }


_OF_A_STEP = (
    *("seconds", "due", "answered", "refused", "failed", "throughput", "latency", "cached", "stages", "parts"),
    *("rows", "reasons", "generator", "server", "leftBehind"),
)


@contextlib.contextmanager
def _server(asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The address of the server, and its process if it is ours, else 0."""
    if asked.host:
        print(f"loading {asked.host}")
        yield asked.host.rstrip("/"), 0
        return
    flags = shlex.split(asked.server)
    with serving(asked.model, asked.precision, asked.device, arguments=flags, demo=True) as server:
        print(f"loading a server of its own with {asked.model}, on port {server.port}")
        yield server.url, server.pid


def _step(asked: argparse.Namespace, mode: str, number: float, host: str, pid: int) -> dict[str, Any]:
    """One load: locust in a process of its own, since it changes sockets wherever it is imported."""
    length = ceil(asked.seconds + asked.warm_up)
    with tempfile.TemporaryDirectory(prefix="twinlens-load-") as folder:
        written, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "locustfile.py"), "--headless"]
        command += ["--only-summary", "--loglevel", "WARNING", "--host", host, "-t", f"{length}s"]
        command += ["--warm-up", f"{length - asked.seconds}s", "--write", str(written), "--server-pid", str(pid)]
        if mode == "open":
            command += ["--rps", f"{number:g}"]
        else:
            command += ["-u", f"{number:.0f}", "-r", f"{number:.0f}"]
        command += ["--allow-remote"] if asked.allow_remote else []
        # The key stays out of the command line, which other users of the machine can read; locust's own variables
        # would change what is measured.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
        if asked.key:
            variables[KEY_VARIABLE] = asked.key
        with log.open("wb") as out:
            locust = subprocess.Popen(  # noqa: S603 - our own load test
                [*command, *traffic.arguments_of(asked)], cwd=ROOT, env=variables, stdout=out, stderr=out
            )
            try:
                locust.wait(length + _MARGIN)
            except BaseException as exc:
                locust.terminate()  # it takes out what it put in before it ends
                locust.wait(_MARGIN)
                print(*(line for line in log.read_text(errors="replace").splitlines() if "taken out" in line), sep="\n")
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise CannotMeasure(f"the load of {number:g} did not come to an end") from exc
                raise
        if not written.is_file():
            raise CannotMeasure(_reason(log.read_text(errors="replace")))
        figures_of_step: dict[str, Any] = json.loads(written.read_text())
    if not figures_of_step["due"]:
        raise CannotMeasure(f"at a load of {number:g} nothing was sent; --seconds makes it longer")
    return figures_of_step


def _reason(log: str) -> str:
    """Why locust stopped: our own sentence if there is one, else the end of what it wrote."""
    ours = [line.removeprefix("bench: ") for line in log.splitlines() if line.startswith("bench: ")]
    return ours[-1] if ours else f"the load test stopped:\n{log[-2000:]}"


def _line(step: Mapping[str, Any]) -> str:
    latency = ", ".join(
        f"{name} {'-' if step['latency'][name] is None else format(step['latency'][name], '.0f')}"
        for name in ("p50", "p95", "p99")
    )
    line = f"{step['label']}: {step['throughput']:.1f}/s answered; {latency} ms"
    for outcome in ("refused", "failed"):
        line += f"; {step[outcome]} {outcome}" if step[outcome] else ""
    if step["server"]:
        line += f"; server {step['server']['cores']:.2f} cores"
    line += f"; load generator {step['generator']['ofOneCore']:.0%} of one"
    reasons = [f"    {count} x {reason}" for reason, count in step["reasons"].items()]
    warnings = [f"    warning: {one}" for one in step["generator"]["warnings"]]
    left = [f"    warning: could not be taken out: product {one}" for one in step["leftBehind"]]
    return "\n".join([line, *reasons, *warnings, *left])


def _version() -> str:
    """Ours, and the commit where it is known."""
    version = metadata.version("twinlens")
    with contextlib.suppress(OSError):
        git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)  # noqa: S603 - no more than a look
        if found.returncode == 0:
            return f"{version} ({found.stdout.strip()})"
    return version


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the server and the load test are stopped as well."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- judging ---------------------------------------------------------------------------------------------------------


def _judged(wanted: Sequence[Objective], steps: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Every objective at every load, and the exit code: a server must meet them at all loads.

    Wrong answers count as a miss as long as no objective says how many may be.
    """
    verdicts: list[dict[str, Any]] = []
    for step in steps:
        for objective in wanted:
            verdict: dict[str, Any]
            try:
                judged = objectives.judge(objective, step)
                verdict = {**asdict(judged), "sentence": judged.sentence}
            except CannotJudge as exc:
                verdict = {"objective": objective.text, "met": None, "sentence": str(exc)}
            print(f"at {step['label']}: {verdict['sentence']}")
            verdicts.append({"load": step["load"], "label": step["label"], **verdict})
    mets = [one["met"] for one in verdicts]
    wrong = any(step["failed"] for step in steps) and not any(one.bounds_failures for one in wanted)
    if False in mets or wrong or any(step["leftBehind"] for step in steps):
        return verdicts, 1
    return verdicts, 2 if None in mets else 0
