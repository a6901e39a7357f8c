"""nginx and Caddy as Debian ships them, in front of a server, with the very files that operators copy and with TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import ROOT
from tests.support.process import PATIENCE, free_port, until

SITE = "search.shop.example"
NGINX, CADDY = "/usr/sbin/nginx", "/usr/bin/caddy"

needs_gateways = pytest.mark.skipif(
    not (os.access(NGINX, os.X_OK) and os.access(CADDY, os.X_OK)) and not os.environ.get("CI"),
    reason="needs Debian's packages nginx and caddy",
)


@dataclass(frozen=True)
class Certificate:
    chain: Path
    key: Path


@dataclass(frozen=True)
class Gateway:
    port: int
    plain_port: int
    """Of plain HTTP, which leads to TLS."""
    certificate: Certificate
    log: Path

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """It believes the certificate for `SITE` alone, and finds `SITE` here."""
        trusted = ssl.create_default_context(cafile=str(self.certificate.chain))

        def named(request: httpx.Request) -> None:
            request.headers["Host"] = f"{SITE}:{self.port}"
            request.extensions["sni_hostname"] = SITE

        hooks = {"request": [named]}
        base = f"https://127.0.0.1:{self.port}"
        with httpx.Client(base_url=base, verify=trusted, event_hooks=hooks, timeout=PATIENCE) as client:
            yield client


def certificate(folder: Path) -> Certificate:
    """For `SITE`, signed by itself."""
    made = Certificate(folder / "fullchain.pem", folder / "privkey.pem")
    key: list[str | Path] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", made.key]
    names = ["-subj", f"/CN={SITE}", "-addext", f"subjectAltName=DNS:{SITE}"]
    command = ["openssl", "req", "-x509", *key, *names, "-days", "1", "-out", made.chain]
    subprocess.run(command, check=True, capture_output=True)
    return made


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Each must be there, so that what is tested stays what is shown."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Gateway]:
    """`upstream`: host and port."""
    made, port, plain, log = certificate(folder), free_port(), free_port(), folder / "access.log"
    site = replaced(
        (ROOT / "deploy" / "nginx" / "twinlens.conf").read_text(),
        ("server 127.0.0.1:8000;", f"server {upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        (f"/etc/ssl/{SITE}/fullchain.pem", str(made.chain)),
        (f"/etc/ssl/{SITE}/privkey.pem", str(made.key)),
        ("/var/log/nginx/twinlens.log", str(log)),
    )
    with _nginx(folder, site, port):
        yield Gateway(port, plain, made, log)


PREFIX = "/search"


@contextmanager
def nginx_below(folder: Path, upstream: str) -> Iterator[str]:
    """nginx as docs/operations.md has it, which shows the upstream below `PREFIX`; gives its address, without that."""
    chapter = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("\n## Behind a proxy, below a prefix\n")[2]
    blocks = [block for block in chapter.partition("\n## ")[0].split("\n\n") if block.startswith("    ")]
    outside, inside = replaced("\n\n".join(blocks[:2]), ("127.0.0.1:8000", upstream)).split("\n\n")
    port = free_port()
    with _nginx(folder, f"{outside}\nserver {{\nlisten 127.0.0.1:{port};\naccess_log off;\n{inside}\n}}\n", port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def caddy_below(folder: Path, upstream: str) -> Iterator[str]:
    """The same with Caddy, as the text there has it."""
    port, whole = free_port(), folder / "Caddyfile"
    whole.write_text(
        f"{{\n\tadmin off\n\tauto_https off\n}}\nhttp://127.0.0.1:{port} {{\n\thandle_path {PREFIX}/* {{\n"
        f"\t\treverse_proxy {upstream} {{\n\t\t\theader_up X-Forwarded-Prefix {PREFIX}\n\t\t}}\n\t}}\n}}\n"
    )
    command = [CADDY, "run", "--config", str(whole), "--adapter", "caddyfile"]
    with _running(command, folder, port, HOME=str(folder), XDG_DATA_HOME=str(folder)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    """With this text within `http`, listening at the port."""
    (folder / "twinlens.conf").write_text(site)
    paths = "".join(
        f"    {kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = folder / "nginx.conf"
    # What Debian's nginx.conf has, as far as it matters here. The folder is for its owner alone.
    user = "user root;\n" if os.geteuid() == 0 else ""
    whole.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\n    include /etc/nginx/mime.types;\n    default_type application/octet-stream;\n{paths}"
        f"    include {folder}/twinlens.conf;\n}}\n"
    )
    command = [NGINX, "-e", str(folder / "error.log"), "-c", str(whole)]
    checked = subprocess.run([*command, "-t"], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr
    with _running(command, folder, port):
        yield


@contextmanager
def caddy(folder: Path, upstream: str) -> Iterator[Gateway]:
    made, port, plain, log = certificate(folder), free_port(), free_port(), folder / "access.log"
    site = replaced(
        (ROOT / "deploy" / "caddy" / "Caddyfile").read_text(),
        # A certificate of the test's own, since nobody would sign one for this name; and the log in a file.
        ("{$SITE:search.shop.example} {\n", f"{{$SITE}} {{\n\ttls {made.chain} {made.key}\n"),
        ("\tlog {\n", f"\tlog {{\n\t\toutput file {log}\n"),
    )
    whole = folder / "Caddyfile"
    whole.write_text(f"{{\n\tadmin off\n\tdefault_bind 127.0.0.1\n\thttp_port {plain}\n\thttps_port {port}\n}}\n{site}")
    command = [CADDY, "run", "--config", str(whole), "--adapter", "caddyfile"]
    formatted = subprocess.run([CADDY, "fmt", ROOT / "deploy" / "caddy" / "Caddyfile"], text=True, capture_output=True)
    assert formatted.stdout == (ROOT / "deploy" / "caddy" / "Caddyfile").read_text(), "as `caddy fmt` has it"
    given = {"SITE": f"{SITE}:{port}", "UPSTREAM": upstream, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with _running(command, folder, port, **given):
        yield Gateway(port, plain, made, log)


@contextmanager
def _running(command: list[str], folder: Path, port: int, **environment: str) -> Iterator[None]:
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command, env={"PATH": os.environ["PATH"], **environment}, stdout=output, stderr=output
        )
        try:
            until(lambda: _listens(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "output").read_text()
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
