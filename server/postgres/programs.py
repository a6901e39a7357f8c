"""PostgreSQL's own programs on any database: which of them to run, and how they learn where the database is."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from psycopg import ConnectionInfo, conninfo, pq

from server.database.parameters import parameters_of
from server.errors import DatabaseUnusable
from server.postgres.binaries import newest_binaries
from server.secrets import SECRET_PARAMETERS, redacted, secrets_of

_CONNECTED_WITHIN_SECONDS = 10
_LONGEST_COMPLAINT = 2000


def find_program(name: str, least: int) -> Path:
    """A program of PostgreSQL's, of this major version or a newer one: that of our package, else one on the PATH.

    Raises DatabaseUnusable where there is none.
    """
    found = []
    for path in _candidates(name):
        version = version_of(path)
        if int(version.partition(".")[0]) >= least:
            return path
        found.append(f"{path} is of {version}")
    raise DatabaseUnusable(
        f"This takes {name} of PostgreSQL {least} or newer, and there is none"
        + (f" ({', '.join(found)})" if found else "")
        + ". Install PostgreSQL's client programs of that version, so that it lies on the PATH."
    )


def version_of(program: Path) -> str:
    """The version that a program of PostgreSQL's says it has, as 18.4; 0 where it says none."""
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", done.stdout)
    return version[1] if version else "0"


def _candidates(name: str) -> Iterator[Path]:
    with contextlib.suppress(DatabaseUnusable):  # a database of one's own needs no package that brings PostgreSQL
        yield newest_binaries() / name
    if (path := shutil.which(name)) is not None:
        yield Path(path)


def connecting(url: str, info: ConnectionInfo | None = None) -> tuple[list[str], dict[str, str]]:
    """How a program connects as we do with this URL: arguments, and the environment, which holds the password.

    `info`: of a connection that is open; the program then goes to the same server, where the URL names several.
    """
    where = {name: str(value) for name, value in parameters_of(url, connect_timeout=_CONNECTED_WITHIN_SECONDS).items()}
    if info is not None:
        where |= {"host": info.host, "port": str(info.port), "dbname": info.dbname, "user": info.user}
        if "hostaddr" in where:
            where["hostaddr"] = info.hostaddr
    known = [(one.keyword.decode(), one.envvar.decode()) for one in pq.Conninfo.get_defaults() if one.envvar]
    variables = {variable: where.pop(name) for name, variable in known if name in where}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"PGAPPNAME": "twinlens", **variables, "PGCLIENTENCODING": "UTF8", "LC_ALL": "C"}
    for secret in SECRET_PARAMETERS:  # others could read it in the list of processes
        where.pop(secret, None)
    return ["--no-password", f"--dbname={conninfo.make_conninfo(**where)}"], environment


def complaint(errors: IO[bytes], url: str) -> str:
    """What a program has written to `errors`, its standard error: the first lines, without anything secret."""
    errors.seek(0)
    text = errors.read(_LONGEST_COMPLAINT).decode(errors="replace").strip()
    return redacted(text, secrets_of(url)) or "it gave no reason"
