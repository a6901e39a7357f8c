"""python -m server spaces: list the embedding spaces, switch to another one, drop one."""

from __future__ import annotations

import argparse

from server.database import migrations
from server.errors import SpaceRefused
from server.settings import Settings
from server.spaces.spaces import choose, count_vectors, list_spaces, missing
from server.spaces.switch import drop, switch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m server spaces`."""
    parser.add_argument("what", nargs="?", default="list", choices=("list", "switch", "drop"))
    parser.add_argument("space", nargs="?", metavar="SPACE", help="the beginning of the space's id")
    parser.add_argument(
        "--leave-out-unreadable",
        action="store_true",
        help="switch although some pictures could not be embedded: searches no longer find them",
    )


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """List the spaces, switch to one, or drop one. Raises SpaceRefused's kinds, DatabaseUnusable."""
    migrations.require_migrated(url, writing=arguments.what != "list")
    if arguments.what == "list":
        _print_list(url)
        return 0
    if arguments.space is None:
        raise SpaceRefused(f"Say which space to {arguments.what}: python -m server spaces lists them.")
    space = choose(url, arguments.space)
    if arguments.what == "drop":
        drop(url, space)
        print(f"Dropped the space {space.short_id} ({space.model}).")
    elif space.live:
        print(f"The space {space.short_id} ({space.model}) is live already.")
    else:
        switch(url, space, leave_out_unreadable=arguments.leave_out_unreadable)
        print(
            f"The space {space.short_id} ({space.model}) is live now. Start servers with its artifact, last seen in "
            f"{space.artifact_path}."
        )
    return 0


def _print_list(url: str) -> None:
    spaces = list_spaces(url)
    if not spaces:
        print("There is no embedding space yet: the first start of a server makes one.")
    for one in spaces:
        found = missing(url, one)
        untried = f", {found.untried:,} to be embedded" if found.untried else ""
        failed = found.lost + found.unreadable
        unreadable = f", {failed:,} could not be embedded" if failed else ""
        print(
            f"{one.short_id}  {one.state:<8} {count_vectors(url, one):>12,} vectors of {one.dimensions:,}"
            f"{untried}{unreadable}  {one.model}  {one.artifact_path}"
        )
