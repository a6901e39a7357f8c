"""How much room is left on the disks that a server writes to, looked at again and again.

On a thread of its own: a network drive that hangs must hold up no request, and not the server's end either.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from server.errors import DiskFull

LEAST_FREE_BYTES = 100_000_000
"""With less than this a disk counts as full: PostgreSQL's log needs some of it to carry on at all."""

_LOOK_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Room:
    """On the disk of one folder, in bytes: what this user may still fill, and all that there is."""

    free: int
    size: int
    names: bool = True
    """Whether further files can be made: a disk can run out of those, too."""


class Disks:
    """The disks of some folders, by what lies there; looked at for as long as the block lasts."""

    def __init__(
        self, folders: Mapping[str, Path], needed: Collection[str], look: Callable[[Path], Room] | None = None
    ) -> None:
        """`needed`: those of the folders without whose disk the server cannot do its work; `look`: at a folder's."""
        self._folders = folders
        self._needed = needed
        self._look_at = look or room_of
        self._ended = Event()
        self._looked = Event()
        self.rooms: Mapping[str, Room] = {}
        """What was last seen, by name; a folder that is not there at present is left out."""

    @property
    def trouble(self) -> DiskFull | None:
        """Whether a disk that is needed is full, as last seen."""
        return DiskFull() if any(map(self._is_full, self._needed)) else None

    def _is_full(self, name: str) -> bool:
        room = self.rooms.get(name)
        return room is not None and (room.free < LEAST_FREE_BYTES or not room.names)

    def __enter__(self) -> Self:
        Thread(target=self._run, name="disks", daemon=True).start()
        self._looked.wait(_FIRST_LOOK_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()

    def _run(self) -> None:
        full = False
        while True:
            self.rooms = self._look()
            self._looked.set()
            if (self.trouble is not None) != full:
                full = not full
                if full:
                    names = [name for name in self._needed if self._is_full(name)]
                    places = ", ".join(f"{name} ({self._folders[name]})" for name in names)
                    _log.error("This server is not ready, since a disk is full: %s.", places)
                else:
                    _log.info("The disks have room again.")
            if self._ended.wait(_LOOK_SECONDS):
                return

    def _look(self) -> Mapping[str, Room]:
        rooms = {}
        for name, folder in self._folders.items():
            try:
                rooms[name] = self._look_at(folder)
            except OSError:  # not there, or not ours: whoever needs it says so
                continue
        return rooms


def room_of(folder: Path) -> Room:
    """The room on the disk of a folder. Raises OSError."""
    found = os.statvfs(folder)
    # Some file systems know no number of files, and give 0 for both.
    names = found.f_favail > 0 or found.f_files == 0
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, names)
