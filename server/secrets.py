"""Passwords: read from files, looked at before anything else reads them, and hidden in whatever is printed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

_HIDDEN = "***"
_SHORT = 4

# A file that was changed just now may be changed again without that its time tells.
_SETTLED_SECONDS = 2.0

_ESCAPES = "In a user's name or a password, write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25."

# Parameters of a PostgreSQL URL that are secret; the others may be printed.
SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


def read_secret(path: Path, patience: float = 0.0) -> str:
    """What a file of one line holds, without the line's end. Raises ValueError with what is wrong, and no contents.

    `patience`: seconds in which a file that is missing or empty may come, since one that is replaced by hand may be
    either for a moment.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _read_secret(path)
        except ValueError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _read_secret(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    if "\n" in text or "\r" in text:
        raise ValueError(f"{path} has more than one line")
    return text


def check_database_url(text: str) -> str:
    """The URL as it is. Raises ValueError where a part of its password would be taken for a host, port or database.

    libpq repeats those in its errors. Not a word of the URL is in ours.
    """
    if not text.startswith(("postgresql://", "postgres://")):
        return text
    rest = text.split("://", 1)[1]
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", rest):
        raise ValueError(f"a URL in which each % begins an escape such as %40. {_ESCAPES}")
    where = rest[len(_credentials(rest)) :].removeprefix("@").partition("?")[0]
    hosts, _, path = where.partition("/")
    if "@" in hosts or "@" in path:
        raise ValueError(f"a URL with one @, before the host. {_ESCAPES}")
    for host in hosts.split(","):
        if not re.fullmatch(r"(\[[^\[\]/]*\]|[^\[\]:\s]*)(:[0-9]{0,5})?", host):
            raise ValueError(f"a URL whose host and port read like db.example:5432. {_ESCAPES}")
    return text


def _credentials(rest: str) -> str:
    """What libpq takes for user and password: all that is before an @ to which no / comes first."""
    found = re.match(r"([^@/]*)@", rest)
    return found[1] if found else ""


@lru_cache(maxsize=64)
def secrets_of(url: str | None) -> frozenset[str]:
    """The parts of a URL, or of PostgreSQL's `name=value` form, that nobody may read, as written and as they are meant.

    Of a store's URL all parameters count, since signatures and keys are given there.
    """
    if not url:
        return frozenset()
    if "://" not in url:
        quoted = re.findall(r"(?:password|secret)\w*\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))", url)
        found = {quote or bare for quote, bare in quoted}
        return frozenset(form for one in found for form in (one, re.sub(r"\\(.)", r"\1", one)) if form)
    scheme, _, rest = url.partition("://")
    written = {_credentials(rest).partition(":")[2]}
    database = scheme in ("postgresql", "postgres")
    for pair in rest[len(_credentials(rest)) :].partition("?")[2].split("&"):
        name, _, value = pair.partition("=")
        if not database or unquote(name) in SECRET_PARAMETERS:
            written.add(value)
    return frozenset(one for one in written | {unquote(one) for one in written} if one)


def secrets_in(path: Path) -> frozenset[str]:
    """The same of the URL that a file holds now; none where it holds none. Each line of the log asks."""
    try:
        state = path.stat()
    except OSError:
        return frozenset()
    if time.time() - state.st_mtime < _SETTLED_SECONDS:
        return _secrets_in(path)
    return _known_secrets_in(path, state.st_ino, state.st_mtime_ns, state.st_size)


def _secrets_in(path: Path) -> frozenset[str]:
    try:
        return secrets_of(_read_secret(path))
    except ValueError:  # said where the value is needed
        return frozenset()


@lru_cache(maxsize=64)
def _known_secrets_in(path: Path, *state: int) -> frozenset[str]:
    """`state`: what a change of the file changes, too."""
    return _secrets_in(path)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text with each secret replaced. A very short one is replaced only where it stands alone, as a word."""
    for one in sorted(secrets, key=len, reverse=True):
        if len(one) >= _SHORT:
            text = text.replace(one, _HIDDEN)
        elif one:
            text = re.sub(rf"(?<!\w){re.escape(one)}(?!\w)", _HIDDEN, text)
    return text
