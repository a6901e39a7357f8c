"""Health, metrics, the page's files, and the one body of every error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server import errors, lifespan
from server.http import problems
from server.http.problems import STATUSES, status_of
from server.preprocessing import media
from tests import DEMO_PICTURES
from tests.support.databases import in_database
from tests.support.pictures import unseen
from tests.support.process import until
from tests.support.serving import Client, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()


def families(base: type[errors.TwinlensError] = errors.TwinlensError) -> Iterator[type[errors.TwinlensError]]:
    for family in base.__subclasses__():
        if family.__module__ == errors.__name__:  # others who have errors of the same base are no server
            yield family
        yield from families(family)


def test_it_is_alive_and_ready(api: Client) -> None:
    assert api.get("/health/live").json() == {"status": "ok"}
    ready = api.get("/health/ready").json()
    assert (ready["status"], ready["device"], ready["precision"]) == ("ready", "cpu", "fp32")
    assert len(ready["space"]) == 64
    assert ready["reads"] == media.reads()
    assert {"image/jpeg", "image/png", "image/heic"} <= set(ready["reads"])


def test_a_server_without_its_database_is_alive_and_not_ready(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "_CONNECTION_TIMEOUT_SECONDS", 1.0)  # each of two answers would wait for 5 seconds
    with serving(database_url, tmp_path) as client:
        assert client.get("/health/ready").status_code == 200
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        with psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            response = client.get("/health/ready")
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
            assert client.get("/health/live").status_code == 200
            searched = client.post("/v1/search", files={"file": KEYBOARD})
            assert searched.status_code == 503
            assert "Retry-After" in searched.headers
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        until(lambda: client.get("/health/ready").status_code == 200)


def test_metrics_count_what_was_answered(api: Client) -> None:
    def answered() -> float:
        lines = api.get("/metrics").text.splitlines()
        name = 'twinlens_requests_total{code="",method="POST",route="/embed-image",status="200"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = answered()
    api.post("/embed-image", files={"file": KEYBOARD})
    assert answered() == before + 1
    assert api.get("/metrics").headers["content-type"].startswith("text/plain")


def test_metrics_count_refused_requests_too(api: Client) -> None:
    def refused(status: int, code: str) -> float:
        name = f'twinlens_requests_total{{code="{code}",method="POST",route="/embed-image",status="{status}"}}'
        return sum(float(line.split()[-1]) for line in api.get("/metrics").text.splitlines() if line.startswith(name))

    refusals = [(415, "not_a_picture"), (422, "bad_parameter"), (503, "deadline_missed")]
    before = {one: refused(*one) for one in refusals}
    api.post("/embed-image", files={"file": b"text"})
    api.post("/embed-image", files={"file": KEYBOARD}, headers={"Twinlens-Deadline": "soon"})
    api.post("/embed-image", files={"file": unseen(KEYBOARD)}, headers={"Twinlens-Deadline": "0.0000001"})
    assert {one: refused(*one) - before[one] for one in refusals} == dict.fromkeys(refusals, 1)


def test_the_page_loads_nothing_from_elsewhere(api: Client) -> None:
    page = api.get("/?clientId=demo&mediaId=x")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.findall(r'(?:href|src)="/', page.text), "below a prefix, an address of the page would be another's"
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert f'"web/{name}"' in page.text
        assert api.get(f"/web/{name}").headers["content-type"].startswith(kind)
    assert api.get("/web/../settings.py").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing/here", {}, 404),
        ("GET", "/web/nothing.js", {}, 404),
        ("GET", "/web/%00", {}, 404),
        ("GET", "/schema/nothing", {}, 404),
        ("GET", "/web/swagger-ui/README.md", {}, 404),
        ("GET", "/web/app.js%00", {}, 404),
        ("GET", "/web/..%2f", {}, 404),
        ("GET", "/web/..%2fsettings.py", {}, 404),
        ("DELETE", "/v1/search", {}, 405),
        ("POST", "/v1/search", {"json": {}}, 422),
        ("POST", "/v1/search", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/embed-image", {"files": {"file": b"text"}}, 415),
        ("POST", "/embed-image", {"files": {"file": b"x" * 5_000_000}}, 413),
        ("GET", "/v1/products/none", {}, 404),
        ("PUT", "/v1/products/x", {"content": b"name=x"}, 415),
        ("GET", "/v1/media/x?clientId=a%20b", {}, 422),
    ],
)
def test_every_error_has_one_body(api: Client, method: str, path: str, body: Any, status: int) -> None:
    response = api.request(method, path, **body)
    assert response.status_code == status
    problem = response.json()
    assert set(problem) == {"error", "code", "requestId"}
    assert problem["error"].endswith(".")
    assert problem["code"] == problem["code"].lower()
    assert response.headers["X-Request-Id"] == problem["requestId"] != ""


def test_a_callers_own_request_id_is_kept_if_it_is_short_and_plain(api: Client) -> None:
    assert api.get("/health/live", headers={"X-Request-Id": "shop-42"}).headers["X-Request-Id"] == "shop-42"
    assert api.get("/health/live", headers={"X-Request-Id": "a b\tc"}).headers["X-Request-Id"] != "a b\tc"


def test_a_fault_of_ours_is_a_500_that_gives_no_details(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as client:
        client.app.state.services = None  # anything unforeseen
        response = client.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "NoneType" not in response.text


def test_a_new_line_in_a_path_begins_no_line_of_the_log(api: Client, caplog: pytest.LogCaptureFixture) -> None:
    forged = "/v1/products/a%0d%0aERROR%20forged"
    assert api.get(forged, headers={"Twinlens-Deadline": "0.000001"}).status_code == 503
    (line,) = [record.getMessage() for record in caplog.records if record.name == problems.__name__]
    assert "forged" in line
    assert line.isprintable()


STATUS_OF = {
    errors.IdempotencyKeyReused: 422,
    errors.IdempotencyKeyInUse: 409,
    errors.PictureTaken: 409,
    errors.MediaRejected: 400,
    errors.NoPicture: 400,
    errors.NotAPicture: 415,
    errors.UnsupportedPicture: 415,
    errors.UnreadablePicture: 400,
    errors.PictureTooLarge: 413,
    errors.UploadTooLarge: 413,
    errors.BadParameter: 422,
    errors.NoTextTower: 422,
    errors.TextRejected: 422,
    errors.NoText: 422,
    errors.TextTooLong: 422,
    errors.ClientRequired: 422,
    errors.FetchFailed: 424,
    errors.KeyRefused: 401,
    errors.KeyMissing: 401,
    errors.KeyInvalid: 401,
    errors.SignatureInvalid: 401,
    errors.Forbidden: 403,
    errors.ScopeMissing: 403,
    errors.SearchesOnly: 403,
    errors.FieldHidden: 403,
    errors.ClientMismatch: 403,
    errors.OriginRefused: 403,
    errors.HostRefused: 403,
    errors.RateLimited: 429,
    errors.UrlRefused: 422,
    errors.MalformedRequest: 400,
    errors.UnsupportedBody: 415,
    errors.UnsupportedEncoding: 415,
    errors.NotFound: 404,
    errors.ProductNotFound: 404,
    errors.MediaNotFound: 404,
    errors.CatalogueConflict: 409,
    errors.SkuTaken: 409,
    errors.SpaceMismatch: 409,
    errors.PreconditionFailed: 412,
    errors.VectorRefused: 422,
    errors.CatalogueUnavailable: 503,
    errors.CatalogueBusy: 503,
    errors.CatalogueReadOnly: 503,
    errors.OutcomeUnknown: 503,
    errors.CatalogueFailed: 500,
    errors.Overloaded: 503,
    errors.DeadlineMissed: 503,
    errors.CallerLeft: 499,
    errors.NotReady: 503,
    errors.KeysUnknown: 503,
    errors.Unready: 503,
    errors.Unhealthy: 503,
    errors.ModelStuck: 503,
    errors.ModelFailing: 503,
    errors.DiskFull: 503,
    errors.EncoderFailed: 500,
    errors.StorageFailed: 500,
    errors.StoreUnavailable: 503,
    errors.BytesMissing: 503,
    errors.BytesRemain: 500,  # never answered
    # These stop a start; none is ever answered.
    errors.StartRefused: 500,
    errors.BadSetting: 500,
    errors.ArtifactInvalid: 500,
    errors.DatabaseUnusable: 500,
    errors.SpaceNotLive: 500,
    errors.SpaceDropped: 503,
    errors.SpaceRefused: 500,
    errors.StoreRefused: 500,
    errors.SweepRefused: 500,
    errors.FeedUnreadable: 500,
    errors.BackupRefused: 500,
    errors.DumpRefused: 500,
    errors.ExtraMissing: 500,
    errors.IngestRefused: 500,
    errors.SpaceIncomplete: 500,
    errors.ReembeddingStopped: 500,
    errors.FolderInUse: 500,
    errors.AddressRefused: 500,
    errors.WorkerEnded: 500,
    errors.DatabaseUnfit: 500,
    errors.SessionNeeded: 500,
}


@pytest.mark.parametrize("family", list(families()), ids=lambda family: family.__name__)
def test_every_error_is_a_sentence_with_a_code_and_a_status(family: type[errors.TwinlensError]) -> None:
    assert family.__doc__
    assert family.__doc__.strip().endswith(".") or ":" in family.__doc__
    assert family.code == family.code.lower()
    assert status_of(family.__new__(family)) == STATUS_OF[family]


def test_no_row_of_the_table_hides_a_later_one() -> None:
    for position, (family, _) in enumerate(STATUSES):
        for earlier, _ in STATUSES[:position]:
            assert not issubclass(family, earlier), f"{earlier.__name__} stands before {family.__name__}"
