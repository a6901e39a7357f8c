"""python -m server reembed: embed the catalogue with another model beside the live one, then switch to it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from server.settings import Settings
from server.spaces.reembed import Options, give_way, reembed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m server reembed`."""
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR", help="the new model's artifact")
    parser.add_argument("--no-switch", action="store_true", help="embed everything, but leave the live space as it is")
    parser.add_argument(
        "--leave-out-unreadable",
        action="store_true",
        help="switch although some pictures could not be embedded: they are no longer found",
    )
    parser.add_argument("--follow", action="store_true", help="then go on embedding what is added, until stopped")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Re-embed and switch. Raises ArtifactInvalid, DatabaseUnusable, SpaceRefused's kinds, ReembeddingStopped."""
    give_way()
    options = Options(not arguments.no_switch, arguments.leave_out_unreadable, arguments.follow)
    return asyncio.run(reembed(settings, arguments.artifact, url, options))
