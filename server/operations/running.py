"""Since when a server runs, and with how many workers: its parent knows, and tells them by a variable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from server.operations.workers import Place

STARTED = "_TWINLENS_STARTED"
"""The variable that has when the parent began to start workers, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server of `workers` processes that answers. `started`: in seconds since 1970; a worker that died and was
    started again does not change it."""

    workers: int
    started: float

    @classmethod
    def of(cls, place: Place, environment: Mapping[str, str]) -> Running:
        """The server that this process is a worker of; one without a parent begins now."""
        return cls(place.of, float(environment.get(STARTED) or time.time()))
