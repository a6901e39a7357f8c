"""python -m server doctor: what is wrong with a database, what it does to results, and what mends it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from server.commands import recall
from server.doctor.doctor import SAMPLE, examine
from server.doctor.report import as_text
from server.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--media", type=Path, metavar="DIR", help="folder with the pictures, by their s3Key or file name"
    )
    parser.add_argument(
        "--sample",
        type=_positive,
        default=SAMPLE,
        metavar="N",
        help=f"vectors to compare with each other, and pictures to embed again ({SAMPLE})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of text")
    parser.add_argument(
        "--recall",
        action="store_true",
        help="compare searches with the exact answer, and look at nothing else",
    )


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Print what is wrong. The exit code: 0 where nothing is wrong, 1 where something is.

    Raises DatabaseUnusable, ArtifactInvalid or BadSetting where the database cannot be examined.
    """
    if arguments.recall:
        return recall.run(settings, arguments, url)
    report = examine(settings, url, media=arguments.media, sample=arguments.sample, progress=_print_progress)
    report = report.told(settings.printable)
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if arguments.json else as_text(report))
    return 1 if report.findings else 0


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr)


def _positive(text: str) -> int:
    if (number := int(text)) <= 0:
        raise ValueError(text)
    return number
