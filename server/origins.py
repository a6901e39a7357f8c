"""Origins of pages, as browsers send them in the header `Origin`: `https://shop.example`, without a path."""

from __future__ import annotations

import re

_LONGEST = 300
# As browsers write it: small letters, a host in ASCII or an address, and a port only where it is not the scheme's own.
# Other schemes are those of apps that show pages, such as capacitor://localhost.
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_USUAL_PORTS = {"http": "80", "https": "443"}


def check_origin(text: str) -> str:
    """The origin, if it is one in the form that browsers send. Raises ValueError with what it must be."""
    found = _ORIGIN.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None or found["port"] == _USUAL_PORTS.get(found["scheme"], ""):
        raise ValueError(
            "an exact origin as browsers send it, such as https://shop.example: small letters, no path, no slash at "
            "its end, and no port where it is the usual one"
        )
    return text
