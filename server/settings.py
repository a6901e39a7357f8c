"""Settings: what an operator may choose when the server starts. The only reader of the environment.

Each setting is a field here, a variable `TWINLENS_<NAME>` and a flag `--<name>` of `python -m server`; a flag wins
over the variable. A new setting needs one line here and one in docs/operations.md (a test compares them).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from server.artifact.artifact import Device, Precision
from server.errors import BadSetting

PREFIX = "TWINLENS_"

MAX_PIXELS = 64_000_000
"""The most pixels of a picture, by default; the export reads no larger ones either."""

_MANY = 1024

Decoder = Literal["pillow", "nvimagecodec"]

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


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not int(text) <= 65535:
        raise ValueError("a port, 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*s?", text.strip())
    if not found or float(found[1]) <= 0:
        raise ValueError("a number of seconds above 0, such as 30")
    return float(found[1])


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


def _setting(default: object, parse: Callable[[str], Any], about: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "about": about})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting. Secrets are left out of its repr."""

    host: str = _setting("127.0.0.1", str, "address to listen on")
    port: int = _setting(8000, _port, "port to listen on")
    data: Path = _setting(Path(".twinlens"), Path, "folder of the embedded database, the media and the caches")
    model: Path = _setting(Path("models/starter"), Path, "folder of the model artifact")
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
    database_url: str | None = _setting(None, str, "PostgreSQL with pgvector; embedded when not given", secret=True)
    read_database_url: str | None = _setting(
        None, str, "streaming standbys of that PostgreSQL, for searches; none when not given", secret=True
    )
    media_url: str | None = _setting(
        None, str, "store of the media's bytes; a folder in DATA when not given", secret=True
    )
    deadline: float = _setting(30.0, _seconds, "seconds within which a request is answered or refused")
    max_upload: int = _setting(32_000_000, _size, "largest request body, in bytes")
    max_pixels: int = _setting(MAX_PIXELS, _count, "most pixels of a picture, width x height")
    demo: bool = _setting(False, _switch, "load the demo catalogue (client demo) at the start")
    trust_network: bool = _setting(False, _switch, "listen beyond loopback although callers need no key")

    @classmethod
    def read(cls, environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Settings:
        """Settings from `TWINLENS_*` variables and flags. Raises BadSetting with the setting and the values it accepts.

        An empty variable counts as not set. An unknown TWINLENS_ variable is an error: it is most likely misspelt.
        """
        known = {one.name: one for one in fields(cls)}
        given: dict[str, Any] = {}
        for variable, text in environment.items():
            name = variable.removeprefix(PREFIX).lower()
            if not variable.startswith(PREFIX) or variable.startswith(f"{PREFIX}TEST_"):
                continue
            if name not in known:
                raise BadSetting(f"{variable} is not a setting. There are: {', '.join(map(variable_of, known))}.")
            if text:
                given[name] = (variable, text)
        for name, flag in (flags or {}).items():
            if flag is not None:
                given[name] = (flag_of(name), flag)
        values: dict[str, Any] = {}
        for name, (label, text) in given.items():
            try:
                values[name] = known[name].metadata["parse"](text)
            except ValueError as exc:
                raise BadSetting(f"{label} must be {exc}, not {text!r}.") from exc
        settings = cls(**values)
        settings.check_network()
        return settings

    @property
    def exposed(self) -> bool:
        """Whether others than this machine can reach the port."""
        return not _is_loopback(self.host)

    def check_network(self) -> None:
        """Raises BadSetting for a host beyond loopback: without keys, anyone who can reach the port can delete."""
        if self.exposed and not self.trust_network:
            raise BadSetting(
                f"{variable_of('host')} is {self.host}, which others can reach, and callers need no key. Listen on "
                f"127.0.0.1, or set {variable_of('trust_network')}=on where a gateway in front decides who may call."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def variable_of(name: str) -> str:
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")
