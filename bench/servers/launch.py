"""python -m bench.servers.launch SERVER: Twinlens behind another HTTP server, with the flags of `python -m server`.

It does what `python -m server` does before its worker starts: settings, artifact, database, migrations, space. The
server is then a child with one worker; `python -m bench servers` has installed it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

from server.artifact.artifact import Artifact
from server.commands.flags import add_flags, flags_of
from server.database import migrations
from server.operations.address import held
from server.operations.logs import log_to_stderr
from server.operations.workers import PLACES
from server.postgres.server import EmbeddedPostgres
from server.settings import Settings, variable_of
from server.spaces.spaces import SpaceDescription, open_space

_APP = "server.app:from_environment"
# Seconds for requests in flight when it ends, as `python -m server` gives them.
_PATIENCE = "40"


def _uvicorn(settings: Settings) -> Sequence[str]:
    where = ["--host", settings.host, "--port", str(settings.port)]
    how = ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--log-level", "warning"]
    return ["uvicorn", _APP, "--factory", *where, *how, "--timeout-graceful-shutdown", _PATIENCE]


def _hypercorn(settings: Settings) -> Sequence[str]:
    where = ["--bind", f"{settings.host}:{settings.port}"]
    how = ["--workers", "0", "--worker-class", "uvloop", "--log-level", "warning", "--graceful-timeout", _PATIENCE]
    return ["hypercorn", f"{_APP}()", *where, *how]


SERVERS: Mapping[str, Callable[[Settings], Sequence[str]]] = {"uvicorn": _uvicorn, "hypercorn": _hypercorn}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, which is passed on to the server; its exit code."""
    parser = argparse.ArgumentParser("python -m bench.servers.launch")
    add_flags(parser)
    parser.add_argument("server", choices=list(SERVERS))
    given = parser.parse_args(arguments)
    flags = flags_of(given)
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = Settings.read(os.environ, flags)
    with held(settings.host, settings.port):
        pass  # it is free; the server that follows would not share it
    artifact = Artifact.read(settings.model)
    with EmbeddedPostgres(settings.data) as postgres, tempfile.TemporaryDirectory(prefix="twinlens-") as places:
        migrations.migrate(postgres.url)
        open_space(postgres.url, SpaceDescription.of(artifact, settings.precision))
        variables = {variable_of(name): text for name, text in flags.items() if text is not None}
        variables |= {variable_of("database_url"): postgres.url, PLACES: places}
        server = subprocess.Popen(  # noqa: S603 - made above
            [sys.executable, "-m", *SERVERS[given.server](settings)], env=os.environ | variables
        )
        try:
            return server.wait()
        except SystemExit:
            server.terminate()
            return server.wait()


if __name__ == "__main__":
    sys.exit(main())
