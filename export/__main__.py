"""The command line of the export.

$ python -m export --source openai/clip-vit-base-patch32 --name clip-vit-b32 --precision fp32 --precision int8
$ python -m export verify models/clip-vit-b32
"""

from __future__ import annotations

import argparse
import errno
import importlib
import math
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from export.artifacts.place import destination
from export.errors import ExportRefused, is_out_of_memory
from server.artifact.artifact import Precision
from server.errors import TwinlensError

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
DEVICES = ("cpu", "cuda")

_TRACEBACK = "--traceback"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_EPILOG = """other commands:
  python -m export verify FOLDER   prove an artifact again
  python -m export list            the artifacts in a folder
  python -m export show FOLDER     one artifact, and what was measured of it
  python -m export diff A B        what differs between two, and whether their vectors may be compared
  python -m export bench FOLDER    pictures and texts a second, by precision, device and batch

Each takes --help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 refused or failed (standard error says why), 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(given[0]) if given else None
    try:
        if command is None:
            _export(given)
        else:
            command(given[1:])
    except TwinlensError as exc:
        return _refuse(exc.sentence)
    except BrokenPipeError:
        # Python would report the broken pipe once more when it ends.
        sys.stdout = None
        # A reader of a table may stop early; a proof must come to its end.
        if command in _TABLES:
            return 0
        return _refuse("The reader of the output has closed it; nothing was published or proved.")
    except OSError as exc:
        if exc.errno in _FULL:
            return _refuse(f"There is no room left to write the artifact ({exc.strerror}); nothing was kept.")
        where = f"{exc.filename}: " if exc.filename else ""
        return _refuse(f"A file cannot be read or written: {where}{exc.strerror or exc}.")
    except KeyboardInterrupt:
        print("Interrupted." if command else "Interrupted; nothing was kept.", file=sys.stderr)
        return 130
    except Exception as exc:
        if is_out_of_memory(exc):
            return _refuse("This machine has too little memory for this model.")
        if _TRACEBACK in given:
            traceback.print_exc()
        return _refuse(
            f"This is a bug in the export, not in what it was given: {type(exc).__name__}: {exc}. Run it again with "
            f"{_TRACEBACK} and report what it prints."
        )
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> int:
    print(f"export: {sentence}", file=sys.stderr)
    return 2


def _parser(command: str, description: str, **more: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m export {command}".rstrip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=more.get("epilog"),
    )
    # `main` looks for this flag itself: an error may come before the options are parsed.
    parser.add_argument(_TRACEBACK, action="store_true", help="show where an unforeseen error came from")
    return parser


def _export(given: list[str]) -> None:
    parser = _parser("", "Freeze a CLIP model, both towers, with its preprocessing into an artifact.", epilog=_EPILOG)
    parser.add_argument("--source", required=True, help="a hub id, a folder with a checkpoint in it, or: starter")
    parser.add_argument("--name", required=True, help="the artifact's name, a folder below --models")
    _add_precisions(parser, "what to make; may be given several times (default: fp32)")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")
    _add_models(parser)
    parser.add_argument(
        "--allow-drift",
        type=_cosine,
        metavar="MIN_COSINE",
        help="publish a precision that drifts, down to this cosine, in a space of its own",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="your own pictures, for the gate and to calibrate int8"
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="captions of pictures, by which the grade of words is chosen: CSV or JSON Lines with picture and text",
    )
    parser.add_argument(
        "--jpeg",
        choices=("scaled", "full"),
        default="scaled",
        help="decode large JPEGs at a fraction of their size, which is quicker, or always in full (default: scaled)",
    )
    parser.add_argument(
        "--icc",
        choices=("srgb", "ignored"),
        default="srgb",
        help="convert colours by the ICC profile in a picture, or take them as they are stored (default: srgb)",
    )
    parser.add_argument(
        "--alpha",
        choices=("contrast", "white"),
        default="contrast",
        help="lay transparency on white, what would drown there on dark grey, or all on white (default: contrast)",
    )
    options = parser.parse_args(given)
    # torch and transformers need seconds to import: a wrong name is refused before.
    destination(options.models, options.name)
    _need_the_extra()
    from export.freeze import Order, freeze

    freeze(
        Order(
            source=options.source,
            name=options.name,
            precisions=_chosen(options.precision) or ("fp32",),
            revision=options.revision,
            models=options.models,
            allow_drift=options.allow_drift,
            calibration=options.calibration,
            captions=options.captions,
            jpeg=options.jpeg,
            icc=options.icc,
            alpha=options.alpha,
        )
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of artifacts (default: models)")


def _add_precisions(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--precision", action="append", metavar="|".join(PRECISIONS), help=what)


def _chosen(precisions: Sequence[str] | None) -> list[Precision]:
    """Each precision once, in the order of PRECISIONS. Raises ExportRefused for an unknown one."""
    for precision in precisions or ():
        if precision not in PRECISIONS:
            raise ExportRefused(f"There is no precision {precision}; there are {', '.join(PRECISIONS)}.")
    return [precision for precision in PRECISIONS if precision in (precisions or ())]


def _cosine(value: str) -> float:
    try:
        cosine = float(value)
    except ValueError:
        cosine = math.nan
    if not 0 < cosine < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a cosine between 0 and 1")
    return cosine


def _verify(given: list[str]) -> None:
    parser = _parser("verify", "Prove an artifact again, without its checkpoint.")
    parser.add_argument("folder", type=Path, help="the artifact's folder")
    folder = parser.parse_args(given).folder
    _need_the_extra()
    from export.artifacts.verify import verify

    verify(folder)
    print(f"{folder} is complete and gives the results that it gave when it was exported.")


def _list(given: list[str]) -> None:
    parser = _parser("list", "The artifacts in a folder.")
    _add_models(parser)
    models = parser.parse_args(given).models
    from export.artifacts.listing import list_artifacts

    print(list_artifacts(models))


def _show(given: list[str]) -> None:
    parser = _parser("show", "One artifact, and what was measured of it when it was exported.")
    parser.add_argument("folder", type=Path, help="the artifact's folder")
    folder = parser.parse_args(given).folder
    from export.artifacts.listing import show

    print(show(folder))


def _diff(given: list[str]) -> None:
    parser = _parser("diff", "What differs between two artifacts, and whether their vectors may be compared.")
    parser.add_argument("a", type=Path, metavar="A", help="an artifact's folder")
    parser.add_argument("b", type=Path, metavar="B", help="another artifact's folder")
    parser.add_argument("--speed", action="store_true", help="also measure how quick both are, in turns")
    options = parser.parse_args(given)
    from export.artifacts.diff import diff

    print(diff(options.a, options.b, speed=options.speed))


def _bench(given: list[str]) -> None:
    parser = _parser("bench", "Pictures and texts a second, by precision, device and batch, measured in turns.")
    parser.add_argument("folder", type=Path, help="the artifact's folder")
    _add_precisions(parser, "what to measure; may be given several times (default: all)")
    parser.add_argument(
        "--device", action="append", choices=DEVICES, help="where to measure (default: on every device that runs it)"
    )
    parser.add_argument("--batch", action="append", type=int, help="pictures or texts in one run (default: 1 and 8)")
    parser.add_argument("--seconds", type=float, help="seconds for each line of the table (default: 2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(given)
    from export.proof.speed import BATCHES, SECONDS, bench

    print(
        bench(
            options.folder,
            _chosen(options.precision),
            options.device or (),
            options.batch or BATCHES,
            SECONDS if options.seconds is None else options.seconds,
            as_json=options.json,
        )
    )


def _need_the_extra() -> None:
    try:
        for package in ("torch", "transformers", "safetensors", "onnx", "optimum.exporters.onnx"):
            importlib.import_module(package)
    except ImportError as exc:
        raise ExportRefused(
            f"The export needs packages that the server does not ({exc.name} is missing): "
            "run .venv/bin/python -m pip install -c constraints.txt -e '.[export]' in a checkout."
        ) from exc


_TABLES = (_list, _show, _diff, _bench)
_COMMANDS = {"verify": _verify, "list": _list, "show": _show, "diff": _diff, "bench": _bench}


if __name__ == "__main__":
    # A service manager's stop cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
