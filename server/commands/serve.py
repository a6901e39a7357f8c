"""python -m server serve: the address, PostgreSQL, migrations, the space, then the workers; and the end in reverse."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from psycopg import Connection
from psycopg.rows import TupleRow

from server import __version__
from server.access import stored_keys
from server.artifact.artifact import Artifact
from server.commands.supervisor import Supervisor
from server.database import isolation, migrations
from server.database.connections import connect
from server.engine import try_model
from server.errors import FolderInUse, StartRefused
from server.ingest import mark
from server.ingest.storage import MediaStore
from server.operations.address import Address, held
from server.operations.logs import log_of_server, log_to_stderr, say_refused
from server.operations.metrics import SHARED
from server.operations.open_files import most_connections
from server.operations.restarts import Restarts
from server.operations.running import STARTED
from server.operations.workers import PLACES, REFUSAL_FILE, wanted, was_ready
from server.postgres.server import EmbeddedPostgres
from server.settings import PREFIX, TEST_PREFIX, Settings, as_text, file_of, variable_of
from server.spaces.spaces import SpaceDescription, open_space, require_live

_log = logging.getLogger(__name__)

# A worker that still drains after the deadline of a request and this margin is killed.
_DRAIN_MARGIN_SECONDS = 10


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered."""
    with log_of_server(settings.printable, settings.log), held(settings.host, settings.port) as address:
        started = time.monotonic()
        _log_start(settings)
        artifact = Artifact.read(settings.model)
        artifact.check_files(artifact.files_to_run(settings.precision))
        restarts = Restarts()
        with open_database(settings, on_restart=partial(restarts.note, "postgres")) as url:
            _see_to_keys(settings, url)
            _make_ready(settings, artifact, url)
            code = _run_workers(replace(settings, port=address.port), url, address, restarts)
        if code == 0:
            _log.info("Stopped after %.0f s.", time.monotonic() - started, extra={"fields": {"event": "stopped"}})
        return code


def _log_start(settings: Settings) -> None:
    _log.info(
        "Twinlens %s starts, with Python %s on %s.",
        __version__,
        platform.python_version(),
        platform.platform(),
        extra={"fields": {"event": "start", "version": __version__}},
    )
    changed = [f"{name}={shlex.quote(value)}" for name, value in settings.described(changed=True).items()]
    _log.info(
        "Settings: %s.",
        f"{' '.join(changed)}, and for the rest the defaults" if changed else "the defaults",
        extra={"fields": {"event": "settings", "settings": settings.described()}},
    )


def _see_to_keys(settings: Settings, url: str) -> None:
    """Say whether callers need a key. Raises StartRefused where they do not and others can reach the address.

    Before anything of the database is changed: where it is of an older version, that one can still be started then.
    """
    with connect(url) as connection:
        on = stored_keys.are_on(connection)
    if on:
        _log.info("Callers need a key.")
    elif not settings.exposed:
        _log.info("Callers need no key: only this machine can call.")
    elif settings.trust_network:
        _log.warning("Listening on %s without keys: whoever can reach it can read and delete.", settings.host)
    else:
        raise StartRefused(
            f"{variable_of('host')} is {settings.host}, which others can reach, and callers need no key yet. Make one, "
            "and start again: python -m server keys create --client CLIENT --scope search,read,write - or listen on "
            f"127.0.0.1, or set {variable_of('trust_network')}=on where a gateway in front decides who may call."
        )


def _make_ready(settings: Settings, artifact: Artifact, url: str) -> None:
    """Bring the database to this version's schema, and make sure of the space and the store. Raises StartRefused."""
    described = SpaceDescription.of(artifact, settings.precision)
    store = MediaStore.at(settings.media_url, settings.data / "media")

    def last_look(connection: Connection[TupleRow], catalogue: bool) -> None:
        if catalogue:
            require_live(connection, described)
        mark.look(connection, store, catalogue=catalogue)
        if catalogue:
            _prove_model(settings)

    migrations.migrate_directly(settings, url, last_look=last_look)
    open_space(url, described)
    mark.settle(url, store)
    isolation.arrange(url, settings.serving_url)


def _prove_model(settings: Settings) -> None:
    """That the model can be served on this machine, by opening it in a process that then ends.

    An older version cannot be started on a database that has been migrated, so a model that fails here must fail before
    that. Raises StartRefused.
    """
    _log.info("The database is of an older version. Before it is changed, the model is tried.")
    try:
        # Spawned, since this process has threads; and apart, since it needs no model's memory and no GPU.
        spawn = multiprocessing.get_context("spawn")
        logging_there = (settings.printable, settings.log)
        with ProcessPoolExecutor(1, spawn, initializer=log_to_stderr, initargs=logging_there) as process:
            refusal = process.submit(try_model, settings).result()
    except BrokenProcessPool as exc:
        raise StartRefused(
            "The database is of an older version and was not changed: the process that tried the model died. It may "
            "have had too little memory."
        ) from exc
    if refusal is not None:
        raise StartRefused(refusal)


def database_url(settings: Settings) -> int:
    """Print the URL of the database that `serve` uses with these settings, with its owner's rights."""
    print(settings.owners_url or EmbeddedPostgres(settings.data).url)
    return 0


@contextlib.contextmanager
def open_database(
    settings: Settings, *, beside: bool = False, on_restart: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """The URL of the database's owner: that of the settings, or of an embedded one that runs as long as this block.

    `beside`: where another process runs the embedded one, use that. Otherwise this is the folder's one server, which
    uses that as well, and runs it from that process's end on; raises FolderInUse where there is one already.
    `on_restart` is called each time the embedded one has ended and is started again.
    """
    if (url := settings.owners_url) is not None:
        yield url
        return
    postgres = EmbeddedPostgres(settings.data, inherit=not beside)
    postgres.on_restart = on_restart
    try:
        postgres.start()
    except FolderInUse:
        if not beside:
            raise
        yield postgres.url
        return
    with postgres:
        # Before anything else: a dump names the role, and can be restored only where there is one.
        isolation.make_role(postgres.url)
        yield postgres.url


def _run_workers(settings: Settings, url: str, address: Address, restarts: Restarts) -> int:
    # Spawned, not forked: this process has threads (one watches PostgreSQL), and locks do not survive a fork.
    multiprocessing.set_start_method("spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="twinlens-") as folder:
        refusal = Path(folder) / "refusal"
        restarts.into(Path(folder))
        for name in [one for one in os.environ if one.startswith(PREFIX) and not one.startswith(TEST_PREFIX)]:
            del os.environ[name]
        os.environ.update(_environment(settings, url))
        os.environ[REFUSAL_FILE] = str(refusal)
        os.environ[PLACES] = folder
        os.environ[STARTED] = repr(time.time())
        count = wanted(settings)
        os.environ.pop(SHARED, None)
        if count > 1:
            shared = Path(folder) / "metrics"
            shared.mkdir()
            os.environ[SHARED] = str(shared)
        connections = most_connections()
        server = Supervisor(
            "server.app:from_environment",
            factory=True,
            address=address.host,
            port=address.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            workers=count,
            backlog=connections,
            backpressure=connections,
            # The buffer is what a connection may hold that nobody has read yet: each of a thousand senders fills it.
            http1_settings=HTTP1Settings(
                header_read_timeout=int(settings.head_seconds * 1000), max_buffer_size=settings.max_head
            ),
            is_ready=lambda: was_ready(Path(folder)),
            on_restart=partial(restarts.note, "worker"),
            workers_kill_timeout=int(settings.deadline) + _DRAIN_MARGIN_SECONDS,
            log_level=LogLevels.warning,
        )
        with contextlib.suppress(SystemExit):
            server.serve()
        if refusal.exists():
            say_refused(settings.printable(refusal.read_text()), settings.log)
            return 2
        if server.failure is not None:
            raise server.failure
        return 0 if server.interrupt_signal else 1


def _environment(settings: Settings, url: str) -> dict[str, str]:
    """All settings as variables, those of flags included, for the workers: no secret that lies in a file."""
    values = {one.name: getattr(settings, one.name) for one in fields(settings)}
    values["database_url"] = settings.database_url or url
    for one in fields(settings):
        if one.metadata["secret"] and values[file_of(one.name)] is not None:
            values[one.name] = None  # the workers read the file
    return {variable_of(name): as_text(value) for name, value in values.items()}
