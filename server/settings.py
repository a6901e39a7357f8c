"""Settings: what an operator may choose when the server starts. The only reader of the environment.

Each setting is a field here, a variable `TWINLENS_<NAME>` and a flag `--<name>` of `python -m server`; a flag wins
over the variable. A new setting needs one line here and one in docs/operations.md (a test compares them). One that may
hold a secret has a second one beside it, `<name>_file`, for the file that holds its value.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from server.artifact.artifact import Device, Precision
from server.errors import BadSetting
from server.hosts import Host
from server.limits import FORM, limits_in
from server.origins import check_origin
from server.secrets import check_database_url, read_secret, redacted, secrets_in, secrets_of

_log = logging.getLogger(__name__)

PREFIX = "TWINLENS_"
TEST_PREFIX = f"{PREFIX}TEST_"
"""Of variables that are the tests' and no settings."""

MAX_PIXELS = 64_000_000
"""The most pixels of a picture, by default; the export reads no larger ones either."""

CLIENTS_OWN = frozenset(f"{PREFIX}{name}" for name in ("URL", "KEY", "KEY_FILE", "CLIENT"))
"""Variables of the client library and its command, which may be set on the machine of a server."""

ANY_ORIGIN = "*"
"""Among `cors_origins`: pages of any origin, where a search key is enough."""

_MANY = 1024
_MOST_DAYS = 36_500

_SMALLEST_HEAD = 8192

# So many of the largest bodies are held at a time, by default.
_BODIES = 16

Decoder = Literal["pillow", "nvimagecodec"]

Counting = Literal["local", "exact"]

Pooling = Literal["auto", "session", "transaction"]

LogForm = Literal["text", "json"]

# Nothing ends a signed address before its time.
_LONGEST_LIFETIME_SECONDS = 7 * 86_400

_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def _size(text: str) -> int:
    """`32 MB`, `512KiB`, `1000000`: a number of bytes."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _SIZES:
        raise ValueError("a size such as 32MB")
    return _positive(int(float(found[1]) * _SIZES[found[2]]))


def _count(text: str) -> int:
    try:
        return _positive(int(text))
    except ValueError:
        raise ValueError("a whole number above 0") from None


def _few_or_auto(text: str) -> int | None:
    """Workers, threads, or pictures in a batch; a larger number is a slip of the hand, and would use up the memory."""
    if text.lower() == "auto":
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MANY:
        raise ValueError(f"a whole number from 1 to {_MANY}, or auto")
    return int(text)


def _size_or_none(text: str) -> int:
    return 0 if text.strip() == "0" else _size(text)


def _size_or_auto(text: str) -> int | None:
    return None if text.strip().lower() == "auto" else _size(text)


def _head(text: str) -> int:
    """Below 8 KiB the HTTP server cannot be told to go."""
    size = _size(text)
    if size < _SMALLEST_HEAD:
        raise ValueError(f"a size of at least {_SMALLEST_HEAD:,} bytes")
    return size


def _limits(text: str) -> str:
    limits_in(text)
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not int(text) <= 65535:
        raise ValueError("a port, 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*s?", text.strip())
    if not found or float(found[1]) <= 0:
        raise ValueError("a number of seconds above 0, such as 30")
    return float(found[1])


def _lifetime(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,9})?)\s*([smhd]?)", text.strip())
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0
    if not 60 <= seconds <= _LONGEST_LIFETIME_SECONDS:
        raise ValueError("a time from 1m to 7d, such as 24h")
    return seconds


def _days(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text.strip()) or not int(text) <= _MOST_DAYS:
        raise ValueError(f"a whole number of days, 0 to {_MOST_DAYS:,}")
    return int(text)


def _networks(text: str) -> str:
    """Addresses and networks, such as `10.0.0.5, 192.168.0.0/16`, in one form."""
    try:
        found = [str(ipaddress.ip_network(one.strip())) for one in text.split(",") if one.strip()]
    except ValueError:
        raise ValueError("addresses or networks with commas between them, such as 10.0.0.5,192.168.0.0/16") from None
    return ",".join(found)


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text.strip()) or not 0.5 <= float(text) < 1:
        raise ValueError("a share from 0.5 to below 1, such as 0.99")
    return float(text)


def _positive(number: int) -> int:
    if number <= 0:
        raise ValueError("a number above 0")
    return number


def _switch(text: str) -> bool:
    if text.lower() in ("on", "1", "true", "yes"):
        return True
    if text.lower() in ("off", "0", "false", "no"):
        return False
    raise ValueError("on or off")


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return parse


def _origins(text: str) -> tuple[str, ...]:
    """Origins separated by commas, each once; `*` stands for any."""
    listed = [one.strip() for one in text.split(",") if one.strip()]
    try:
        return tuple(dict.fromkeys(one if one == ANY_ORIGIN else check_origin(one) for one in listed))
    except ValueError as exc:
        raise ValueError(f"* or, separated by commas, {exc}") from None


def _hosts(text: str) -> tuple[str, ...]:
    """Hosts separated by commas, each once."""
    return tuple(dict.fromkeys(str(Host.of(one.strip())) for one in text.split(",") if one.strip()))


def _path(text: str) -> Path:
    """Relative to the working directory, and written in full, so that it means the same wherever it is read again."""
    return Path(text).absolute()


def _store(text: str) -> str:
    return text if "://" in text else str(_path(text))


def _home() -> Path:
    """Where the defaults lie: the checkout with this code, whatever the working directory is.

    Where the code was copied somewhere without the checkout's pyproject.toml, such as into an environment that may be
    thrown away, it is the working directory.
    """
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


# A file that is just being replaced is awaited at a start.
_PATIENCE_SECONDS = 1.0

HOME = _home()
_DATA = ".twinlens"


def variable_of(name: str) -> str:
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def file_of(name: str) -> str:
    """The setting that names the file in which the value of this one lies."""
    return f"{name}_file"


def as_text(value: object) -> str:
    """A setting's value in the form that `Settings.read` parses."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.9f}"  # not 1e-05
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def _setting(default: object, parse: Callable[[str], Any], about: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "about": about, "secret": secret})


def _in_file(name: str) -> Any:
    """For a setting that may hold a secret: the file that holds its value."""
    return _setting(None, _path, f"file with the value of {flag_of(name)}; read again whenever it is needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting. Secrets are left out of its repr."""

    host: str = _setting("127.0.0.1", str, "address to listen on")
    port: int = _setting(8000, _port, "port to listen on")
    data: Path = _setting(HOME / _DATA, _path, "folder of the embedded database, the media and the caches")
    model: Path = _setting(HOME / "models" / "starter", _path, "folder of the model artifact")
    precision: Precision = _setting("fp32", _one_of(get_args(Precision)), "variant of the towers to run")
    device: Device = _setting("auto", _one_of(get_args(Device)), "auto (CUDA where available), cpu or cuda")
    workers: int | None = _setting(None, _few_or_auto, "processes that serve, or auto: one, or some for each GPU")
    threads: int | None = _setting(
        None, _few_or_auto, "threads of the model in each worker, or auto: one for each of its cores"
    )
    batch: int | None = _setting(
        None, _few_or_auto, "most pictures in one run of the model, or auto: measured at the first start"
    )
    decoder: Decoder = _setting(
        "pillow", _one_of(get_args(Decoder)), "decoder of JPEGs that are decoded in full: pillow or nvimagecodec"
    )
    tensorrt: bool = _setting(False, _switch, "run the image tower with TensorRT on CUDA, or refuse to start")
    target_recall: float = _setting(
        0.99, _share, "mean share of an exact search's matches that a search through an index should find; below 1"
    )
    cache: int = _setting(64_000_000, _size_or_none, "bytes of memory for vectors that may be asked for again; 0: none")
    database_url: str | None = _setting(
        None, check_database_url, "PostgreSQL with pgvector; embedded when not given", secret=True
    )
    database_url_file: Path | None = _in_file("database_url")
    owner_database_url: str | None = _setting(
        None,
        check_database_url,
        "the same database as the owner of its tables, where DATABASE_URL is of a role that only serves",
        secret=True,
    )
    owner_database_url_file: Path | None = _in_file("owner_database_url")
    direct_database_url: str | None = _setting(
        None,
        check_database_url,
        "the same database without a pooler in between, for what a pooler hinders",
        secret=True,
    )
    direct_database_url_file: Path | None = _in_file("direct_database_url")
    read_database_url: str | None = _setting(
        None,
        check_database_url,
        "streaming standbys of that PostgreSQL, for searches; none when not given",
        secret=True,
    )
    read_database_url_file: Path | None = _in_file("read_database_url")
    pooling: Pooling = _setting(
        "auto", _one_of(get_args(Pooling)), "how a pooler before the database works: session, transaction, or auto"
    )
    media_url: str | None = _setting(
        None, _store, "store of the media's bytes; a folder in DATA when not given", secret=True
    )
    media_url_file: Path | None = _in_file("media_url")
    deadline: float = _setting(30.0, _seconds, "seconds within which a request is answered or refused")
    max_upload: int = _setting(32_000_000, _size, "largest request body, in bytes")
    body_memory: int | None = _setting(
        None, _size_or_auto, "memory for request bodies, all together, or auto: 16 times the largest body"
    )
    max_pixels: int = _setting(MAX_PIXELS, _count, "most pixels of a picture, width x height")
    url_lifetime: float = _setting(
        86_400.0,
        _lifetime,
        "how long the signed addresses of pictures are good for, at least; up to half as long again",
    )
    # 256 pictures and a handful of fields.
    max_parts: int = _setting(300, _count, "most parts of a form, pictures and fields together")
    # A vector of 4,000 numbers as text is a tenth of this; parsing much more would delay everyone else.
    max_json: int = _setting(1_000_000, _size, "largest JSON body, in bytes")
    max_head: int = _setting(65_536, _head, "most bytes of a request's address and headers together")
    # So long, because a proxy that keeps connections open, for 60 s as a rule, must be the one who closes them: else it
    # sends requests into closed ones.
    head_seconds: float = _setting(75.0, _seconds, "seconds within which the head of a request must come")
    limits: Counting = _setting(
        "local", _one_of(get_args(Counting)), "who counts for limits: local (each worker), or exact (the database)"
    )
    key_limits: str | None = _setting(None, _limits, f"limits of each key that has none of its own: {FORM}")
    client_limits: str | None = _setting(None, _limits, "limits of each client that has none of its own")
    demo: bool = _setting(False, _switch, "load the demo catalogue (client demo) at the start")
    cors_origins: tuple[str, ...] = _setting(
        (), _origins, "origins of pages that may call, separated by commas; *: any, with search keys"
    )
    fetch_hosts: tuple[str, ...] = _setting(
        (), _hosts, "hosts that pictures may be fetched from by URL, separated by commas; none when not given"
    )
    proxies: str | None = _setting(
        None, _networks, "proxies whose X-Forwarded-For is believed: addresses or networks, with commas between"
    )
    audit_days: int = _setting(90, _days, "days that the audit's table keeps what was written; 0: no table")
    log: LogForm = _setting("text", _one_of(get_args(LogForm)), "form of the log's lines: text or json")
    access_log: bool = _setting(True, _switch, "write a line into the log for each request")
    trust_network: bool = _setting(False, _switch, "listen beyond loopback also where callers need no key")

    @classmethod
    def read(cls, environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
        """Settings from `TWINLENS_*` variables and flags. Raises BadSetting with the setting and the values it accepts.

        An empty variable counts as not set. An unknown TWINLENS_ variable is an error: it is most likely misspelt. The
        variables in which Kubernetes names a service that is called twinlens are left out, and so are those of the
        client library.
        """
        known = {one.name: one for one in fields(cls)}
        given: dict[str, tuple[str, str]] = {}
        links = []
        for variable, text in environment.items():
            name = variable.removeprefix(PREFIX).lower()
            if not text or not variable.startswith(PREFIX) or variable.startswith(TEST_PREFIX):
                continue
            if variable in CLIENTS_OWN:
                continue
            if _is_service_link(variable, text):
                links.append(variable)
            elif name in known:
                given[name] = (variable, text)
            else:
                raise BadSetting(f"{variable} is not a setting. There are: {', '.join(map(variable_of, known))}.")
        if links:
            _log.info("Left out, since Kubernetes set them for a service of this name: %s", ", ".join(sorted(links)))
        for name, flag in (flags or {}).items():
            if flag is not None:
                given[name] = (flag_of(name), flag)
        values: dict[str, Any] = {}
        for name, (label, text) in given.items():
            try:
                values[name] = known[name].metadata["parse"](text)
            except ValueError as exc:
                shown = "" if known[name].metadata["secret"] else f", not {text!r}"
                raise BadSetting(f"{label} must be {exc}{shown}{'' if str(exc).endswith('.') else '.'}") from None
        for name in _SECRET:
            if (path := values.get(file_of(name))) is not None:
                if name in values:
                    raise BadSetting(f"{given[name][0]} and {given[file_of(name)][0]} are both given: leave one out.")
                values[name] = _from_file(name, path, given[file_of(name)][0], _PATIENCE_SECONDS)
        if "data" not in values:
            _check_for_data_of_before()
        settings = cls(**values)
        settings.check_database()
        settings.check_memory()
        return settings

    def current(self, name: str) -> str | None:
        """The value of a setting that may hold a secret, as it is now: where a file holds it, the file is read again.

        A file that cannot be read, as it may be while it is being replaced, counts as not changed.
        """
        known: str | None = getattr(self, name)
        path: Path | None = getattr(self, file_of(name))
        if path is None:
            return known
        try:
            return _from_file(name, path, variable_of(file_of(name)))
        except BadSetting as exc:
            _log.warning("The last known value is used: %s", exc.sentence)
            return known

    def described(self, *, changed: bool = False) -> dict[str, str]:
        """Each setting by its variable, in words and without secrets. `changed`: only what is no default."""
        return {
            variable_of(one.name): self.redact(f"{value:g}" if isinstance(value, float) else as_text(value))
            for one in fields(self)
            if not ((value := getattr(self, one.name)) == one.default and changed)
        }

    def redact(self, text: str) -> str:
        """The text without any part of a setting that nobody may read. Every way out uses this: logs and commands."""
        return redacted(text, self._secrets())

    def printable(self, text: str) -> str:
        """A text for an operator: without secrets, and with commands that can be run as they are.

        Each `python -m server` in it gets the flags that lead to the same data as this run's.
        """
        if "python -m server" not in text:  # as most lines of the log
            return self.redact(text)
        flags, unsaid = self._flags()
        # Redacted first: a password may be a word that stands in a path, too, and the path must stay what it is.
        whole = re.sub(
            r"python -m server\b(?! --)", lambda _: " ".join(["python -m server", *flags]), self.redact(text)
        )
        if unsaid:
            whole = f"{whole.rstrip()} (with {' and '.join(unsaid)} in the environment, as for this run)"
        return whole

    def _flags(self) -> tuple[list[str], list[str]]:
        """What a command needs to find this run's data: flags, and the variables that are too secret to be flags."""
        flags, unsaid = [], []
        for name in ("data", "model", "precision", *_SECRET, *map(file_of, _SECRET)):
            value = getattr(self, name)
            if value == _DEFAULTS[name] or (name in _SECRET and getattr(self, file_of(name)) is not None):
                continue
            if name in _SECRET and secrets_of(value):
                unsaid.append(variable_of(name))
            else:
                flags += [flag_of(name), shlex.quote(str(value))]
        return flags, unsaid

    def _secrets(self) -> set[str]:
        found: set[str] = set()
        for name in _SECRET:
            found |= secrets_of(getattr(self, name))
            if (path := getattr(self, file_of(name))) is not None:
                found |= secrets_in(path)
        return found

    @property
    def owners_url(self) -> str | None:
        """The database's URL with the rights of its owner, as it is now; None where the database is embedded."""
        return self.current("owner_database_url") or self.current("database_url")

    @property
    def serving_url(self) -> str | None:
        """The URL that serves, as it is now, where it is another one than the owner's."""
        return self.current("database_url") if self.owner_database_url is not None else None

    @property
    def memory_of_bodies(self) -> int:
        """Bytes of request bodies that all workers together hold at a time."""
        return self.body_memory or _BODIES * self.max_upload

    @property
    def trusted_proxies(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks of proxies that say truly whom they were called by."""
        return _parsed(self.proxies) if self.proxies else ()

    @property
    def exposed(self) -> bool:
        """Whether others than this machine can reach the port."""
        return not _is_loopback(self.host)

    def check_database(self) -> None:
        """Raises BadSetting for an owner's URL without one that serves."""
        if self.owner_database_url is not None and self.database_url is None:
            raise BadSetting(
                f"{variable_of('owner_database_url')} is given, and {variable_of('database_url')}, the URL of the role "
                "that serves, is not. With one URL alone, give it as the second."
            )

    def check_memory(self) -> None:
        """Raises BadSetting for so little memory that two of the largest bodies do not fit."""
        if self.memory_of_bodies < 2 * self.max_upload:
            raise BadSetting(
                f"{variable_of('body_memory')} must be at least twice {variable_of('max_upload')}, which is "
                f"{self.max_upload:,} bytes, not {self.body_memory:,}."
            )


def may_fetch_from_loopback(environment: Mapping[str, str]) -> bool:
    """Whether a host of `fetch_hosts` may be this very machine, as it is where tests bring a host of their own."""
    return environment.get(f"{TEST_PREFIX}FETCH_LOOPBACK") == "on"


def log_form(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> LogForm:
    """The form of the log, before all settings are read, and where one of them cannot be; text where it is not json."""
    given = (flags or {}).get("log") or environment.get(variable_of("log"))
    return "json" if given == "json" else "text"


@cache
def _parsed(networks: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, networks.split(",")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_file(name: str, path: Path, label: str, patience: float = 0.0) -> str:
    """The value of a setting whose file this is. Raises BadSetting."""
    try:
        text = read_secret(path, patience)
    except ValueError as exc:
        raise BadSetting(f"{label}: {exc}.") from None
    try:
        value: str = next(one for one in fields(Settings) if one.name == name).metadata["parse"](text)
    except ValueError as exc:
        raise BadSetting(f"The file {path} ({label}) must hold {exc}{'' if str(exc).endswith('.') else '.'}") from None
    return value


# For a service of the name `twinlens`, or one that begins with it, Kubernetes sets these in every container of the
# namespace. One of them has the name of a setting; its value tells.
_SERVICE = rf"{PREFIX[:-1]}(_[A-Z0-9_]+)?"
_TRANSPORT = "(TCP|UDP|SCTP)"
_LINK_NAME = re.compile(
    rf"{_SERVICE}_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]{{1,5}}_{_TRANSPORT}(_PROTO|_PORT|_ADDR)?)"
)
_LINK_TO_PORT = re.compile(rf"{_SERVICE}_PORT")
_LINK_VALUE = re.compile(rf"{_TRANSPORT}://\S+:[0-9]{{1,5}}", re.IGNORECASE)


def _is_service_link(variable: str, text: str) -> bool:
    return bool(
        _LINK_NAME.fullmatch(variable) or (_LINK_TO_PORT.fullmatch(variable) and _LINK_VALUE.fullmatch(text.strip()))
    )


def _check_for_data_of_before() -> None:
    """Raises BadSetting where the default once named a folder that is there: without it the data would be hidden."""
    here = Path.cwd() / _DATA
    if here != HOME / _DATA and any((here / name).exists() for name in ("postgres", "postgres.location", "media")):
        raise BadSetting(
            f"There is a data folder {here}, which was the default in this working directory before; the default is "
            f"{HOME / _DATA} now, in whatever directory the server is started. So that neither is mistaken for the "
            f"other, name the one you mean: {flag_of('data')} {shlex.quote(str(here))} or {flag_of('data')} "
            f"{shlex.quote(str(HOME / _DATA))}."
        )


_DEFAULTS = {one.name: one.default for one in fields(Settings)}
_SECRET = tuple(one.name for one in fields(Settings) if one.metadata["secret"])
