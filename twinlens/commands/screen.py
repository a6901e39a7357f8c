"""What a command prints: tables for people, with `rich` where it is installed, and JSON for programs.

What comes from the server is data: nothing in it is taken for markup, nor does it reach the terminal as an escape.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

# Of a table that is printed without `rich`.
_WIDEST_COLUMN = 60


# DEL and the controls above ASCII, which JSON may hold as they are.
_ORDERS = re.compile("[\x7f-\x9f]")


class Screen:
    """Where a command prints: its results to standard output, all else to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def json(self, value: Any) -> None:
        """One line of JSON, without characters that a terminal takes for orders."""
        print(_ORDERS.sub(lambda one: f"\\u{ord(one[0]):04x}", msgspec.json.encode(value).decode()))

    def print(self, text: str) -> None:
        """A line of the result."""
        print(plain(text))

    def say(self, text: str) -> None:
        """A line about the work."""
        print(f"twinlens: {plain(text)}", file=sys.stderr)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; None is an empty cell. Columns whose cells are numbers stand to the right."""
        cells = [[_cell(value) for value in row] for row in rows]
        right = [all(type(row[at]) in (int, float) for row in rows) and bool(rows) for at in range(len(columns))]
        if sys.stdout.isatty() and importlib.util.find_spec("rich"):
            _rich_table(columns, cells, right)
            return
        widths = [
            min(max(len(name), *(len(row[at]) for row in cells), 0), _WIDEST_COLUMN) for at, name in enumerate(columns)
        ]
        for row in (columns, *cells):
            padded = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            print("  ".join(padded).rstrip())

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A function of how much is done, and what else is to be said of it.

        It draws a bar where there is a terminal and `rich`, and else says a line at each tenth.
        """
        if sys.stderr.isatty() and importlib.util.find_spec("rich"):
            with _rich_bar(what, total) as draw:
                yield draw
            return
        said = 0

        def update(done: int, more: str) -> None:
            nonlocal said
            tenth = 10 * done // total
            if tenth > said:
                said = tenth
                self.say(f"{what}: {done:,} of {total:,}{more}")

        yield update


def plain(text: str) -> str:
    """The text in one line, without what a terminal would take for an order."""
    return "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
    return textwrap.shorten(plain(str(value)), 200, placeholder="...")


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE)
    for name, to_right in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # a Text has no markup
    Console(width=shutil.get_terminal_size().columns).print(table)


@contextmanager
def _rich_bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, more="")
        yield lambda done, more: bar.update(task, completed=done, more=more)
