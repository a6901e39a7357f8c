"""Say whether the server is ready, and which model it runs."""

from __future__ import annotations

import argparse

from twinlens.client import Client
from twinlens.commands.screen import Screen
from twinlens.errors import Unavailable

NOT_READY = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(client: Client, given: argparse.Namespace, screen: Screen) -> int:
    """Ask once; 1 where it answers and is not ready."""
    try:
        ready = client.ready()
    except Unavailable as exc:
        if screen.as_json:
            screen.json({"status": "not ready", "code": exc.code, "error": exc.sentence, "requestId": exc.request_id})
        else:
            screen.print(f"{client.options.url} is not ready: {exc.sentence} [{exc.code}]")
        return NOT_READY
    if screen.as_json:
        screen.json(ready)
        return 0
    screen.print(f"{client.options.url} is {ready.status}.")
    said = {
        "model": ready.model,
        "device": ready.device,
        "precision": ready.precision,
        "space": ready.space,
        "words": ready.text,
        "reads": ", ".join(ready.reads),
    }
    screen.table(("", ""), list(said.items()))
    return 0
