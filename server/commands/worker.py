"""python -m server worker: embed pictures whose rows another system writes into the database."""

from __future__ import annotations

import argparse
import asyncio

import msgspec

from server.settings import Settings
from server.spaces.reembed import lower_priority
from server.spaces.standing import Reason, Standing, put_back, reasons, standing
from server.spaces.worker import POLL_SECONDS, Ended, Options, work
from server.wording import counted

_LEAST_POLL_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Embed the pictures of media that another system has written with the status 'pending', until stopped. Any "
        "number of workers may run side by side, beside servers or without any. Exit code 0: all went well; 1: with "
        "--once, some pictures were set aside or put off; with --status, some are set aside; 2: it could not run."
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--once", action="store_true", help="end when nothing is due")
    modes.add_argument("--status", action="store_true", help="say how many pictures wait, and why some were set aside")
    modes.add_argument("--retry-failed", action="store_true", help="have workers try again what they have set aside")
    parser.add_argument(
        "--low-priority", action="store_true", help="let all else on this machine go first, and use half of the cores"
    )
    parser.add_argument(
        "--poll",
        type=_seconds,
        default=POLL_SECONDS,
        metavar="SECONDS",
        help=f"how often to look where no notice comes ({POLL_SECONDS:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, on the last line")


def run(settings: Settings, arguments: argparse.Namespace, url: str) -> int:
    """Do it; 0, or 1 where something failed. Raises as `server.spaces.worker.work`."""
    if arguments.status:
        return _show_status(url, as_json=arguments.json)
    if arguments.retry_failed:
        return _retry(url, as_json=arguments.json)
    if arguments.low_priority:
        lower_priority()
    options = Options(once=arguments.once, low_priority=arguments.low_priority, poll=arguments.poll)
    ended = asyncio.run(work(settings, url, options))
    if arguments.json:
        print(msgspec.json.encode(_described(ended)).decode(), flush=True)
    else:
        print(_sentence(ended), flush=True)
    if not arguments.once:
        return 0
    if ended.stopped_by is not None:
        return 128 + ended.stopped_by
    return 1 if ended.done.set_aside or ended.done.put_off else 0


def _show_status(url: str, *, as_json: bool) -> int:
    stands, why = standing(url), reasons(url)
    if as_json:
        found = {**_of(stands), "reasons": [_reason(one) for one in why]}
        print(msgspec.json.encode(found).decode())
    else:
        print(_left(stands))
        for one in why:
            state = "set aside" if one.set_aside else "put off"
            print(f"  {one.media:>8,}  {state}: {one.code}: {one.reason} (such as {_plain(one.example)})")
    return 1 if stands.set_aside else 0


def _retry(url: str, *, as_json: bool) -> int:
    count = put_back(url)
    if as_json:
        print(msgspec.json.encode({"putBack": count}).decode())
    else:
        print(f"{counted(count, 'picture')} put back. Workers that run try them again at once.")
    return 0


def _of(stands: Standing) -> dict[str, int]:
    return {
        "waiting": stands.waiting,
        "tried": stands.tried,
        "putOff": stands.put_off,
        "setAside": stands.set_aside,
    }


def _reason(one: Reason) -> dict[str, object]:
    return {
        "code": one.code,
        "setAside": one.set_aside,
        "media": one.media,
        "reason": one.reason,
        "example": one.example,
    }


def _described(ended: Ended) -> dict[str, object]:
    done = ended.done
    return {
        "embedded": done.embedded,
        "setAside": done.set_aside,
        "putOff": done.put_off,
        "changed": done.changed,
        "stopped": ended.stopped_by is not None,
    }


def _sentence(ended: Ended) -> str:
    done = ended.done
    return (
        f"{counted(done.embedded, 'picture')} embedded, {done.set_aside:,} set aside as failed, {done.put_off:,} to be "
        "tried again later."
    )


def _left(stands: Standing) -> str:
    return (
        f"Pending: {stands.waiting:,} that nobody has tried, {stands.tried:,} that are being tried, {stands.put_off:,} "
        f"to be tried again. Set aside as failed: {stands.set_aside:,}."
    )


def _plain(text: str) -> str:
    """Without the control characters that an id may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _LEAST_POLL_SECONDS <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds, at least {_LEAST_POLL_SECONDS:g}")
    return seconds
