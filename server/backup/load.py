"""The database of a backup: what pg_restore makes of the dump runs through psql, in one transaction with our own.

Our own end of it is what makes a catalogue of the dump that fits here: the migrations that it lacks, the store that was
filled beside it, and no role of the cluster that it came from. Only after all that comes the COMMIT, and only where
pg_restore has said that its part was whole.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from psycopg import sql

from server.backup.archive import PIECE, Archive, Member
from server.backup.manifest import Manifest
from server.database import preconditions
from server.database.migrations import Migration, load_migrations
from server.database.queries import Queries
from server.database.session import SessionConnection, wanted
from server.errors import BackupRefused
from server.postgres.programs import complaint, connecting, find_program

_QUERIES = Queries.read("backup.sql")

# Of the dump's table of contents: what belongs to the database or its cluster and not to the catalogue, rights of roles
# that there may not be here, and the policies of the roles that serve, which are made anew.
_LEFT_OUT = re.compile(
    rb"\d+; \d+ \d+ (?:"
    rb"(?:EXTENSION|COMMENT - EXTENSION|SCHEMA|COMMENT - SCHEMA|ACL|DEFAULT ACL|EVENT TRIGGER|DATABASE) "
    rb"|POLICY \S+ .* twinlens_client \S+$)"
)

# PostgreSQL 16 and older do not know it, and a pg_restore of 17 or newer says it at its beginning.
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"
_HEAD = 4096


class Loader:
    """Loads the dump of a backup into an empty database."""

    def __init__(self, url: str, connection: SessionConnection, manifest: Manifest) -> None:
        """`connection`: to the database of `url`, so that psql goes to the same server. Raises DatabaseUnusable."""
        self._url = url
        self._connection = connection
        self._manifest = manifest
        self._restore = find_program("pg_restore", int(manifest.dumped_by.partition(".")[0]))
        beside = self._restore.with_name("psql")  # of the same version: what one writes, the other must know
        self._psql = beside if beside.exists() else find_program("psql", 0)

    def load(self, archive: Archive, dump: Member, *, store_id: str | None) -> tuple[str, ...]:
        """Load all of it or nothing; the names of the migrations that it lacked. Raises BackupRefused.

        `store_id`: of the mark of the store that was filled beside it; None: the database goes on naming its old one.
        """
        has = {one.number for one in self._manifest.migrations}
        lacking = [one for one in load_migrations() if one.number not in has]
        with tempfile.TemporaryDirectory(prefix="twinlens-restore-") as folder:
            contents = Path(folder, "contents")
            contents.write_bytes(self._contents(archive, dump))
            self._run(archive, dump, contents, self._end(lacking, store_id))
        return tuple(one.name for one in lacking)

    # --- what is run -------------------------------------------------------------------------------------------------

    def _beginning(self) -> bytes:
        schema = sql.Identifier(self._manifest.vector_schema)
        parts = [_QUERIES["begin"]]
        if preconditions.find_pgvector(self._connection) is None:
            found = self._connection.execute(
                _QUERIES["has_schema"], {"schema": self._manifest.vector_schema}
            ).fetchone()
            if found != (True,):
                parts.append(_composed("make_schema", vector_schema=schema))
            parts.append(_composed("make_pgvector", vector_schema=schema))
        return b"\n".join([*parts, b""])

    def _end(self, lacking: Sequence[Migration], store_id: str | None) -> bytes:
        """What comes after the dump's own statements."""
        schemas = dict.fromkeys((self._manifest.schema, self._manifest.vector_schema))
        path = ", ".join([*(sql.Identifier(one).as_string(None) for one in schemas), "pg_temp"])
        settings = {**wanted(None), "search_path": path}
        rows = [sql.SQL("({}, {})").format(sql.Literal(name), sql.Literal(value)) for name, value in settings.items()]
        parts = [_composed("settle", settings=sql.SQL(", ").join(rows))]
        for one in lacking:
            record = {"number": one.number, "name": one.name, "digest": one.digest}
            literals = {name: sql.Literal(value) for name, value in record.items()}
            parts += [one.text.encode(), _composed("record_migration", **literals)]
        parts.append(_QUERIES["forget_roles"])
        if store_id is not None:
            parts.append(_composed("own_store", id=sql.Literal(store_id)))
        return b"\n;\n".join([*parts, _QUERIES["commit"], b""])

    def _contents(self, archive: Archive, dump: Member) -> bytes:
        """The dump's table of contents, but for what is left out."""
        with _fed([str(self._restore), "--list"], archive, dump) as listing:
            lines = listing.read().splitlines(keepends=True)
        return b"".join(line for line in lines if not _LEFT_OUT.match(line))

    # --- the programs ------------------------------------------------------------------------------------------------

    def _run(self, archive: Archive, dump: Member, contents: Path, end: bytes) -> None:
        arguments, environment = connecting(self._url, self._connection.info)
        command = [str(self._psql), *arguments, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 - PostgreSQL's own
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=environment
            ) as psql,
        ):
            try:
                with contextlib.suppress(BrokenPipeError), _input(psql) as into:  # it has ended, and says why
                    into.write(self._beginning())
                    self._pass_on(archive, dump, contents, into)
                    into.write(end)
            except BaseException:
                psql.kill()
                raise
            if psql.wait() != 0:
                raise BackupRefused(
                    f"The database could not be restored, and nothing of it was kept: {complaint(errors, self._url)}"
                )

    def _pass_on(self, archive: Archive, dump: Member, contents: Path, into: IO[bytes]) -> None:
        """What pg_restore makes of the dump. Raises BackupRefused where it cannot read all of it."""
        command = [str(self._restore), "--file=-", "--no-owner", "--no-privileges", f"--use-list={contents}"]
        with _fed(command, archive, dump) as script:
            head = script.read(_HEAD)
            into.write(
                head.replace(_UNKNOWN_BEFORE_17, b"") if self._connection.info.server_version < 170_000 else head
            )
            while piece := script.read(PIECE):
                into.write(piece)


def _composed(name: str, /, **parts: sql.Composable) -> bytes:
    return _QUERIES.composed(name, **parts).as_bytes(None)


def _input(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdin is None:
        raise ValueError("a process without an input")
    return process.stdin


@contextmanager
def _fed(command: list[str], archive: Archive, member: Member) -> Iterator[IO[bytes]]:
    """The output of a program that reads a member of the backup. Raises BackupRefused where it fails."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - PostgreSQL's own
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        failure: list[BaseException] = []

        def feed() -> None:
            try:
                with contextlib.suppress(BrokenPipeError), _input(process) as into:  # it needs no more
                    for piece in archive.pieces(member):
                        into.write(piece)
            except BaseException as exc:
                failure.append(exc)
                process.kill()

        feeder = threading.Thread(target=feed, name="dump")
        feeder.start()
        try:
            if process.stdout is not None:
                yield process.stdout
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
            feeder.join()
        if failure:
            raise failure[0]
        if code != 0:
            raise BackupRefused(f"The dump in the backup cannot be read: {complaint(errors, '')}")
