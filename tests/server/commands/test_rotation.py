"""A password of the database that changes while a server runs: no restart, and no request that is lost for long."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from server.postgres.server import EmbeddedPostgres
from tests.support.databases import discard
from tests.support.process import Serve, until


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """One whose role `shop` needs its password; all can walk to it, since under root it runs as another user."""
    with tempfile.TemporaryDirectory(prefix="twinlens-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        rules = Path(name) / "pg_hba.conf"
        rules.write_text("local all shop scram-sha-256\nlocal all all trust\n")
        rules.chmod(0o644)
        made = EmbeddedPostgres(Path(name) / "data", extra_settings=[f"hba_file={rules}"])
        try:
            made.start()
            yield made
        finally:
            discard(made)


class Mounted:
    """A folder as Kubernetes mounts a secret: the file is a link to a link, and the second link is swapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = 0
        self.file = folder / "url"

    def put(self, text: str) -> None:
        self._versions += 1
        version = self._folder / f"..version_{self._versions}"
        version.mkdir()
        (version / "url").write_text(text)
        (self._folder / "..new").symlink_to(version.name)
        os.replace(self._folder / "..new", self._folder / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/url")


def test_a_password_that_changes_in_its_file_needs_no_restart(
    serve: Serve, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    found = urlsplit(postgres.url)
    mounted = Mounted(tmp_path)

    def url(password: str) -> str:
        return f"postgresql://shop:{password}@{found.path}?{found.query}\n"

    with psycopg.connect(postgres.url, autocommit=True) as owner:
        owner.execute("CREATE ROLE shop SUPERUSER LOGIN PASSWORD 'fir@st'")
        mounted.put(url("fir%40st"))
        process = serve("--database-url-file", str(mounted.file)).ready()
        children = [child.environ() for child in psutil.Process(process.process.pid).children(recursive=True)]
        assert not [value for one in children for value in one.values() if "fir%40st" in value]
        owner.execute("ALTER ROLE shop PASSWORD 'second'")
        mounted.put(url("second"))
        ended = owner.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'shop'")
        assert ended.fetchall()[0][0] > 0
        with process.client() as client:
            until(lambda: client.get("/health/ready").status_code == 200)
            assert client.put("/v1/products/kettle", json={"name": "Kettle"}).status_code == 201
            # Once more, with a file that names nobody: what is refused shows no password.
            owner.execute("ALTER ROLE shop PASSWORD 'thirdthird'")
            owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
            until(lambda: client.get("/health/ready").status_code == 503)
            mounted.put(url("thirdthird"))
            until(lambda: client.get("/health/ready").status_code == 200)
        process.worker.kill()
        process.ready(times=2)
        with process.client() as client:
            assert client.get("/v1/products/kettle").status_code == 200
        assert process.stop() == 0
    for password in ("fir@st", "fir%40st", "second@", "thirdthird"):
        assert password not in "".join(process.log)
