"""The cluster: the folder with the database's files, where it lies and which system user it belongs to.

PostgreSQL refuses to run as root. Under root it runs as an unprivileged system user. Where that user cannot reach the
data folder, the cluster lies below ROOT_HOME, and a note in the data folder says where. The mode of an existing folder
is never changed.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import DatabaseUnusable

ROOT_HOME = Path("/var/lib/twinlens")
"""What root makes for an unprivileged user lies here: clusters, and copies of PostgreSQL's programs."""


@dataclass(frozen=True)
class Account:
    """The system user that PostgreSQL runs as, where that is not the user of this process."""

    uid: int
    gid: int

    def options(self) -> dict[str, Any]:
        """The options of `subprocess` that run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def cluster_of(data: Path) -> Path:
    """The cluster of a data folder, whether or not it exists. `data` is an absolute path without links."""
    return _read_note(data) or data / "postgres"


def find_cluster(data: Path) -> tuple[Path, Account | None] | None:
    """The cluster that the data folder has already, and the user to run it as; None where there is none yet.

    Raises DatabaseUnusable when the folder says that there is one and it cannot be used.
    """
    noted = _read_note(data)
    cluster = noted or data / "postgres"
    if noted is not None and os.geteuid() != 0:
        raise DatabaseUnusable(
            f"The database of {data} was made by root and lies in {noted}: start Twinlens as root, or use another "
            "data folder."
        )
    if not cluster.exists():
        if noted is not None:
            raise DatabaseUnusable(
                f"The database of {data} should lie in {noted}, but is not there. Bring that folder back; or, to begin "
                f"with an empty catalogue, delete {_note(data)}."
            )
        return None
    owner = cluster.stat()
    if owner.st_uid == os.geteuid() != 0:
        return cluster, None
    if os.geteuid() == 0 and owner.st_uid != 0:
        return cluster, Account(owner.st_uid, owner.st_gid)
    raise DatabaseUnusable(
        f"The database in {cluster} belongs to the user {user_name(owner.st_uid)}, and PostgreSQL cannot be run on it "
        f"by {user_name(os.geteuid())}: give the folder to an ordinary user (chown -R), or use another data folder."
    )


def place_cluster(data: Path) -> tuple[Path, Account | None]:
    """Where a new cluster of the data folder goes, and the user to run it as.

    Raises DatabaseUnusable under root when there is no unprivileged system user.
    """
    if os.geteuid() != 0:
        return data / "postgres", None
    account = _service_account()
    if open_to_all(data):
        return data / "postgres", account
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    home = ROOT_HOME / hashlib.sha256(bytes(data)).hexdigest()[:12]
    if home.exists():  # left by a data folder that was deleted and made again: the new one begins with no products
        home = home.with_name(f"{home.name}-{secrets.token_hex(3)}")
    return home, account


def write_note(data: Path, cluster: Path) -> None:
    """Record in the data folder that its cluster lies elsewhere."""
    draft = _note(data).with_suffix(".location.new")
    draft.write_text(
        f"{cluster}\n\nThe database of this data folder lies there: PostgreSQL does not run as root, and the user it "
        "runs as\ncannot reach this folder. Move or copy both together, delete both together.\n",
        encoding="utf-8",
    )
    draft.replace(_note(data))


def user_name(uid: int) -> str:
    """The name of a system user, or its number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_to_all(path: Path) -> bool:
    """Whether any user can walk to `path`, a folder."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _service_account() -> Account:
    for name in ("postgres", "pgserver", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid)
    raise DatabaseUnusable(
        "PostgreSQL does not run as root, and there is no system user postgres or nobody to run it as: start Twinlens "
        "as an ordinary user."
    )


def _note(data: Path) -> Path:
    return data / "postgres.location"


def _read_note(data: Path) -> Path | None:
    try:
        return Path(_note(data).read_text(encoding="utf-8").splitlines()[0])
    except (FileNotFoundError, IndexError):
        return None
