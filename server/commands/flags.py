"""Every setting as a flag of the command line."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import cast

from server.settings import Settings, flag_of


def add_flags(parser: argparse.ArgumentParser, *, suppress: bool = False) -> None:
    """One flag for each setting, as text: `Settings.read` parses variables and flags alike.

    `suppress`: a flag that is not given keeps the value that the main parser has read.
    """
    group = parser.add_argument_group("settings", "each is also a variable, TWINLENS_<NAME>")
    for one in fields(Settings):
        default = f" ({one.default})" if one.default not in (None, False) else ""
        group.add_argument(
            flag_of(one.name),
            dest=one.name,
            metavar="VALUE",
            help=one.metadata["about"] + default,
            default=argparse.SUPPRESS if suppress else None,
        )


def flags_of(arguments: argparse.Namespace) -> dict[str, str | None]:
    """The flags by the names of their settings; None for one that was not given."""
    return {one.name: cast("str | None", getattr(arguments, one.name)) for one in fields(Settings)}
