"""The socket that PostgreSQL listens on: a file in a private folder, and the only way to the server."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

from server.errors import DatabaseUnusable
from server.postgres.cluster import Account, user_name

PORT = 5432  # only a part of the socket's name
LONGEST_SOCKET = 107  # bytes of a socket's path, in Linux


def socket_folder(cluster: Path) -> Path:
    """The folder of the server's socket: the cluster itself, or one with a shorter path where that is too long."""
    if len(os.fsencode(cluster / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET:
        return cluster
    name = f"twinlens-{hashlib.sha256(bytes(cluster)).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if len(os.fsencode(folder)) < LONGEST_SOCKET - 20 else Path("/tmp") / name  # noqa: S108 - owner is checked


def make_socket_folder(cluster: Path, account: Account | None) -> None:
    """Make the socket's folder where it is not the cluster, for `account` or the user of this process.

    Raises DatabaseUnusable when something lies there that is not a private folder of that user.
    """
    folder = socket_folder(cluster)
    if folder == cluster:
        return
    uid = os.geteuid() if account is None else account.uid
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if account is not None and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
        raise DatabaseUnusable(f"{folder} is in the way: it should be a private folder of {user_name(uid)}.")


def url_of(cluster: Path, database: str) -> str:
    """The URL of a database of the server that runs on this cluster."""
    folder = quote(str(socket_folder(cluster)), safe="")
    return f"postgresql://postgres@/{database}?host={folder}&port={PORT}"
