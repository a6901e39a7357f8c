"""The operator's page in a real browser: it shows what the server says of itself, and says what is away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from server.database.locks import LOCKS_OF_REEMBEDDING
from server.operations.metrics import Metrics
from tests import DEMO_PICTURES
from tests.support.axe import Axe
from tests.support.browsers import launched, needs_chromium
from tests.support.databases import database_of, fresh_database, in_database, run_sql
from tests.support.keys import new_key
from tests.support.pictures import unseen
from tests.support.prefix_proxy import proxied
from tests.support.process import Process, Serve, until
from tests.support.serving import NewShop
from twinlens import derive_search_key

pytestmark = needs_chromium

PATIENCE = 30_000
LOOKS_EACH = 5_000  # milliseconds
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@contextmanager
def browsing(browser: Browser, address: str, *, key: str = "no key", width: int = 390) -> Iterator[Page]:
    """The page, with a clock that goes as the test says; it only asks, nothing is wrong on it that a console would
    show, and the key goes nowhere but into headers."""
    complaints: list[str] = []
    origin = urlsplit(address)[:2]

    def read(line: ConsoleMessage) -> None:
        if "Content Security" in line.text or key in line.text:
            complaints.append(line.text)

    def asks(request: Request) -> None:
        if request.method != "GET":
            complaints.append(f"{request.method} {request.url}")
        if (not request.url.startswith("blob:") and urlsplit(request.url)[:2] != origin) or key in request.url:
            complaints.append(f"asks for {request.url}")

    with browser.new_context(viewport={"width": width, "height": 844}, locale="en-GB") as context:
        context.on("request", asks)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", read)
        stop_the_clock(page)
        page.goto(address)
        yield page
    assert complaints == []


def stop_the_clock(page: Page) -> None:
    """Time passes on the page when a test says so, and looks are made when it does."""
    page.clock.install(time=NOON)
    page.clock.pause_at(NOON + timedelta(hours=1))  # it goes until then


@pytest.fixture(scope="module")
def server(new_shop: NewShop) -> Iterator[Process]:
    """A server with the demo catalogue, which was asked for something and refused something."""
    with new_shop() as shop:
        process = Process(shop.data, "--demo", "on", "--database-url", shop.database_url)
        try:
            process.ready()
            ask(process)
            yield process
        finally:
            process.stop()


def ask(process: Process) -> None:
    with process.client() as client:
        client.post("/v1/search", files={"file": unseen(KEYBOARD)}).raise_for_status()
        assert client.post("/v1/search", files={"file": b"no picture"}).status_code == 415
        assert client.get("/v1/media/none").status_code == 404


def look_again(page: Page) -> None:
    """Wait for the answers of the next look."""
    with page.expect_response("**/metrics", timeout=PATIENCE), page.expect_response("**/v1/operator", timeout=PATIENCE):
        page.clock.run_for(LOOKS_EACH)


def was_seen(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-seen", "yes", timeout=PATIENCE)


def cells(page: Page, table: str) -> list[list[str]]:
    """The texts of a table's rows, without its head."""
    return [row.locator("th, td").all_inner_texts() for row in page.get_by_test_id(table).locator("tbody tr").all()]


def says(page: Page, sentence: str | re.Pattern[str]) -> None:
    expect(page.get_by_test_id("state")).to_contain_text(sentence, timeout=PATIENCE)


WELL = "Everything that this server needs is as it should be."


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_it_shows_what_the_server_says_of_itself(server: Process, browser: Browser) -> None:
    with browsing(browser, f"{server.url}/operator") as page:
        was_seen(page)
        says(page, WELL)
        told = httpx.get(f"{server.url}/v1/operator").json()
        build = page.get_by_test_id("build")
        expect(build).to_contain_text(f"Twinlens {told['server']['version']}, {told['server']['model']} (fp32) on cpu")
        expect(page.get_by_test_id("uptime")).to_contain_text("1 worker")
        expect(page.get_by_test_id("facts")).to_contain_text("of 280 products")
        assert cells(page, "clients") == [["demo", "280", "280", "280"]]
        ((short, state, model, dimensions, vectors, missing, _),) = cells(page, "spaces")
        assert told["server"]["space"].startswith(short)
        assert (state, model) == ("live", f"{told['server']['model']} (this server)")
        assert (dimensions, vectors, missing) == ("512", "280", "0")
        assert {row[0] for row in cells(page, "disks")} == {one["folder"] for one in told["disks"]}
        assert {row[0] for row in cells(page, "pools")} == {"requests", "background"}
        assert {(row[0], row[1]) for row in cells(page, "codes")} >= {
            ("not_a_picture", "415"),
            ("media_not_found", "404"),
        }
        assert ["A picture could not be decoded", "1"] in cells(page, "events")
        expect(page.get_by_test_id("progress")).to_be_empty()
        expect(page.locator("#indexes-none")).to_contain_text("No client is so large")


def test_what_happens_while_it_is_open_is_counted_and_each_plot_says_it_in_words_and_as_a_table(
    server: Process, browser: Browser
) -> None:
    with browsing(browser, f"{server.url}/operator") as page:
        was_seen(page)
        plot = page.get_by_test_id("plot-searches")
        expect(plot.locator(".now")).to_contain_text("answered –")
        for _ in range(4):
            ask(server)
        look_again(page)
        expect(plot.locator(".now")).to_contain_text("answered 0.80/s", timeout=PATIENCE)  # four within five seconds
        expect(page.get_by_test_id("plot-refusals").locator(".now")).to_contain_text("refused (4xx) 1.60/s")
        times = page.get_by_test_id("plot-times")
        expect(times.locator(".now")).to_contain_text(re.compile(r"p50 [\d.]+ m?s.*p95 [\d.]+ m?s.*p99 [\d.]+ m?s"))
        drawn = plot.get_by_role("img")
        expect(drawn).to_have_attribute(
            "aria-label", "Searches a second in the last 5 s. answered: 0.80/s now, 0.80/s to 0.80/s."
        )
        stages = {name: passed for name, passed, *_ in cells(page, "stages")}
        assert (stages["Decode"], stages["Run the model"], stages["Search the database"]) == ("4", "4", "4")
        assert [row[2] for row in cells(page, "codes")] == ["4", "4"]

        plot.get_by_text("As a table").click()
        rows = plot.locator("tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("0.80/s")
        look_again(page)
        expect(rows).to_have_count(3)


@pytest.mark.parametrize("width", [390, 768, 1280, 1600])
def test_nothing_scrolls_sideways(server: Process, browser: Browser, width: int) -> None:
    with browsing(browser, f"{server.url}/operator", width=width) as page:
        was_seen(page)
        look_again(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        drawn = page.get_by_test_id("plot-times").get_by_role("img").bounding_box()
        assert drawn is not None
        assert drawn["width"] <= width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(
    server: Process, browser: Browser, axe: Axe, width: int, scheme: Literal["light", "dark"]
) -> None:
    with browsing(browser, f"{server.url}/operator", width=width) as page:
        page.emulate_media(color_scheme=scheme)
        was_seen(page)
        ask(server)
        look_again(page)
        for more in page.get_by_text("As a table").all():
            more.click()
        page.clock.resume()  # axe-core waits by it
        assert axe.violations(page) == []


def test_axe_sees_what_has_no_name(server: Process, browser: Browser, axe: Axe) -> None:
    with browsing(browser, f"{server.url}/operator") as page:
        page.clock.resume()
        page.evaluate("document.querySelector('main').append(document.createElement('button'))")
        assert [one for one in axe.violations(page, "main") if one.startswith("button-name")]


# --- many clients, and a re-embedding ---------------------------------------------------------------------------------


def test_ten_thousand_clients_and_a_re_embedding(serve: Serve, database_url: str, browser: Browser) -> None:
    process = serve("--database-url", database_url)
    process.ready()
    process.stop()
    run_sql(
        database_url,
        """
        INSERT INTO products (id, "clientId", name)
        SELECT 'p' || n, 'client-' || to_char(n, 'FM00000'), 'A thing' FROM generate_series(1, 10000) n;
        INSERT INTO media (id, "productId", "clientId", "s3Key", kind)
        SELECT 'm' || n || '-' || k, 'p' || n, 'client-' || to_char(n, 'FM00000'), 'k', 'image'
        FROM generate_series(1, 3) n, generate_series(1, 4 - n) k;
        INSERT INTO twinlens_unreadable (space, "mediaId", reason) SELECT 1, id, 'none' FROM media;
        SELECT twinlens_register_space(repeat('b', 64), 512, 'another', '{}'::jsonb, '/models/another');
        INSERT INTO twinlens_unreadable (space, "mediaId", reason) VALUES (2, 'm3-1', 'none')
        """,
    )
    process = serve("--database-url", database_url)
    process.ready()
    with psycopg.connect(database_url, autocommit=True) as other, browsing(browser, f"{process.url}/operator") as page:
        other.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS_OF_REEMBEDDING, 2))
        was_seen(page)
        look_again(page)
        expect(page.get_by_test_id("clients-about")).to_contain_text(
            "10,000 clients, of which these are the 100 largest.", timeout=PATIENCE
        )
        assert [row[:2] for row in cells(page, "clients")[:3]] == [
            ["client-00001", "3"],
            ["client-00002", "2"],
            ["client-00003", "1"],
        ]
        more = page.get_by_test_id("clients-more")
        assert len(cells(page, "clients")) == 10
        more.focus()
        page.keyboard.press("Enter")
        expect(more).to_have_attribute("aria-expanded", "true")
        assert len(cells(page, "clients")) == 100
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        progress = page.get_by_test_id("progress")
        expect(progress).to_contain_text("0 of 6 pictures embedded (16.7 %), 1 could not be.", timeout=PATIENCE)
        # A server keeps for some seconds what it has read.
        until_shown(page, lambda: "A re-embedding runs" in progress.inner_text())
        expect(progress.get_by_role("progressbar")).to_have_attribute("value", "1")
        assert [row[1] for row in cells(page, "spaces")] == ["filling", "live"]

        other.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCKS_OF_REEMBEDDING, 2))
        until_shown(page, lambda: "Nobody re-embeds at this moment" in progress.inner_text())


def test_the_pace_of_a_re_embedding_is_worked_out_from_two_counts(server: Process, browser: Browser) -> None:
    told = httpx.get(f"{server.url}/v1/operator").json()
    filling = {**told["spaces"][0], "id": "b" * 64, "state": "filling", "served": False, "vectors": 0}

    def at(minute: int, embedded: int) -> str:
        progress = {"running": True, "embedded": embedded, "untried": 10_000 - embedded, "failed": 0}
        clients = {**told["clients"], "countedAt": f"2026-11-30T12:0{minute}:00Z"}
        return json.dumps({**told, "clients": clients, "spaces": [{**filling, "progress": progress}]})

    answers = iter([at(0, 400), at(0, 400), at(2, 1600)])
    with browser.new_context() as context:
        page = context.new_page()
        stop_the_clock(page)
        page.route("**/v1/operator", lambda route: route.fulfill(body=next(answers), content_type="application/json"))
        page.goto(f"{server.url}/operator")
        progress = page.get_by_test_id("progress")
        expect(progress).to_contain_text("its pace is known after two counts", timeout=PATIENCE)
        look_again(page)
        look_again(page)
        expect(progress).to_contain_text("1,600 of 10,000 pictures embedded (16.0 %).", timeout=PATIENCE)
        expect(progress).to_contain_text("A re-embedding runs at 10.0/s, about 14 min to go.")


# --- what is away -----------------------------------------------------------------------------------------------------


def test_while_the_database_is_away_it_says_so_and_goes_on_showing_the_metrics(
    serve: Serve, database_url: str, browser: Browser
) -> None:
    process = serve("--database-url", database_url, "--demo", "on")
    process.ready()
    with browsing(browser, f"{process.url}/operator") as page:
        was_seen(page)
        says(page, WELL)
        name = database_of(database_url)
        with psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            until_shown(page, lambda: "database" in page.get_by_test_id("state").inner_text())
            says(page, re.compile(r"Clients, spaces and indexes are as they were at \d\d:\d\d:\d\d\."))
            expect(page.get_by_test_id("state")).not_to_contain_text("Rates, times and disks")
            assert cells(page, "clients")[0][0] == "demo", "what was known is still there"
            points = page.get_by_test_id("plot-queue").locator("tbody tr")
            page.get_by_test_id("plot-queue").get_by_text("As a table").click()
            before = points.count()
            look_again(page)
            expect(points).to_have_count(before + 1, timeout=PATIENCE)
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        until_shown(page, lambda: page.get_by_test_id("state").inner_text() == WELL)
        # And a server that is gone.
        process.stop()
        page.clock.run_for(LOOKS_EACH)
        says(page, "The server does not answer.")
        says(page, "Rates, times and disks are as they were at")
        expect(page).to_have_title("(!) Operator – Twinlens")


def until_shown(page: Page, shown: Callable[[], bool]) -> None:
    """Look again and again until it is so."""

    def look() -> bool:
        look_again(page)
        return shown()

    until(look)


def test_servers_that_answer_in_turn_are_noticed(server: Process, browser: Browser) -> None:
    told = httpx.get(f"{server.url}/v1/operator").json()
    starts = iter(["2026-11-30T12:00:00Z", "2026-11-30T12:05:00Z", "2026-11-30T12:00:00Z"])

    def of_another() -> str:
        return json.dumps({**told, "server": {**told["server"], "startedAt": next(starts)}})

    with browser.new_context() as context:
        page = context.new_page()
        stop_the_clock(page)
        page.route("**/v1/operator", lambda route: route.fulfill(body=of_another(), content_type="application/json"))
        page.goto(f"{server.url}/operator")
        was_seen(page)
        look_again(page)
        says(page, WELL)  # a server that was started anew
        look_again(page)
        says(page, "Several servers answer at this address")


# --- keys -------------------------------------------------------------------------------------------------------------


class Keyed(NamedTuple):
    process: Process
    admin: str
    search: str


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with fresh_database(postgres_url, template_database) as url:
        admin, search = new_key(url, "admin", None).key, new_key(url, "search").key
        process = Process(tmp_path_factory.mktemp("keyed"), "--database-url", url)
        try:
            yield Keyed(process.ready(), admin, search)
        finally:
            process.stop()


def give(page: Page, key: str) -> None:
    """By the keyboard alone: the field has the focus."""
    expect(page.get_by_label("This page needs a key of an operator")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def test_where_keys_are_on_an_admins_is_asked_for_and_any_other_is_told_why_it_will_not_do(
    keyed: Keyed, browser: Browser, axe: Axe
) -> None:
    with browsing(browser, f"{keyed.process.url}/operator", key=keyed.admin) as page:
        error = page.get_by_test_id("key-error")
        expect(page.locator("#figures")).to_be_hidden()
        page.clock.resume()
        assert axe.violations(page) == []
        for key in (keyed.search, derive_search_key(keyed.search, limit=3)):
            give(page, key)
            expect(error).to_contain_text(re.compile("scope admin|search key"), timeout=PATIENCE)
            page.get_by_test_id("key").fill("")
        give(page, f"{keyed.admin[:-4]}AAAA")
        expect(error).to_contain_text("unknown, revoked or expired", timeout=PATIENCE)
        assert axe.violations(page) == []
        page.get_by_test_id("key").fill("")

        give(page, keyed.admin)
        was_seen(page)
        says(page, WELL)
        expect(page.get_by_test_id("key-panel")).to_be_hidden()
        page.reload()
        was_seen(page)

        # The page one searches with is nobody's admin.
        page.goto(keyed.process.url)
        expect(page.get_by_test_id("key-panel")).to_be_visible()
        page.goto(f"{keyed.process.url}/operator")
        was_seen(page)

        page.get_by_test_id("forget-key").click()
        expect(page.get_by_test_id("key-panel")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
        assert cells(page, "spaces") == cells(page, "disks") == []
        assert keyed.admin not in page.content()


def test_a_key_that_ends_while_the_page_is_open_takes_the_figures_with_it(keyed: Keyed, browser: Browser) -> None:
    with browsing(browser, f"{keyed.process.url}/operator", key=keyed.admin) as page:
        give(page, keyed.admin)
        was_seen(page)
        revoked = {"status": 401, "json": {"error": "The key is revoked.", "code": "key_invalid", "requestId": "1"}}
        page.route("**/metrics", lambda route: route.fulfill(**revoked))
        look_again(page)
        expect(page.get_by_test_id("key-error")).to_have_text("The key is revoked.", timeout=PATIENCE)
        assert cells(page, "disks") == []
        page.unroute("**/metrics")
        give(page, keyed.admin)
        was_seen(page)


# --- the report -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [False, True], ids=["open", "keyed"])
def test_the_report_of_the_export_opens_as_it_was_made(
    request: pytest.FixtureRequest, browser: Browser, keys: bool
) -> None:
    process = request.getfixturevalue("keyed").process if keys else request.getfixturevalue("server")
    key = request.getfixturevalue("keyed").admin if keys else "no key"
    with browsing(browser, f"{process.url}/operator", key=key) as page:
        if keys:
            give(page, key)
        was_seen(page)
        with page.expect_popup(timeout=PATIENCE) as opened:
            page.get_by_role("link", name="What the export measured of this model").click()
        report = opened.value
        expect(report).to_have_title("starter: what the export measured", timeout=PATIENCE)
        # Its own styles hold, which this page's policy allows for them alone.
        assert report.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "1160px"
        assert report.url.startswith(f"blob:{process.url}/" if keys else f"{process.url}/operator/report")
        report.close()


# --- below a prefix ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "named", "address"),
    [
        pytest.param("/search", False, "/search/operator", id="no prefix named"),
        pytest.param("/shop/search", True, "/shop/search/operator", id="named"),
        pytest.param("/search", False, "/search/operator/", id="a slash at the end"),
    ],
)
def test_below_a_prefix_it_finds_all_that_it_needs(
    server: Process, browser: Browser, prefix: str, named: bool, address: str
) -> None:
    with proxied(server.url, prefix, named=named) as proxy, browsing(browser, proxy.url + address) as page:
        was_seen(page)
        says(page, WELL)
        assert page.get_by_role("link", name="Twinlens").evaluate("link => link.href") == f"{proxy.url}{prefix}/"
        expect(page.locator(".brand img")).to_have_js_property("naturalWidth", 150)
        assert proxy.strays == []


# --- what it reads ----------------------------------------------------------------------------------------------------

MODULES = """async ([looks, question]) => {
    const { Samples } = await import("./web/samples.js");
    const { Timeline } = await import("./web/timeline.js");
    const seen = new Timeline();
    const names = ["twinlens_request_seconds_bucket", "twinlens_requests_total", "twinlens_batch_size_sum",
        "twinlens_batch_size_count"];
    for (const [at, text] of looks) seen.add(at, new Samples(text), names);
    return question === "quantiles"
        ? [0.5, 0.95, 0.99, 1].map((one) => seen.quantile(one, "twinlens_request_seconds", { route: "/v1/search" }))
        : question === "mean" ? seen.mean("twinlens_batch_size")
        : [seen.seconds, seen.rise("twinlens_requests_total"), seen.rate("twinlens_requests_total", { status: "200" })];
}"""


def timeline(page: Page, looks: Sequence[tuple[float, str]], question: str) -> Any:
    """What the page's own modules make of these texts of /metrics, each with the second in which it came."""
    return page.evaluate(MODULES, [[*looks], question])


@pytest.fixture
def page(server: Process, browser: Browser) -> Iterator[Page]:
    with browsing(browser, f"{server.url}/operator") as page:
        was_seen(page)
        yield page


def test_percentiles_are_those_that_prometheus_works_out_of_what_has_come_since(page: Page) -> None:
    metrics = Metrics()
    for _ in range(50):
        metrics.answered("POST", "/v1/search", 200, "", 9.0)  # before the page was opened
    before = metrics.render().decode()
    for route, seconds in [("/v1/search", 0.03)] * 60 + [("/v1/search", 0.2)] * 38 + [("/v1/search", 60.0)] * 2:
        metrics.answered("POST", route, 200, "", seconds)
    metrics.answered("GET", "/v1/products", 200, "", 2.0)
    # 60 values between 0.025 and 0.05, 38 between 0.1 and 0.25, and 2 above 30, the last bound.
    expected = [0.025 + 0.025 * 50 / 60, 0.1 + 0.15 * 35 / 38, 30, 30]
    assert timeline(page, [(0, before), (5, metrics.render().decode())], "quantiles") == pytest.approx(expected)


def test_of_nothing_there_is_no_percentile_and_no_mean(page: Page) -> None:
    metrics = Metrics()
    metrics.answered("POST", "/v1/search", 200, "", 0.1)
    looks = [(0, metrics.render().decode()), (5, metrics.render().decode())]
    assert timeline(page, looks, "quantiles") == [None] * 4
    assert timeline(page, looks, "mean") is None


def test_a_rate_counts_what_is_new_goes_on_where_a_server_begins_again_and_forgets_after_a_minute(page: Page) -> None:
    def counted(answered: int, refused: int = 0) -> str:
        metrics = Metrics()
        for status, times in (("200", answered), ("415", refused)):
            for _ in range(times):
                metrics.answered("POST", "/v1/search", int(status), "" if status == "200" else "not_a_picture", 0.1)
        return metrics.render().decode()

    assert timeline(page, [(0, counted(100))], "rates") == [0, None, None]
    # A series that is new was 0 before; one that is smaller than before began again at 0.
    looks = [(0, counted(100)), (10, counted(110, 5)), (20, counted(4, 1))]
    assert timeline(page, looks, "rates") == [20, 20, pytest.approx(14 / 20)]
    looks = [(at, counted(at)) for at in range(0, 121, 10)]
    assert timeline(page, looks, "rates") == [60, 60, 1]


def test_texts_and_numbers_are_read_as_prometheus_writes_them(page: Page) -> None:
    text = (
        '# HELP a Help\n# TYPE a gauge\na{x="a\\"b\\\\n\\n} 5",y=""} +Inf\na{x="z"} NaN\nb 1.5e+09\nbroken line here\n'
    )
    found = page.evaluate(
        """async (text) => {
            const { Samples } = await import("./web/samples.js");
            const read = new Samples(text);
            return [read.of("a").map(({ labels, value }) => [labels, String(value)]), read.sum("b"), read.sum("c")];
        }""",
        text,
    )
    assert found == [[[{"x": 'a"b\\n\n} 5', "y": ""}, "Infinity"], [{"x": "z"}, "NaN"]], 1.5e9, None]


def test_all_of_the_page_is_small(server: Process) -> None:
    html = httpx.get(f"{server.url}/operator")
    names = {"operator.css", "operator.js", "key.js", "icon.svg"}
    files, waiting = {"": len(html.content)}, set(names)
    while waiting:
        name = waiting.pop()
        answer = httpx.get(f"{server.url}/web/{name}").raise_for_status()
        files[name] = len(answer.content)
        waiting |= {*re.findall(r'from "\./([\w-]+\.js)"', answer.text)} - files.keys()
    assert {"samples.js", "timeline.js", "plot.js"} <= files.keys()
    assert sum(files.values()) < 60_000, files
