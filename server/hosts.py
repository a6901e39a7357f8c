"""Hosts as an operator lists them: `cdn.example.com`, `*.example.com`, `images.example.com:8443`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

USUAL_PORTS = {"http": 80, "https": 443}

LONGEST_URL = 8000
"""Characters of a URL."""

_LONGEST_NAME = 253
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# A name whose last label is a number, also in hexadecimal, is an IPv4 address to many resolvers: 127.1, 0x7f000001.
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\Z){_LABEL}")
_LISTED = re.compile(r"(?P<below>\*\.)?(?P<name>[^:]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_MOST_PORT = 65535


def is_name(text: str) -> bool:
    """Whether it is the name of a host in small ASCII letters, rather than an address."""
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Host:
    """One host, or all below a name."""

    name: str
    below: bool
    port: int | None
    """None: the usual port of the scheme."""

    @classmethod
    def of(cls, text: str) -> Host:
        """Raises ValueError with what it must be."""
        found = _LISTED.fullmatch(text.lower())
        # `*.com` would be half of all hosts.
        if (
            found is None
            or not is_name(found["name"])
            or (found["below"] and "." not in found["name"])
            or int(found["port"] or 1) > _MOST_PORT
        ):
            raise ValueError(
                "names of hosts with commas between them, such as cdn.example.com, *.example.com or "
                "images.example.com:8443: no scheme, no path, no address"
            )
        return cls(found["name"], found["below"] is not None, int(found["port"]) if found["port"] else None)

    def __str__(self) -> str:
        return f"{'*.' if self.below else ''}{self.name}{f':{self.port}' if self.port else ''}"

    def is_of(self, scheme: str, name: str, port: int) -> bool:
        """Whether a URL of this scheme, name and port leads to it; `name` in small letters."""
        same = name.endswith(f".{self.name}") if self.below else name == self.name
        return same and port == (self.port or USUAL_PORTS[scheme])


def allowed(hosts: Iterable[Host], scheme: str, name: str, port: int) -> bool:
    return any(host.is_of(scheme, name, port) for host in hosts)
