"""The address to listen on: nobody else's, before anything else of a start happens, and for as long as it lasts.

Workers share their port with SO_REUSEPORT, so the system would let a second server share it as well: each of the two
would get a part of the requests. `held` makes sure that there is one server, and does so in the kernel: no file is left
behind, and a process that is killed gives its address back.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from server.errors import AddressRefused
from server.settings import flag_of, variable_of

# The worker of a server that was killed a moment ago still has to end.
_PATIENCE_SECONDS = 3.0
_PAUSE_SECONDS = 0.05
_TRIES_FOR_A_FREE_PORT = 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: an IP address, and a port that is not 0."""

    host: str
    port: int


@contextlib.contextmanager
def held(host: str, port: int) -> Iterator[Address]:
    """Keep others from listening at this address for as long as this block lasts; our own workers may.

    A name is resolved, to an IPv4 address where it has one; port 0 becomes one that is free. Raises AddressRefused when
    the address is taken, is not one of this machine, or may not be used by this user.
    """
    family, ip = _resolve(host)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            holder = _hold(family, ip, port) if port else _hold_any(family, ip)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _refusal(exc, host, ip, port) from exc
            time.sleep(_PAUSE_SECONDS)
        else:
            break
    with holder:
        yield Address(ip, holder.getsockname()[1])


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        raise AddressRefused(
            f"{variable_of('host')} is {host!r}, which is neither an IP address nor a name that this machine knows. "
            "Listen on 127.0.0.1, or on an address of this machine."
        ) from exc
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, str(address[0])


def _hold(family: socket.AddressFamily, ip: str, port: int) -> socket.socket:
    """A socket that has the address to itself, and yet does not listen. Raises OSError."""
    holder = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:  # as granian's own sockets: `::` is all addresses, IPv4 included
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ip != "::"))
        # Connections of an earlier server that are just ending do not count. Nor do others' sockets that only begin to
        # hold the address; but of all those, one alone can listen.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((ip, port))
        holder.listen(1)
        # From here on it stands in the way of whoever wants the port for himself, and not of workers that share it.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.shutdown(socket.SHUT_RD)  # stops listening, and stays bound
    except BaseException:
        holder.close()
        raise
    return holder


def _hold_any(family: socket.AddressFamily, ip: str) -> socket.socket:
    """As `_hold`, at a port that is free. A port that the kernel has chosen is lost when the socket stops listening."""
    for left in reversed(range(_TRIES_FOR_A_FREE_PORT)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((ip, 0))
            port = probe.getsockname()[1]
        try:
            return _hold(family, ip, port)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not left:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _refusal(error: OSError, host: str, ip: str, port: int) -> AddressRefused:
    where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    another = f"choose another port with {flag_of('port')} or {variable_of('port')}"
    if error.errno == errno.EADDRINUSE:
        return AddressRefused(
            f"Something listens at {where} already, perhaps another Twinlens: stop it, or {another}. Nothing was "
            "started."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return AddressRefused(
            f"{variable_of('host')} is {host}, which is no address of this machine: listen on 127.0.0.1, or on "
            "an address that this machine has."
        )
    if error.errno == errno.EACCES:
        return AddressRefused(f"This user may not listen at {where}: ports below 1024 need a right; {another}.")
    return AddressRefused(f"The server cannot listen at {where}: {error.strerror or error}.")
