"""python -m bench decoders: who reads which pictures, and whose pixels differ.

A corpus of small files is made: each format in its modes, depths, orientations and profiles, with everything odd that
may stand beside the pixels. Twinlens, libvips, OpenCV, Pillow as it is, and Chromium's canvas read each file, and what
they see on white is compared with what the file holds by arithmetic, or with what most of them see.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import machine
from bench.decoders import browser, document
from bench.decoders.case import Case
from bench.decoders.corpus import FORMATS, corpus
from bench.decoders.readers import OTHERS, OURS, Reader
from bench.decoders.verdict import Row, judge
from bench.decoders.worker import Answer, Worker

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "pictures.md"

Ask = Callable[[Case], Answer | None]
"""None for a case that the reader is not asked for."""


def compare(cases: Sequence[Case], readers: Mapping[str, Ask]) -> list[Row]:
    """Have each case read by all who can."""
    rows = []
    for case in cases:
        answers = {name: ask(case) for name, ask in readers.items()}
        rows.append(judge(case, {name: answer for name, answer in answers.items() if answer is not None}))
    return rows


def asking(reader: Reader, stack: contextlib.ExitStack) -> Ask:
    """A reader in processes of its own, for as long as the stack lasts."""
    plain = stack.enter_context(Worker(reader.target))
    managed = stack.enter_context(Worker(reader.managed)) if reader.managed else None

    def ask(case: Case) -> Answer | None:
        worker = managed if case.managed else plain
        return worker.ask(case.data) if worker is not None else None

    return ask


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 Twinlens reads what it promises, 1 it does not, 2 refused (standard error has a sentence)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = _parser().parse_args(given)
    missing = [reader for reader in OTHERS if not reader.there]
    if missing and not asked.without:
        names = ", ".join(f"{reader.name} ({reader.needs})" for reader in missing)
        print(f"bench: {names} is not installed: pip install -c constraints.txt -e '.[decoders]', or say "
              "--without-missing.", file=sys.stderr)  # fmt: skip
        return 2
    formats = asked.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        print(
            f"bench: there is no format {', '.join(sorted(unknown))}; there are {', '.join(FORMATS)}", file=sys.stderr
        )
        return 2
    cases = corpus(formats)
    if asked.keep is not None:
        _keep(cases, asked.keep)
    with contextlib.ExitStack() as stack:
        readers = {one.name: asking(one, stack) for one in (OURS, *OTHERS) if one.there}
        versions = document.versions()
        if (program := _program(asked.chromium)) is not None:
            show, versions[browser.NAME] = stack.enter_context(browser.chromium(program))
            readers[browser.NAME] = show
        elif asked.chromium != "off":
            print(f"bench: {asked.chromium}: there is no such browser; without it\n", file=sys.stderr)
        rows = compare(cases, readers)
    print(machine.sentence())
    print(document.text(rows, versions, details=asked.details))
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({"versions": versions, "cases": document.records(rows)}, indent=1) + "\n")
    if asked.write_docs:
        document.write(DOCUMENT, rows, versions)
    return int(any(row.fault for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench decoders", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"only these ({','.join(FORMATS)})")
    parser.add_argument(
        "--chromium",
        default="auto",
        metavar="auto|off|PATH",
        help=f"the browser (auto: {browser.CHROMIUM} where it is)",
    )
    parser.add_argument(
        "--without-missing", dest="without", action="store_true", help="leave out readers that are not installed"
    )
    parser.add_argument("--details", action="store_true", help="a line for each case that not all read alike")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer here")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the corpus there")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/pictures.md")
    return parser


def _program(asked: str) -> Path | None:
    if asked == "off":
        return None
    path = browser.CHROMIUM if asked == "auto" else Path(asked)
    return path if path.exists() else None


def _keep(cases: Sequence[Case], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        name = "".join(one if one.isalnum() else "-" for one in f"{number:03} {case.title}")
        (folder / f"{name}.{case.format.lower()}").write_bytes(case.data)


if __name__ == "__main__":
    sys.exit(main())
