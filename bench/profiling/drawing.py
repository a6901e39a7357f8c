"""What the profile found, as lines of text and as one SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.profiling import stacked
from bench.profiling.shares import SHARES, STAGES

_STAGES = (
    stacked.Part("read", "reading the body", "c6"),
    stacked.Part("decode", "decoding", "c2"),
    stacked.Part("resize", "resizing", "c3"),
    stacked.Part("queue", "waiting for the model", "wait"),
    stacked.Part("encode", "the model", "c1"),
    stacked.Part("search", "SQL", "c4"),
    stacked.Part("server", "the rest of the server", "c5"),
    stacked.Part("http", "HTTP and the caller", "c7"),
)

_SHARES = (
    stacked.Part("encode", "the model", "c1"),
    stacked.Part("decode", "decoding and resizing", "c2"),
    stacked.Part("event loop", "event loop", "c5"),
    stacked.Part("http threads", "HTTP server's threads", "c7"),
    stacked.Part("other threads", "other threads", "c6"),
    stacked.Part("parent", "parent process", "wait"),
    stacked.Part("postgres", "PostgreSQL", "c4"),
)


def table(report: Mapping[str, Any]) -> Iterator[str]:
    """The figures as lines of text."""
    bare = report["bare"]
    yield (
        f"the model alone, batches of {bare['batch']}: {bare['picturesPerSecond']:.1f} pictures/s, "
        f"{bare['coreMilliseconds']:.1f} core-ms a picture"
    )
    yield ""
    yield from _rows(
        "milliseconds of a request",
        ["a second", "p50", "p95", *STAGES],
        report["loads"],
        lambda one: [
            one["picturesPerSecond"],
            one["latency"]["p50"],
            one["latency"]["p95"],
            *(one["stages"].get(stage) for stage in STAGES),
        ],
    )
    yield ""
    yield from _rows(
        "core-ms a picture",
        [*SHARES, "server", "generator", "overhead"],
        report["loads"],
        lambda one: [
            *(one["coreMilliseconds"][share] for share in SHARES),
            one["coreMillisecondsOfServer"],
            one["generatorCoreMilliseconds"],
            f"{one['overhead']:+.1%}",
        ],
    )


def _rows(
    title: str,
    columns: Sequence[str],
    loads: Sequence[Mapping[str, Any]],
    values: Callable[[Mapping[str, Any]], Sequence[float | str | None]],
) -> Iterator[str]:
    widths = [max(9, len(name) + 2) for name in columns]
    yield f"{title:28}" + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    for one in loads:
        cells = ["-" if value is None else value if isinstance(value, str) else f"{value:.2f}" for value in values(one)]
        yield f"{_name(one):28}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _name(load: Mapping[str, Any]) -> str:
    return f"{load['path']}, {'alone' if load['callers'] == 1 else str(load['callers']) + ' callers'}"


def draw(report: Mapping[str, Any]) -> str:
    """The picture, as SVG that stands alone."""
    bare, loads = report["bare"], report["loads"]
    artifact = report["artifact"]
    waits = stacked.Panel(
        "Where a request's time goes: milliseconds of a caller's wait, each bar all of it",
        [
            stacked.Bar(
                _name(one), one["stages"], f"{sum(one['stages'].values()):.0f} ms, {one['picturesPerSecond']:.0f}/s"
            )
            for one in loads
        ],
        _STAGES,
        relative=True,
    )
    cores = stacked.Panel(
        "What a picture costs: core-milliseconds, against the model alone",
        [
            stacked.Bar(
                f"the model alone, batches of {bare['batch']}",
                {"encode": bare["coreMilliseconds"]},
                f"{bare['coreMilliseconds']:.1f} core-ms, {bare['picturesPerSecond']:.0f}/s",
            ),
            *(
                stacked.Bar(
                    _name(one),
                    one["coreMilliseconds"],
                    f"{one['coreMillisecondsOfServer']:.1f} core-ms, {one['overhead']:+.0%}",
                )
                for one in loads
            ),
        ],
        _SHARES,
        floor=bare["coreMilliseconds"],
    )
    found = report["machine"]
    return stacked.svg(
        f"{artifact['model']} ({artifact['precision']}) on {artifact['device']}, JPEGs of 640 x 480",
        f"{found['processor']}, {found['cores']} cores; {report['command']}",
        [waits, cores],
    )
