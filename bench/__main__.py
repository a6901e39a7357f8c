"""python -m bench COMMAND: everything that measures Twinlens, by name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "load": (
        "bench.load.command",
        "a server under load: throughput and latency over offered loads, objectives, a report",
    ),
    "compare": ("bench.load.compare", "two load tests side by side, as ratios"),
    "recovery": ("bench.recovery.command", "what callers see when a part breaks, and how soon they are answered again"),
    "crash": (
        "bench.crash.command",
        "random operations of three clients while parts die at random: nothing acknowledged may be lost",
    ),
    "soak": ("bench.soak.command", "a server at half load for long: memory, handles, connections and tasks stay flat"),
    "ingest": ("bench.ingest", "how quickly a catalogue gets in, beside the bare model and a loop over the API"),
    "search": ("bench.search.command", "what a search finds and how quickly, for clients of every size, beside others"),
    "peers": ("bench.peers.command", "Twinlens and others like it on identical weights and pictures, in one run"),
    "profile": ("bench.profiling.command", "where a request's time goes, and what a picture costs in core-seconds"),
    "trace": ("bench.traces.command", "a real trace of one search by picture, drawn; what making traces costs"),
    "neighbours": (
        "bench.neighbours",
        "what one client's bulk calls cost the searches of another",
    ),
    "sideways": (
        "bench.sideways",
        "whether a client can tell what another has sent or owns, by answers or their times",
    ),
    "flood": ("bench.flood", "what one caller's flood costs the searches of another, with limits and without"),
    "access-log": ("bench.access_log", "what a line of the access log for each request costs"),
    "servers": ("bench.servers.command", "which HTTP server serves us best"),
    "throughput": ("bench.throughput", "how much of the bare model's speed is left over HTTP"),
    "gpu": ("bench.gpu.command", "forward passes, pictures and requests a second on a GPU"),
    "decoders": ("bench.decoders.command", "who reads which pictures, and whose pixels differ: beside other readers"),
    "fuzz": (
        "bench.fuzz.command",
        "damaged files, hostile requests: each must be read or refused, and nothing else",
    ),
    "dependencies": ("bench.dependencies", "whether each pinned version is still offered, and none was withdrawn"),
    "decoding": ("bench.decoding", "what decoding large JPEGs at a scale saves, and what it moves"),
    "precisions": ("bench.precisions", "what each precision costs in accuracy, and brings in speed"),
    "compose": ("bench.compose", "whether a picture and words together find what neither finds alone"),
    "regions": ("bench.regions.command", "what a part of a picture finds, and how good proposals of parts are"),
    "page": ("bench.page", "how soon the page shows the first match, in a browser that has seen nothing"),
    "screenshots": ("bench.screenshots", "the pictures of the page in docs/, at three widths, light and dark"),
    "facets": ("bench.facets", "how long counts beside a search take for a large client"),
    "near-duplicates": ("bench.near_duplicates", "how often an altered picture finds its original first"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named with the options behind its name; without a name, list all commands."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("python -m bench COMMAND, and --help behind it for its options:\n")
        for name, (_, about) in _there().items():
            print(f"  {name:17}{about}")
        return 0
    if given[0] not in _there():
        print(f"bench: there is no command {given[0]!r}; there are {', '.join(_there())}", file=sys.stderr)
        return 2
    command = importlib.import_module(COMMANDS[given[0]][0])
    code: int = command.main(given[1:])
    return code


def _there() -> dict[str, tuple[str, str]]:
    return {name: one for name, one in COMMANDS.items() if importlib.util.find_spec(one[0]) is not None}


if __name__ == "__main__":
    sys.exit(main())
