"""`twinlens COMMAND`: what may be said, and what is said where it goes wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import twinlens
from twinlens.client import Client
from twinlens.commands import duplicates, products, push, search, status
from twinlens.commands.screen import Screen, plain
from twinlens.errors import TwinlensError
from twinlens.options import CLIENT_VARIABLE, DEFAULT_URL, KEY_FILE_VARIABLE, KEY_VARIABLE, URL_VARIABLE, key_in

COULD_NOT = 2
"""The exit code where the command could not do its work. 1: some of it failed; 0: all is well."""

INTERRUPTED = 130

COMMANDS = {"search": search, "push": push, "list": products, "duplicates": duplicates, "status": status}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = parser().parse_args(arguments)
    screen = Screen(as_json=given.json)
    try:
        with _client(given) as client:
            code: int = given.run(client, given, screen)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        screen.say("Stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TwinlensError as exc:
        request = f" [{exc.code}, request {exc.request_id}]" if exc.request_id else f" [{exc.code}]"
        screen.say(f"{exc.sentence}{request}")
    except OSError as exc:
        screen.say(f"{exc.filename or 'A file'}: {exc.strerror or exc}.")
    except (ValueError, ModuleNotFoundError) as exc:
        screen.say(str(exc))
    return COULD_NOT


def parser() -> argparse.ArgumentParser:
    """Of all commands."""
    whole = argparse.ArgumentParser(
        prog="twinlens",
        description="Search by image in a catalogue, and keep it in step, over HTTP.",
        epilog=f"The server, the key and the client may be in the environment: {URL_VARIABLE}, {KEY_VARIABLE} (or "
        f"{KEY_FILE_VARIABLE}, a file that holds it), {CLIENT_VARIABLE}. Exit code: 0 all is well, 1 some of it "
        "failed, 2 it could not run.",
    )
    whole.add_argument("--version", action="version", version=f"twinlens {twinlens.__version__}")
    common = argparse.ArgumentParser(add_help=False)
    server = common.add_argument_group("the server")
    server.add_argument("--url", help=f"its address (default: {URL_VARIABLE}, or {DEFAULT_URL})")
    server.add_argument("--key-file", metavar="FILE", help=f"a file with the key (default: {KEY_VARIABLE})")
    server.add_argument("--client", help=f"whose catalogue, where the key does not say it (default: {CLIENT_VARIABLE})")
    server.add_argument(
        "--deadline", type=float, default=60.0, metavar="SECONDS", help="for one call, with all its tries (60)"
    )
    common.add_argument("--json", action="store_true", help="print JSON, as the API has it")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        said = plain(module.__doc__ or "")
        one = commands.add_parser(name, help=said, description=said, parents=[common])
        module.add_arguments(one)
        one.set_defaults(run=module.run)
    return whole


def _client(given: argparse.Namespace) -> Client:
    key = None if given.key_file is None else key_in(given.key_file)
    return Client(given.url, key=key, client=given.client, deadline=given.deadline)
