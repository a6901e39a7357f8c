"""The path below which a proxy shows this server, as `X-Forwarded-Prefix` names it.

Anybody may send the header, and its value goes into the page and into the API's description. So it is a plain path and
nothing else: no markup, no other host (`//elsewhere`), no step upwards. Whatever else it says is ignored.
"""

from __future__ import annotations

import re

from server.http.request import Request

HEADER = "X-Forwarded-Prefix"

_LONGEST = 500
# Segments that are no `.` or `..`, however written, and never two slashes side by side, which would name a host.
_PREFIX = re.compile(r"(?:/(?!(?:\.|%2[Ee]){1,2}(?:/|$))(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+)+")


def prefix_of(request: Request) -> str:
    """The path as `/shop/search`, without a slash at its end; empty where there is none or where it is no plain path.

    Several proxies, one behind the other, each add a value: the outermost comes first, and together they are the path.
    """
    given = ",".join(request.headers.getall(HEADER, []))
    path = "".join(one.strip().rstrip("/") for one in given.split(","))
    return path if len(path) <= _LONGEST and _PREFIX.fullmatch(path) else ""
