"""python -m server duplicates: the pictures that a client's catalogue holds more than once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from server.access.clients import DEFAULT_CLIENT
from server.catalogue.duplicates import Copy, Report, find
from server.database.migrations import require_migrated
from server.errors import BadParameter
from server.operations.progress import Progress
from server.settings import Settings
from server.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the pictures that a client's catalogue holds more than once: the same file, and the same picture in "
        "another file (near duplicates). Near duplicates compare each picture with each: twice as many need four times "
        "as long. Their vectors are held in memory, 1 KB for each picture."
    )
    parser.add_argument(
        "--client", metavar="ID", default=DEFAULT_CLIENT, help=f"whose catalogue (default: {DEFAULT_CLIENT})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--all", action="store_true", help="also of products that are not active")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--near",
        action="store_true",
        help="near duplicates too (the default); an error where they cannot be recognised",
    )
    kinds.add_argument("--exact-only", action="store_true", help="the same file only, which is quick")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Print what `find` finds; 0. Raises BadParameter where `--near` is asked for and the space has no grades."""
    require_migrated(url)
    report = find(
        settings,
        url,
        arguments.client,
        near=not arguments.exact_only,
        inactive=arguments.all,
        show=partial(Progress, sys.stderr),
    )
    if report.near is None and not arguments.exact_only:
        sentence = (
            "Near duplicates cannot be recognised: the live model was exported without grades. Export it again with "
            "this version (its space stays), and start the server with it once."
        )
        if arguments.near:
            raise BadParameter(sentence)
        print(sentence, file=sys.stderr)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print("\n".join(_lines(report)))
    return 0


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.client_id}: {counted(report.media, 'picture')} looked at"
    if report.near is not None and report.without_vector:
        yield f"{report.without_vector:,} of them have no vector yet, and are compared by their bytes only"
    if report.blank:
        yield f"{report.blank:,} of them show nothing but one colour, and are left out"
    yield from _section("The same file", report.exact)
    if report.near is not None:
        yield from _section("Near duplicates", report.near)


def _section(title: str, groups: Sequence[Sequence[Copy]]) -> Iterator[str]:
    yield ""
    if not groups:
        yield f"{title}: none"
        return
    yield f"{title}: {counted(sum(map(len, groups)), 'picture')} in {counted(len(groups), 'group')}"
    for number, group in enumerate(groups, 1):
        yield f"  {number}."
        width = max(len(copy.media_id) for copy in group)
        for copy in group:
            how = f"{copy.similarity:5.1f} % {copy.grade}  " if copy.similarity is not None else ""
            off = "" if copy.is_active else "  (not active)"
            yield f"    {copy.media_id:<{width}}  {how}{_plain(copy.product_id)}  {_plain(copy.product_name)}{off}"


def _plain(text: str) -> str:
    """Without the control characters that a name may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else "·" for char in text)
