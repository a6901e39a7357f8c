"""Pictures by URL: from the hosts that the operator allows, out in the internet, and bounded in every way.

A URL is taken apart once, and its parts are both what is looked at and what is asked for. The name of its host is
resolved once for a connection, which then goes to an address that was looked at, so it does not matter what the name
leads to a moment later. Each redirect is looked at like the first URL. httpcore knows no cookies, no passwords, no
proxies of the environment and no redirects of its own, so none of these have to be switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from types import TracebackType
from urllib.parse import quote, urljoin, urlsplit
from weakref import WeakValueDictionary

import httpcore

from server import __version__
from server.errors import FetchFailed, TwinlensError, UploadTooLarge, UrlRefused
from server.hosts import LONGEST_URL, USUAL_PORTS, Host, allowed, is_name
from server.ingest.addresses import is_public
from server.tracing import span

SECONDS = 15.0
"""Within which a picture must have come, with all its redirects."""

_REDIRECTS = 5
_CONNECTIONS = 64
_OF_ONE_HOST = 8
_KEPT = 16
# Fewer than hosts have, as a rule: one that closes a connection just as it is used again has to be asked twice.
_KEPT_SECONDS = 4.0

# A kept connection that its host closes just as it is used again: nothing was answered, so that is asked once more.
_CLOSED_MEANWHILE = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)

# Of a name's addresses so many are tried, each for so long: one that drops packets must not use up all of the time.
_ADDRESSES = 3
_CONNECT_SECONDS = 4.0
_LOOKUPS = 4

# Pieces between two turns of the event loop: a host may send one byte in each.
_PIECES = 64

_LONGEST_VALIDATOR = 300
_VALIDATOR = re.compile(rf"[\x20-\x7e]{{1,{_LONGEST_VALIDATOR}}}")

_NETLOC = re.compile(r"(?P<host>[^:]*)(?::(?P<port>[0-9]{1,5}))?")
# What may stand in a path as it is; a % begins what is encoded already.
_AS_IT_IS = "/%:@!$&'()*+,;=~"

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name, as texts. Raises OSError where there are none."""

Passage = Callable[[AsyncIterator[bytes], int | None], AsyncIterator[bytes]]
"""What the pieces of a picture pass through as they come; with the number of its bytes, where that is known before."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a host said of a picture, by which it tells the next time whether that is another one now."""

    etag: str | None = None
    last_modified: str | None = None

    def __bool__(self) -> bool:
        return self.etag is not None or self.last_modified is not None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's bytes, and what to hand in when it is fetched again."""

    data: bytes
    validators: Validators


def _as_they_come(pieces: AsyncIterator[bytes], _: int | None) -> AsyncIterator[bytes]:
    return pieces


class Fetcher:
    """Fetches pictures. An asynchronous context manager; all of its life is on one event loop.

    Each fetch raises UrlRefused where nothing is fetched from the URL, or from one that it leads to; FetchFailed where
    the host cannot be reached, answers without a picture, or is too slow; UploadTooLarge.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        most: int,
        seconds: float = SECONDS,
        loopback: bool = False,
        resolve: Resolver | None = None,
        certificates: ssl.SSLContext | None = None,
        on_fetched: Callable[[str, float], None] = lambda result, seconds: None,
    ) -> None:
        """`hosts`: those that are allowed, as `Host` reads them; none: nothing is fetched. `most`: bytes of a picture.

        `loopback`: whether a name may lead to this machine, as it does in tests. `certificates`: which are believed,
        rather than the usual ones. `on_fetched` is called with what came of a fetch and the seconds that it took:
        "fetched", "not_modified", an error's code, or "left" where nobody waits for it any more.
        """
        self._hosts = [Host.of(text) for text in hosts]
        self._most = most
        self._seconds = seconds
        self._on_fetched = on_fetched
        self._names = _Names()
        self._network = _Network(resolve or self._names.addresses, loopback=loopback)
        self._certificates = certificates
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._turns: WeakValueDictionary[tuple[str, int], asyncio.Semaphore] = WeakValueDictionary()

    @property
    def fetches(self) -> bool:
        """Whether any host is allowed."""
        return bool(self._hosts)

    async def __aenter__(self) -> Fetcher:
        if self.fetches:
            certificates = self._certificates or await asyncio.to_thread(httpcore.default_ssl_context)
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=certificates,
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_KEPT,
                keepalive_expiry=_KEPT_SECONDS,
                network_backend=self._network,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()
        self._names.close()

    async def fetch(self, url: str, *, within: float = SECONDS, through: Passage = _as_they_come) -> Fetched:
        """The picture at a URL, if it has come within that many seconds, and within this fetcher's own."""
        found = await self._fetch(url, Validators(), within, through)
        if found is None:
            raise FetchFailed("The host of the URL answered that nothing has changed, and was not asked that.")
        return found

    async def fetch_if_changed(
        self, url: str, known: Validators, *, within: float = SECONDS, through: Passage = _as_they_come
    ) -> Fetched | None:
        """As `fetch`; None where its host says that it is the one which these validators came with."""
        return await self._fetch(url, known, within, through)

    async def _fetch(self, url: str, known: Validators, within: float, through: Passage) -> Fetched | None:
        seconds, began = max(0.0, min(self._seconds, within)), perf_counter()
        result = "left"
        try:
            target = Target.of(url)
            with span("fetch", {"server.address": target.host, "server.port": target.port}, outgoing=True) as fetching:
                try:
                    async with asyncio.timeout(seconds):
                        found = await self._follow(target, known, through)
                except TimeoutError as exc:
                    raise FetchFailed(f"The picture had not come from {target.host} within {seconds:.3g} s.") from exc
                fetching.set("twinlens.bytes", len(found.data) if found is not None else 0)
            result = "fetched" if found is not None else "not_modified"
            return found
        except TwinlensError as exc:
            result = exc.code
            raise
        finally:
            self._on_fetched(result, perf_counter() - began)

    async def _follow(self, target: Target, known: Validators, through: Passage) -> Fetched | None:
        for _ in range(_REDIRECTS + 1):
            answer = await self._ask(target, known, through)
            if not isinstance(answer, Target):
                return answer
            if target.scheme == "https" and answer.scheme == "http":
                raise UrlRefused(f"{target.host} leads on from https to http, which is not followed.")
            target = answer
        raise FetchFailed(f"The URL leads on more than {_REDIRECTS} times.", temporary=False)

    async def _ask(self, target: Target, known: Validators, through: Passage) -> Fetched | Target | None:
        """The picture, None where it is the known one, or where it is said to be instead."""
        if self._pool is None:
            raise UrlRefused("This server fetches no pictures by URL.")
        if not allowed(self._hosts, target.scheme, target.host, target.port):
            raise UrlRefused(f"This server fetches no pictures from {target.host}, port {target.port}.")
        turn = self._turns.setdefault((target.host, target.port), asyncio.Semaphore(_OF_ONE_HOST))
        with _translated(target.host):
            async with turn, contextlib.AsyncExitStack() as answering:
                asking = partial(self._pool.stream, "GET", target.address, headers=_headers(known))
                try:
                    response = await answering.enter_async_context(asking())
                except _CLOSED_MEANWHILE:
                    response = await answering.enter_async_context(asking())
                return await self._read(target, response, known, through)

    async def _read(
        self, target: Target, response: httpcore.Response, known: Validators, through: Passage
    ) -> Fetched | Target | None:
        headers = _Headers(response.headers)
        status = response.status
        if status in (301, 302, 303, 307, 308):
            location = headers.text(b"location")
            if location is None:
                raise FetchFailed(f"{target.host} answered {status} without saying where to.", temporary=False)
            return target.leading_to(location)
        if status == 304 and known:
            return None
        if status != 200:
            temporary = status >= 500 or status in (408, 425, 429)
            raise FetchFailed(f"{target.host} answered {status}.", temporary=temporary)
        if (headers.text(b"content-encoding") or "identity").lower() != "identity":
            # Nobody asked for it; and what a few bytes unpack to has no bound.
            raise FetchFailed(f"{target.host} sent the picture compressed, which is not read.", temporary=False)
        declared = headers.number(b"content-length")
        self._require_room(target, declared or 0)
        data = io.BytesIO()
        async with contextlib.aclosing(self._pieces(target, response)) as pieces:
            async for piece in through(pieces, declared):
                data.write(piece)
        validators = Validators(headers.validator(b"etag"), headers.validator(b"last-modified"))
        return Fetched(data.getvalue(), validators)  # its own buffer, where joined pieces would be there twice

    async def _pieces(self, target: Target, response: httpcore.Response) -> AsyncGenerator[bytes, None]:
        received = pieces = 0
        async for piece in response.aiter_stream():
            received += len(piece)
            pieces += 1
            self._require_room(target, received)
            if pieces % _PIECES == 0:
                await asyncio.sleep(0)
            yield piece

    def _require_room(self, target: Target, size: int) -> None:
        if size > self._most:
            raise UploadTooLarge(f"The picture from {target.host} has more than {self._most:,} bytes.")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its parts."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, percent-encoded."""

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises UrlRefused."""
        url = url.strip(" ")
        if len(url) > LONGEST_URL:
            raise UrlRefused(f"The URL has more than {LONGEST_URL:,} characters.")
        if not url.isprintable():  # urlsplit drops some of them, so that it would be another URL
            raise UrlRefused("The URL holds characters that cannot be written.")
        try:
            parts = urlsplit(url)
        except ValueError as exc:
            raise UrlRefused("The URL cannot be read.") from exc
        if parts.scheme not in USUAL_PORTS:
            raise UrlRefused("The URL of a picture begins with https:// or http://.")
        if "@" in parts.netloc:
            raise UrlRefused("The URL of a picture holds no user name and no password.")
        if not parts.netloc.isascii():
            raise UrlRefused("Write the host of the URL in ASCII, as DNS has it: xn--...")
        found = _NETLOC.fullmatch(parts.netloc.lower())
        host = found["host"].removesuffix(".") if found is not None else ""
        if found is None or not is_name(host):
            raise UrlRefused("The URL of a picture names its host, not an address.")
        port = int(found["port"] or USUAL_PORTS[parts.scheme])
        path = quote(parts.path or "/", safe=_AS_IT_IS)
        query = f"?{quote(parts.query, safe=f'{_AS_IT_IS}?')}" if parts.query else ""
        return cls(parts.scheme, host, port, path + query)

    def leading_to(self, location: str) -> Target:
        """Where a redirect leads that was found here. Raises UrlRefused."""
        try:
            url = urljoin(f"{self.scheme}://{self.host}:{self.port}{self.target}", location)
        except ValueError as exc:
            raise UrlRefused(f"{self.host} leads on to a URL that cannot be read.") from exc
        return Target.of(url)

    @property
    def address(self) -> httpcore.URL:
        return httpcore.URL(
            scheme=self.scheme.encode(), host=self.host.encode(), port=self.port, target=self.target.encode()
        )


def _headers(known: Validators) -> list[tuple[bytes, bytes]]:
    sent = {
        "User-Agent": f"Twinlens/{__version__}",
        # No formats by name: hosts that choose by it would convert the picture.
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    if known.etag is not None:
        sent["If-None-Match"] = known.etag
    if known.last_modified is not None:
        sent["If-Modified-Since"] = known.last_modified
    return [(name.encode(), value.encode("ascii", "ignore")) for name, value in sent.items()]


class _Headers:
    """The header fields of an answer."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields = {name.lower(): value for name, value in fields}

    def text(self, name: bytes) -> str | None:
        return self._fields[name].decode("utf-8", "replace") if name in self._fields else None

    def number(self, name: bytes) -> int | None:
        value = self._fields.get(name, b"")
        return int(value) if re.fullmatch(rb"[0-9]{1,18}", value) else None

    def validator(self, name: bytes) -> str | None:
        """None where it is longer than is worth keeping."""
        value = self.text(name)
        return value if value is not None and _VALIDATOR.fullmatch(value) else None


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to the addresses of a name, once all of them were found to be in the internet."""

    def __init__(self, resolve: Resolver, *, loopback: bool) -> None:
        self._resolve = resolve
        self._loopback = loopback
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises UrlRefused where a name leads elsewhere, and httpcore's errors."""
        try:
            found = list(dict.fromkeys(await self._resolve(host)))
        except OSError as exc:
            raise FetchFailed(f"The host {host} was not found.") from exc
        # One that is not is enough: no host that is meant has both kinds.
        if not all(map(self._may_be_called, found)):
            raise UrlRefused(f"The host {host} is not out in the internet.")
        error: Exception = httpcore.ConnectError("It has no address.")
        for address in found[:_ADDRESSES]:
            try:
                return await self._backend.connect_tcp(
                    address, port, _CONNECT_SECONDS, local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                error = exc
        raise error

    def _may_be_called(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return is_public(address) or (self._loopback and address.is_loopback)


class _Names:
    """Asks the system for names, on threads of its own: a name that is answered late must not hold up other work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="twinlens-names")

    async def addresses(self, name: str) -> list[str]:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, name)
        return [str(address[0]) for *_, address in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> Sequence[tuple[object, object, object, str, tuple[object, ...]]]:
    return socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
        if isinstance(exc.__context__, ssl.SSLError):
            raise FetchFailed(f"{host} has no certificate that is good for this name.", temporary=False) from exc
        raise FetchFailed(f"{host} cannot be reached.") from exc
    except httpcore.ProtocolError as exc:
        raise FetchFailed(f"{host} gave an answer that cannot be read, or not all of it.") from exc
    except (httpcore.NetworkError, httpcore.TimeoutException) as exc:
        raise FetchFailed(f"The connection to {host} broke.") from exc
