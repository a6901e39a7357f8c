"""python -m server reembed: embed the catalogue with another model beside the live one, then switch to it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from server.settings import Settings
from server.spaces.reembed import Options, Outcome, Unreadable, lower_priority, reembed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m server reembed`."""
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR", help="the new model's artifact")
    parser.add_argument("--no-switch", action="store_true", help="embed everything, but leave the live space as it is")
    parser.add_argument(
        "--leave-out-unreadable",
        action="store_true",
        help="switch although some pictures could not be embedded: searches no longer find them",
    )
    parser.add_argument("--follow", action="store_true", help="then go on embedding what is added, until stopped")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Re-embed and switch. Raises as `server.spaces.reembed.reembed`."""
    lower_priority()
    options = Options(not arguments.no_switch, arguments.leave_out_unreadable, arguments.follow)
    outcome = asyncio.run(
        reembed(settings, arguments.artifact, url, options, partial(_print, printable=settings.printable))
    )
    return 0 if outcome.stopped_by is None else 128 + outcome.stopped_by


def _print(event: Unreadable | Outcome, printable: Callable[[str], str] = str) -> None:
    if isinstance(event, Unreadable):
        reasons = "\n".join(f"  {one.media:>8,}  {one.reason} (such as {one.example})" for one in event.reasons)
        print(f"These could not be embedded:\n{reasons}", file=sys.stderr)
    elif event.ending == "stopped":
        print(
            f"Stopped. {event.embedded:,} pictures were embedded and are kept; nothing was switched. The same "
            "command goes on from here.",
            file=sys.stderr,
        )
    else:
        print(printable(_sentence(event)), flush=True)


def _sentence(outcome: Outcome) -> str:
    """The ending of a run that was not stopped."""
    short = outcome.space.short_id
    space = f"The space {short} ({outcome.space.model})"
    if outcome.ending == "complete":
        return f"{space} is live, and nothing is missing in it."
    if outcome.ending == "live":
        return f"{space} is live, and has what can be embedded."
    if outcome.ending == "switched":
        return f"{space} is live now. Start servers with its artifact."
    return f"{space} has what can be embedded. This makes it live: python -m server spaces switch {short}"
