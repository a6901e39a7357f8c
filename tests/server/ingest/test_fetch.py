"""Pictures by URL, from a host on loopback that answers as each test says."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from server.errors import FetchFailed, Overloaded, UploadTooLarge, UrlRefused
from server.ingest import fetch
from server.ingest.fetch import Fetcher, Target, Validators
from tests.support.picture_host import PictureHost, answer, picture_host, redirect

pytestmark = pytest.mark.anyio

MOST = 300_000
PICTURE = bytes(range(256)) * 400
LONG = 60.0


class Names:
    """A resolver that gives one answer after the other, the last one again and again, and counts the questions."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]] | None = None) -> None:
        self.asked: list[str] = []
        self._answers = answers or {}

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answers = self._answers.get(name, [["127.0.0.1"]])
        return answers[min(self.asked.count(name), len(answers)) - 1]


@pytest.fixture
def host() -> Iterator[PictureHost]:
    with picture_host() as host:
        host.answers["/a.png"] = answer(PICTURE)
        yield host


def fetcher(host: PictureHost, names: Names | None = None, **options: Any) -> Fetcher:
    """One that may fetch from pictures.test and below other.test at the port of this host."""
    hosts = [f"pictures.test:{host.port}", f"*.other.test:{host.port}"]
    given = {"most": MOST, "seconds": LONG, "loopback": True, "resolve": names or Names(), **options}
    return Fetcher(hosts, **given)


def url(host: PictureHost, path: str = "/a.png", name: str = "pictures.test") -> str:
    return f"http://{name}:{host.port}{path}"


# --- what comes -------------------------------------------------------------------------------------------------------


async def test_a_picture_comes_as_it_is(host: PictureHost) -> None:
    results: list[str] = []
    async with fetcher(host, on_fetched=lambda result, seconds: results.append(result)) as fetching:
        fetched = await fetching.fetch(url(host), within=LONG)
    assert fetched.data == PICTURE
    assert not fetched.validators
    (asked,) = host.asked
    assert asked.headers["host"] == f"pictures.test:{host.port}"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["user-agent"].startswith("Twinlens/")
    assert set(asked.headers) == {"host", "accept", "accept-encoding", "user-agent"}
    assert results == ["fetched"]


async def test_one_that_does_not_say_how_long_it_is_comes_as_well(host: PictureHost) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (PICTURE[:7], PICTURE[7:])) + b"0\r\n\r\n"
    host.answers["/chunks"] = answer(chunks, headers={"Transfer-Encoding": "chunked"}, length=False)
    host.answers["/closed"] = [answer(PICTURE, headers={"Connection": "close"}, length=False)]
    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host, "/chunks"))).data == PICTURE
        assert (await fetching.fetch(url(host, "/closed"))).data == PICTURE


async def test_a_connection_is_used_again(host: PictureHost) -> None:
    names = Names()
    async with fetcher(host, names) as fetching:
        for _ in range(3):
            await fetching.fetch(url(host))
    assert (host.connections, len(host.asked), names.asked) == (1, 3, ["pictures.test"])


async def test_a_path_that_is_not_encoded_is_encoded_once(host: PictureHost) -> None:
    host.answers["/gr%C3%BCn%20und%20rot.png?w=1%26"] = answer(PICTURE)
    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host, "/grün und%20rot.png?w=1%26#top"))).data == PICTURE


async def test_what_has_not_changed_is_not_sent_again(host: PictureHost) -> None:
    tagged = {"ETag": '"one"', "Last-Modified": "Sun, 29 Nov 2026 10:00:00 GMT"}
    host.answers["/a.png"] = answer(PICTURE, headers=tagged)
    results: list[str] = []
    async with fetcher(host, on_fetched=lambda result, seconds: results.append(result)) as fetching:
        first = await fetching.fetch(url(host))
        assert first.validators == Validators('"one"', "Sun, 29 Nov 2026 10:00:00 GMT")
        host.answers["/a.png"] = answer(status=304, length=False)
        assert await fetching.fetch_if_changed(url(host), first.validators) is None
        assert host.asked[-1].headers["if-none-match"] == '"one"'
        assert host.asked[-1].headers["if-modified-since"] == "Sun, 29 Nov 2026 10:00:00 GMT"
        host.answers["/a.png"] = answer(b"another", headers={"ETag": '"two"'})
        changed = await fetching.fetch_if_changed(url(host), first.validators)
        assert changed is not None
        assert (changed.data, changed.validators) == (b"another", Validators('"two"'))
    assert results == ["fetched", "not_modified", "fetched"]


async def test_a_host_that_says_unasked_that_nothing_changed_gives_no_picture(host: PictureHost) -> None:
    host.answers["/a.png"] = answer(status=304, length=False)
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match="answered 304"):
            await fetching.fetch(url(host))


async def test_the_pieces_pass_through_what_the_caller_gives(host: PictureHost) -> None:
    seen: list[tuple[int | None, int]] = []

    async def through(pieces: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[bytes]:
        async for piece in pieces:
            seen.append((declared, len(piece)))
            yield piece

    async def full(pieces: AsyncIterator[bytes], declared: int | None) -> AsyncIterator[bytes]:
        async for _ in pieces:
            raise Overloaded
        yield b""

    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host), through=through)).data == PICTURE
        assert {declared for declared, _ in seen} == {len(PICTURE)}
        assert sum(size for _, size in seen) == len(PICTURE)
        with pytest.raises(Overloaded):
            await fetching.fetch(url(host), through=full)


# --- what is refused before anybody is asked --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://pictures.test/a.png", "begins with https"),
        ("file:///etc/hostname", "begins with https"),
        ("//pictures.test/a.png", "begins with https"),
        ("a.png", "begins with https"),
        ("", "begins with https"),
        ("http://me:secret@pictures.test/a.png", "no user name"),
        ("http://127.0.0.1/a.png", "not an address"),
        ("http://2130706433/a.png", "not an address"),
        ("http://0x7f.1/a.png", "not an address"),
        ("http://[::1]/a.png", "not an address"),
        ("http:///a.png", "not an address"),
        ("http://pictures.test:port/a.png", "not an address"),
        ("http://[::1/a.png", "cannot be read"),
        ("http://bücher.test/a.png", "in ASCII"),
        ("http://pictures.test/a\n.png", "cannot be written"),
        (f"http://pictures.test/{'a' * 8000}", "more than 8,000"),
    ],
)
async def test_a_url_that_is_none_of_a_picture_is_refused(text: str, said: str) -> None:
    names = Names()
    results: list[str] = []
    options: dict[str, Any] = {"resolve": names, "on_fetched": lambda result, seconds: results.append(result)}
    async with Fetcher(["pictures.test"], most=MOST, **options) as fetching:
        with pytest.raises(UrlRefused, match=said) as caught:
            await fetching.fetch(text)
    assert "secret" not in caught.value.sentence
    assert (names.asked, results) == ([], ["url_refused"])


@pytest.mark.parametrize("name", ["elsewhere.test", "other.test", "pictures.test.elsewhere.test"])
async def test_a_host_that_is_not_listed_is_refused_before_its_name_is_looked_up(host: PictureHost, name: str) -> None:
    names = Names()
    async with fetcher(host, names) as fetching:
        with pytest.raises(UrlRefused, match=f"from {name}, port {host.port}"):
            await fetching.fetch(url(host, name=name))
        with pytest.raises(UrlRefused, match="port 80"):
            await fetching.fetch("http://pictures.test/a.png")
    assert (names.asked, host.connections) == ([], 0)


async def test_without_hosts_nothing_is_fetched() -> None:
    async with Fetcher([], most=MOST) as fetching:
        assert not fetching.fetches
        with pytest.raises(UrlRefused, match="fetches no pictures by URL"):
            await fetching.fetch("http://pictures.test/a.png")


def test_a_url_is_what_its_parts_say() -> None:
    target = Target.of(" HTTPS://Pictures.TEST./A%20b.png?x=y#z ")
    assert (target.scheme, target.host, target.port, target.target) == ("https", "pictures.test", 443, "/A%20b.png?x=y")
    assert Target.of("http://pictures.test").target == "/"
    assert target.leading_to("//cdn.test/b") == Target("https", "cdn.test", 443, "/b")
    assert target.leading_to("../c?d").target == "/c?d"


# --- where names lead -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.1"], ["fd00::1"], ["127.0.0.1", "192.168.0.7"]]
)
async def test_a_name_that_leads_inside_is_refused_and_nobody_is_called(
    host: PictureHost, addresses: Sequence[str]
) -> None:
    async with fetcher(host, Names({"pictures.test": [addresses]})) as fetching:
        with pytest.raises(UrlRefused, match="not out in the internet") as caught:
            await fetching.fetch(url(host))
    assert host.connections == 0
    assert not any(address in caught.value.sentence for address in addresses)


async def test_a_name_that_leads_to_this_machine_is_refused_but_for_tests(host: PictureHost) -> None:
    async with fetcher(host, loopback=False) as fetching:
        with pytest.raises(UrlRefused, match="not out in the internet"):
            await fetching.fetch(url(host))
    assert host.connections == 0


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(host: PictureHost) -> None:
    # Asked again, the name would lead to an address at which nobody answers.
    names = Names({"pictures.test": [["127.0.0.1"], ["127.0.0.9"]]})
    async with fetcher(host, names) as fetching:
        assert (await fetching.fetch(url(host))).data == PICTURE
    assert names.asked == ["pictures.test"]
    assert host.asked[0].headers["host"] == f"pictures.test:{host.port}"


async def test_a_name_is_looked_at_again_for_each_connection(host: PictureHost) -> None:
    names = Names({"pictures.test": [["127.0.0.1"], ["10.0.0.1"]]})
    host.answers["/once"] = [answer(PICTURE, headers={"Connection": "close"})]
    async with fetcher(host, names) as fetching:
        assert (await fetching.fetch(url(host, "/once"))).data == PICTURE
        with pytest.raises(UrlRefused, match="not out in the internet"):
            await fetching.fetch(url(host, "/once"))
    assert (host.connections, names.asked) == (1, ["pictures.test", "pictures.test"])


async def test_of_several_addresses_one_that_answers_is_enough(host: PictureHost) -> None:
    async with fetcher(host, Names({"pictures.test": [["127.0.0.9", "127.0.0.1"]]})) as fetching:
        assert (await fetching.fetch(url(host))).data == PICTURE


async def test_a_name_that_leads_nowhere_is_a_failed_fetch(host: PictureHost) -> None:
    async def unknown(name: str) -> Sequence[str]:
        raise OSError("Name or service not known")

    async with fetcher(host, resolve=unknown) as fetching:
        with pytest.raises(FetchFailed, match=r"pictures\.test was not found") as caught:
            await fetching.fetch(url(host))
    assert caught.value.temporary
    async with fetcher(host, Names({"pictures.test": [[]]})) as fetching:
        with pytest.raises(FetchFailed, match="cannot be reached"):
            await fetching.fetch(url(host))


async def test_the_system_knows_the_name_of_this_machine(host: PictureHost) -> None:
    async with Fetcher([f"localhost:{host.port}"], most=MOST, loopback=True) as fetching:
        assert (await fetching.fetch(url(host, name="localhost"))).data == PICTURE


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(host: PictureHost, status: int) -> None:
    host.answers["/from"] = redirect(url(host, "/further", name="cdn.other.test"), status)
    host.answers["/further"] = redirect("a.png", status)
    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host, "/from"))).data == PICTURE
    assert [asked.path for asked in host.asked] == ["/from", "/further", "/a.png"]


async def test_a_redirect_inside_is_refused_once_its_name_is_looked_up(host: PictureHost) -> None:
    names = Names({"cdn.other.test": [["10.0.0.1"]]})
    host.answers["/from"] = redirect(url(host, name="cdn.other.test"))
    async with fetcher(host, names) as fetching:
        with pytest.raises(UrlRefused, match=r"cdn\.other\.test is not out in the internet"):
            await fetching.fetch(url(host, "/from"))
    assert (names.asked, host.connections) == (["pictures.test", "cdn.other.test"], 1)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://elsewhere.test/a.png", "from elsewhere.test, port 80"),
        ("http://169.254.169.254/latest", "not an address"),
        ("http://me@pictures.test/a.png", "no user name"),
        ("file:///etc/hostname", "begins with https"),
        ("http://[::1", "cannot be read"),
    ],
)
async def test_a_redirect_elsewhere_is_refused_as_the_url_would_be(host: PictureHost, location: str, said: str) -> None:
    names = Names()
    host.answers["/from"] = redirect(location)
    async with fetcher(host, names) as fetching:
        with pytest.raises(UrlRefused, match=said):
            await fetching.fetch(url(host, "/from"))
    assert (names.asked, len(host.asked)) == (["pictures.test"], 1)


async def test_redirects_come_to_an_end(host: PictureHost) -> None:
    host.answers["/round"] = redirect("/round")
    host.answers["/nowhere"] = answer(status=302)
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match="more than 5 times") as caught:
            await fetching.fetch(url(host, "/round"))
        assert (caught.value.temporary, len(host.asked)) == (False, 6)
        with pytest.raises(FetchFailed, match="without saying where to"):
            await fetching.fetch(url(host, "/nowhere"))


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_one_that_says_it_is_too_large_is_not_read(host: PictureHost) -> None:
    sent = threading.Event()

    def large() -> Iterator[bytes]:
        yield answer(headers={"Content-Length": str(MOST + 1)}, length=False)
        host.gone.wait(LONG)
        sent.set()

    host.answers["/large"] = large()
    async with fetcher(host) as fetching:
        with pytest.raises(UploadTooLarge, match=r"from pictures\.test has more than 300,000 bytes"):
            await fetching.fetch(url(host, "/large"))
    host.gone.set()
    assert sent.wait(LONG)


async def test_one_that_goes_on_and_on_is_cut_off(host: PictureHost) -> None:
    def endless() -> Iterator[bytes]:
        yield answer(length=False)
        while True:
            yield bytes(10_000)

    host.answers["/endless"] = endless()
    async with fetcher(host) as fetching:
        with pytest.raises(UploadTooLarge):
            await fetching.fetch(url(host, "/endless"))
    assert host.gone.wait(LONG)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 So\r\nX: ", answer(length=False)])
@pytest.mark.parametrize(("own", "within"), [(0.3, LONG), (LONG, 0.3)])
async def test_one_that_comes_in_drips_is_cut_off_in_time(
    host: PictureHost, beginning: bytes, own: float, within: float
) -> None:
    def drips() -> Iterator[bytes]:
        yield beginning
        while not host.gone.wait(0.01):
            yield b"x" if beginning else b""

    host.answers["/drips"] = drips()
    async with fetcher(host, seconds=own) as fetching:
        with pytest.raises(FetchFailed, match=r"from pictures\.test within 0\.3 s") as caught:
            await fetching.fetch(url(host, "/drips"), within=within)
    assert caught.value.temporary
    host.gone.set()


async def test_a_host_whose_name_is_looked_up_for_too_long_is_given_up(host: PictureHost) -> None:
    async def never(name: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with fetcher(host, resolve=never, seconds=0.2) as fetching:
        with pytest.raises(FetchFailed, match="within"):
            await fetching.fetch(url(host))


async def test_endless_headers_are_not_read_to_the_end(host: PictureHost) -> None:
    def headers() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 So\r\n"
        while True:
            yield b"X-%d: %s\r\n" % (7, b"y" * 1000)

    host.answers["/headers"] = headers()
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match="cannot be read"):
            await fetching.fetch(url(host, "/headers"))
    assert host.gone.wait(LONG)


async def test_only_so_many_are_fetched_from_one_host_at_a_time(
    host: PictureHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_OF_ONE_HOST", 2)
    let, served = threading.Event(), threading.Semaphore(0)

    def held() -> Iterator[bytes]:
        served.release()
        let.wait(LONG)
        yield answer(PICTURE)

    for number in range(3):
        host.answers[f"/{number}"] = held()
    async with fetcher(host) as fetching:
        waiting = [asyncio.create_task(fetching.fetch(url(host, f"/{number}"))) for number in range(3)]
        for _ in range(2):
            assert await asyncio.to_thread(served.acquire, timeout=LONG)
        assert len(host.asked) == 2
        # Another host is not held up.
        assert (await fetching.fetch(url(host, name="cdn.other.test"))).data == PICTURE
        assert len(host.asked) == 3
        let.set()
        assert [(await one).data for one in waiting] == [PICTURE] * 3
        assert not fetching._turns


class Closing:
    """So many times it closes the connection in place of an answer."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __iter__(self) -> Iterator[bytes]:
        self.times -= 1
        return iter([answer(PICTURE)] if self.times < 0 else [])


async def test_a_host_that_closes_the_connection_just_then_is_asked_once_more(host: PictureHost) -> None:
    host.answers |= {"/once": Closing(1), "/always": Closing(9)}
    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host, "/once"))).data == PICTURE
    # With another fetcher: the host closes the connection of /once as well, at some moment that the first may not see.
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match="cannot be read"):
            await fetching.fetch(url(host, "/always"))
    assert [one.path for one in host.asked] == ["/once"] * 2 + ["/always"] * 2


async def test_one_who_leaves_gives_the_place_back(host: PictureHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_OF_ONE_HOST", 1)
    results: list[str] = []
    began = threading.Event()

    def held() -> Iterator[bytes]:
        began.set()
        host.gone.wait(LONG)
        yield b""

    host.answers["/held"] = held()
    async with fetcher(host, on_fetched=lambda result, seconds: results.append(result)) as fetching:
        leaving = asyncio.create_task(fetching.fetch(url(host, "/held")))
        assert await asyncio.to_thread(began.wait, LONG)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        host.gone.set()
        assert (await fetching.fetch(url(host))).data == PICTURE
    assert results == ["left", "fetched"]


# --- answers that are no picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "temporary"), [(404, False), (403, False), (206, False), (429, True), (500, True), (503, True)]
)
async def test_another_status_is_a_failed_fetch(host: PictureHost, status: int, temporary: bool) -> None:
    host.answers["/a.png"] = answer(b"no", status=status)
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match=rf"pictures\.test answered {status}\.") as caught:
            await fetching.fetch(url(host))
    assert caught.value.temporary is temporary


async def test_what_comes_compressed_is_not_unpacked(host: PictureHost) -> None:
    host.answers["/a.png"] = answer(PICTURE, headers={"Content-Encoding": "gzip"})
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match="compressed"):
            await fetching.fetch(url(host))
        host.answers["/a.png"] = answer(PICTURE, headers={"Content-Encoding": "identity"})
        assert (await fetching.fetch(url(host))).data == PICTURE


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"", "cannot be read"),
        (b"This is no HTTP.\r\n\r\n", "cannot be read"),
        (answer(PICTURE)[:-1], "not all of it"),
        (answer(b"", headers={"Content-Length": "1, 2"}, length=False), "cannot be read"),
    ],
)
async def test_an_answer_that_is_none_or_not_complete_is_a_failed_fetch(
    host: PictureHost, said: bytes, sentence: str
) -> None:
    host.answers["/a.png"] = [said]
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match=sentence) as caught:
            await fetching.fetch(url(host))
    assert caught.value.temporary


async def test_a_host_at_which_nobody_listens_cannot_be_reached() -> None:
    with picture_host() as host:
        pass
    async with fetcher(host) as fetching:
        with pytest.raises(FetchFailed, match=r"pictures\.test cannot be reached"):
            await fetching.fetch(url(host))


async def test_validators_that_are_no_header_are_dropped(host: PictureHost) -> None:
    host.answers["/a.png"] = answer(PICTURE, headers={"ETag": f'"{"x" * 400}"', "Last-Modified": "gestern"})
    async with fetcher(host) as fetching:
        assert (await fetching.fetch(url(host))).validators == Validators(None, "gestern")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def certificate(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def believing(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_by_https_the_certificate_is_that_of_the_name_and_not_of_the_address(authority: trustme.CA) -> None:
    with picture_host(certificate(authority, "pictures.test")) as host:
        host.answers["/a.png"] = answer(PICTURE)
        async with fetcher(host, certificates=believing(authority)) as fetching:
            assert (await fetching.fetch(f"https://pictures.test:{host.port}/a.png")).data == PICTURE
            with pytest.raises(FetchFailed, match=r"cdn\.other\.test has no certificate that is good") as caught:
                await fetching.fetch(f"https://cdn.other.test:{host.port}/a.png")
            assert not caught.value.temporary
        assert len(host.asked) == 1
    with picture_host(certificate(authority, "127.0.0.1")) as host:
        async with fetcher(host, certificates=believing(authority)) as fetching:
            with pytest.raises(FetchFailed, match="no certificate"):
                await fetching.fetch(f"https://pictures.test:{host.port}/a.png")
        assert host.asked == []


async def test_an_authority_that_nobody_knows_is_not_believed(authority: trustme.CA) -> None:
    with picture_host(certificate(authority, "pictures.test")) as host:
        async with fetcher(host) as fetching:
            with pytest.raises(FetchFailed, match="no certificate"):
                await fetching.fetch(f"https://pictures.test:{host.port}/a.png")
        assert host.asked == []


async def test_https_does_not_lead_on_to_http(authority: trustme.CA, host: PictureHost) -> None:
    with picture_host(certificate(authority, "pictures.test")) as safe:
        safe.answers["/a.png"] = redirect(f"http://pictures.test:{safe.port}/a.png")
        async with fetcher(safe, certificates=believing(authority)) as fetching:
            with pytest.raises(UrlRefused, match="from https to http"):
                await fetching.fetch(f"https://pictures.test:{safe.port}/a.png")
        assert len(safe.asked) == 1


# --- what the environment may not decide ------------------------------------------------------------------------------


async def test_a_proxy_of_the_environment_is_not_used_nor_a_password_of_the_home(
    host: PictureHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine pictures.test login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with picture_host() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with fetcher(host) as fetching:
            assert (await fetching.fetch(url(host))).data == PICTURE
        assert proxy.connections == 0
    assert "authorization" not in host.asked[0].headers


async def test_cookies_are_not_kept(host: PictureHost) -> None:
    host.answers["/a.png"] = answer(PICTURE, headers={"Set-Cookie": "who=you"})
    async with fetcher(host) as fetching:
        for _ in range(2):
            await fetching.fetch(url(host))
    assert all("cookie" not in asked.headers for asked in host.asked)
