"""A real Prometheus scrapes a real server: the documentation's questions, the alerts and the dashboard's panels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import server
from tests import DEMO_PICTURES, PHOTOGRAPHS, ROOT
from tests.support.pictures import unseen
from tests.support.process import PATIENCE, Process, until
from tests.support.prometheus import DEPLOY, RULES, Prometheus, needs_prometheus, promtool, scraping
from tests.support.serving import NewShop

pytestmark = needs_prometheus

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
PHOTOGRAPH = (PHOTOGRAPHS / "drum-and-wine.jpg").read_bytes()
PAGE = (ROOT / "docs" / "observability.md").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "twinlens.json").read_text("utf-8"))

SEARCHES, REFUSALS, WITHOUT_VECTOR, SIZES, BUILDS = (
    text.strip() for text in re.findall(r"```promql\n(.*?)```", PAGE, re.DOTALL)
)


def alerts() -> dict[str, str]:
    """The alerts of the rules, and the runbook that each names."""
    text = RULES.read_text("utf-8")
    return dict(re.findall(r"- alert: (\w+)\n.*?runbook: \"(.*?)\"", text, re.DOTALL))


# --- the files --------------------------------------------------------------------------------------------------------


def test_the_configuration_and_the_rules_are_sound() -> None:
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus.yml")
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", RULES)


def test_each_alert_fires_for_its_reason_and_none_while_all_is_well() -> None:
    cases = (ROOT / "tests" / "deploy" / "alerts.yml").read_text("utf-8")
    assert set(re.findall(r"alertname=\"(\w+)\"", cases)) == set(alerts())
    assert "SUCCESS" in promtool("test", "rules", "tests/deploy/alerts.yml")


def test_each_alert_has_a_paragraph_that_says_what_to_do() -> None:
    paragraphs = dict(re.findall(r"^#### (\w+)\n\n(.+?)(?=\n\n|\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert set(paragraphs) == set(alerts())
    for name, runbook in alerts().items():
        assert runbook == f"docs/observability.md#{name.lower()}"
        assert len(paragraphs[name].split()) > 25, name


# --- a server that is scraped -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serving(new_shop: NewShop) -> Iterator[Process]:
    """A server of two workers with the demo catalogue."""
    with new_shop() as shop:
        process = Process(shop.data, "--database-url", shop.database_url, "--workers", "2")
        try:
            process.ready(times=2)
            yield process
        finally:
            assert process.stop() == 0


@pytest.fixture(scope="module")
def prometheus(serving: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen each kind of request at least twice, so that there are rates."""
    with scraping(tmp_path_factory.mktemp("prometheus"), [f"127.0.0.1:{serving.port}"]) as prometheus:
        ask_of_each_kind(serving)
        until(lambda: counts(prometheus))
        before = counts(prometheus)
        ask_of_each_kind(serving)
        until(lambda: all(now > before[kind] for kind, now in counts(prometheus).items()))
        until(lambda: prometheus.ask("twinlens_catalogue_size"))
        yield prometheus


KINDS = ("", "not_a_picture", "deadline_missed", "no_text")


def counts(prometheus: Prometheus) -> dict[str, float]:
    """The requests of each kind that were seen, once there are some of all."""
    found = prometheus.ask('sum by (code) (twinlens_requests_total{route="/v1/search"})')
    seen = {labels.get("code", ""): value for labels, value in found}
    return seen if set(seen) == set(KINDS) else {}


def ask_of_each_kind(process: Process) -> None:
    with process.client() as client:
        for _ in range(3):
            assert client.post("/v1/search", files={"file": unseen(PHOTOGRAPH)}).status_code == 200
            assert client.post("/v1/search", json={"text": ""}).status_code == 422
            assert client.post("/v1/search", files={"file": b"text"}).status_code == 415
            late = {"Twinlens-Deadline": "0.0000001"}
            assert client.post("/v1/search", files={"file": unseen(KEYBOARD)}, headers=late).status_code == 503


def test_how_long_searches_take(prometheus: Prometheus) -> None:
    ((_, seconds),) = prometheus.ask(SEARCHES)
    assert 0 < seconds < PATIENCE


def test_what_share_is_refused_and_why(prometheus: Prometheus) -> None:
    shares = {labels["code"]: share for labels, share in prometheus.ask(REFUSALS)}
    assert set(shares) == {"not_a_picture", "deadline_missed", "no_text", "any 5xx"}
    assert all(0 < share < 1 for share in shares.values())
    assert shares["any 5xx"] == pytest.approx(shares["deadline_missed"])


def test_how_many_pictures_have_no_vector(prometheus: Prometheus, serving: Process) -> None:
    space = httpx.get(f"{serving.url}/health/ready").json()["space"]
    assert prometheus.ask(WITHOUT_VECTOR) == [({"space": space}, 0)]


def test_how_large_the_catalogue_is(prometheus: Prometheus) -> None:
    pictures = len(list(DEMO_PICTURES.glob("*.webp")))
    found = {labels["what"]: size for labels, size in prometheus.ask(SIZES)}
    assert found == {
        "clients": 1,
        "products": pictures,
        "active_products": pictures,
        "media": pictures,
        "media_of_largest_client": pictures,
        "vectors": pictures,
        "pending_media": 0,
        "failed_media": 0,
    }


def test_which_model_and_version_answer(prometheus: Prometheus, serving: Process) -> None:
    ready = httpx.get(f"{serving.url}/health/ready").json()
    expected = {name: ready[name] for name in ("model", "space", "precision", "device")}
    assert prometheus.ask(BUILDS) == [({**expected, "version": server.__version__}, 1)]


def test_no_rule_fails_and_no_alert_fires_on_a_server_that_is_well(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in rules()))
    assert {rule["name"] for rule in rules()} == set(alerts())
    assert [rule for rule in rules() if rule["health"] != "ok" or rule["state"] == "firing"] == []


def panels() -> dict[str, list[str]]:
    """The expressions of each panel, with Grafana's variables as it would put them in."""
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
            for target in panel["targets"]
        ]
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
    }


EMPTY = ("Looked at again, and swept", "Read replica")
"""What has nothing to show before an upgrade has looked at pictures again, or without a read replica."""


@pytest.mark.parametrize("title", list(panels()))
def test_each_panel_of_the_dashboard_shows_something(prometheus: Prometheus, title: str) -> None:
    for expression in panels()[title]:
        found = prometheus.ask(expression)
        assert found or title in EMPTY, expression


def test_the_dashboard_shows_each_metric_and_no_other(serving: Process) -> None:
    shown = set(re.findall(r"twinlens_\w+", json.dumps([*panels().values()])))
    table = PAGE.split("### What there is\n")[1].split("\n\n**")[0]
    known = {
        name
        for names in re.findall(r"^\| (`twinlens_.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert shown <= known
    assert known - shown <= {"twinlens_catalogue_counted_timestamp_seconds"}


def test_the_page_of_metrics_is_as_prometheus_likes_it(serving: Process) -> None:
    text = httpx.get(f"{serving.url}/metrics").text
    # A Python client gives each counter and histogram the time of its creation as a gauge.
    assert promtool("check", "metrics", given=text).strip() == ""
