"""Making a backup: a snapshot of the database, then the pictures that its rows promise, in one file.

The order is what makes it whole while servers go on writing. Bytes are stored before their row, so at the moment of the
snapshot every row that it sees has its bytes; and from before that moment on no server removes any (see snapshot.py).
Whatever is added afterwards is not in the snapshot, and not in the backup.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from server.backup.archive import DUMP, MANIFEST, PIECE, PROBLEMS, README, ArchiveWriter
from server.backup.manifest import FORMAT, Manifest
from server.backup.pictures import Copied, Pictures, remember
from server.backup.readme import TEXT
from server.backup.snapshot import Snapshot, keeping, taken
from server.backup.unfinished import unfinished
from server.database.connections import Direct
from server.errors import DatabaseUnusable, StorageFailed, StoreRefused
from server.ingest.mark import ask
from server.ingest.storage import MediaStore
from server.operations.progress import ShowProgress
from server.postgres.programs import complaint, connecting, find_program, version_of


class Made(msgspec.Struct, frozen=True):
    """A backup that has been made."""

    manifest: Manifest
    bytes: int
    """Of the whole file."""
    copied: Copied


def make(
    direct: Direct,
    store: MediaStore,
    path: Path,
    *,
    with_media: bool = True,
    show: ShowProgress,
    say: Callable[[str], None],
) -> Made:
    """Write a backup of the database, with its pictures, to `path`, where nothing may be yet.

    `say` is told what begins. Raises BackupRefused, StoreRefused, DatabaseUnusable and its kinds; then nothing is left.
    """
    folder = path.absolute().parent
    with (
        unfinished(path) as file,
        keeping(direct) as keeper,
        tempfile.TemporaryFile(dir=folder) as sums,
        tempfile.TemporaryFile(dir=folder) as promised,
        tempfile.TemporaryFile(dir=folder) as problems,
    ):
        try:
            with taken(direct) as snapshot:
                store.expected = snapshot.described.store
                if with_media:
                    ask(store.look())
                objects = remember(snapshot.objects(), promised)
                program = find_program("pg_dump", snapshot.described.postgres)
                manifest = _manifest(snapshot, program, objects, with_media)
                writer = ArchiveWriter(file, sums, int(snapshot.described.at.timestamp()))
                writer.add(README, TEXT.encode())
                writer.add(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
                say(f"Dumping the database {snapshot.described.database}.")
                with writer.growing(DUMP) as add:
                    _dump(program, direct, snapshot, add)
            copied = Copied()
            if with_media:
                progress = show(objects, "pictures and thumbnails")
                copied = asyncio.run(Pictures(store, writer, problems, progress).copy(promised))
                keeper.require()
            if problems.tell():
                problems.seek(0)
                with writer.growing(PROBLEMS) as add:
                    while piece := problems.read(PIECE):
                        add(piece)
        except StorageFailed as exc:
            raise StoreRefused(
                f"No backup was made: the store of pictures at {store.where} cannot be used ({exc.reason})."
            ) from exc
        writer.close()
        return Made(manifest, file.tell(), copied)


def _manifest(snapshot: Snapshot, program: Path, objects: int, with_media: bool) -> Manifest:
    seen = snapshot.described
    return Manifest(
        format=FORMAT,
        id=uuid.uuid4().hex,
        created_at=seen.at.isoformat(timespec="seconds"),
        postgres=seen.postgres,
        dumped_by=version_of(program),
        schema=seen.schema,
        vector_schema=seen.vector_schema,
        migrations=seen.migrations,
        store=seen.store,
        with_media=with_media,
        products=seen.products,
        media=seen.media,
        objects=objects,
        space=seen.space,
        model=seen.model,
        other_roles=seen.other_roles,
    )


def _dump(program: Path, direct: Direct, snapshot: Snapshot, add: Callable[[bytes], None]) -> None:
    """Have pg_dump write the database as the snapshot sees it. Raises DatabaseUnusable."""
    arguments, environment = connecting(direct.url, snapshot.server)
    command = [
        *(str(program), *arguments, "--format=custom", "--compress=1", "--encoding=UTF8"),
        f"--snapshot={snapshot.name}",
        # Of the database, what is the catalogue's: hosted PostgreSQLs have much else beside it.
        *("--extension=vector", "--no-publications", "--no-subscriptions", "--no-blobs", "--no-unlogged-table-data"),
        *(f"--exclude-schema={_literally(schema)}" for schema in snapshot.described.other_schemas),
    ]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - PostgreSQL's own
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment
        ) as process,
    ):
        try:
            while process.stdout is not None and (piece := process.stdout.read(PIECE)):
                add(piece)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            raise DatabaseUnusable(f"The database could not be dumped: {complaint(errors, direct.url)}")


def _literally(name: str) -> str:
    """A name as a pattern of pg_dump's that means this name alone."""
    return '"' + name.replace('"', '""') + '"'
