from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from server.__main__ import COMMANDS
from server.commands.serve import _environment
from server.errors import BadSetting
from server.settings import Settings, as_text, file_of, log_form, may_fetch_from_loopback, variable_of
from tests import ROOT


def test_nothing_given_gives_the_defaults() -> None:
    settings = Settings.read({})
    assert (settings.host, settings.port, settings.device, settings.demo) == ("127.0.0.1", 8000, "auto", False)
    assert settings.model == ROOT / "models" / "starter"
    assert settings.data == ROOT / ".twinlens"


def test_the_defaults_lie_in_the_checkout_and_what_is_given_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.read({}).data == ROOT / ".twinlens"
    read = Settings.read({"TWINLENS_DATA": "shop", "TWINLENS_MEDIA_URL": "pictures"}, {"model": "models/new"})
    assert (read.data, read.model) == (tmp_path / "shop", tmp_path / "models" / "new")
    assert read.media_url == str(tmp_path / "pictures")
    assert Settings.read({"TWINLENS_MEDIA_URL": "s3://shop/pictures"}).media_url == "s3://shop/pictures"


@pytest.mark.parametrize("name", ["postgres", "postgres.location", "media"])
def test_a_data_folder_that_was_the_default_before_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".twinlens").mkdir()
    assert Settings.read({}).data == ROOT / ".twinlens"  # what is in there is not ours
    (tmp_path / ".twinlens" / name).mkdir()
    with pytest.raises(BadSetting) as caught:
        Settings.read({})
    (given,) = re.findall(r"--data (\S+) or", caught.value.sentence)
    assert Settings.read({}, {"data": given}).data == tmp_path / ".twinlens"


def test_a_flag_wins_over_its_variable() -> None:
    assert Settings.read({"TWINLENS_PORT": "9000"}).port == 9000
    assert Settings.read({"TWINLENS_PORT": "9000"}, {"port": "9001"}).port == 9001


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read({"TWINLENS_DATABASE_URL": ""}).database_url is None
    assert Settings.read({"TWINLENS_NO_SETTING": ""}) == Settings()


# As the kubelet sets them for the services `twinlens`, with a named port, and `twinlens-db`.
SERVICE_LINKS = {
    "TWINLENS_SERVICE_HOST": "10.96.14.7",
    "TWINLENS_SERVICE_PORT": "80",
    "TWINLENS_SERVICE_PORT_HTTP": "80",
    "TWINLENS_PORT": "tcp://10.96.14.7:80",
    "TWINLENS_PORT_80_TCP": "tcp://10.96.14.7:80",
    "TWINLENS_PORT_80_TCP_PROTO": "tcp",
    "TWINLENS_PORT_80_TCP_PORT": "80",
    "TWINLENS_PORT_80_TCP_ADDR": "10.96.14.7",
    "TWINLENS_PORT_53_UDP": "udp://10.96.14.7:53",
    "TWINLENS_PORT_9_SCTP_ADDR": "10.96.14.7",
    "TWINLENS_DB_SERVICE_HOST": "fd00::7",
    "TWINLENS_DB_SERVICE_PORT": "5432",
    "TWINLENS_DB_PORT": "tcp://[fd00::7]:5432",
    "TWINLENS_DB_PORT_5432_TCP": "tcp://[fd00::7]:5432",
}


def test_kubernetes_links_to_services_are_left_out_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        read = Settings.read({**SERVICE_LINKS, "TWINLENS_DEADLINE": "5"})
    assert read == Settings(deadline=5.0)
    (line,) = (record.getMessage() for record in caplog.records)
    assert all(name in line for name in SERVICE_LINKS)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TWINLENS_PORT", "http://10.96.14.7:80"),
        ("TWINLENS_PORT", "tcp://10.96.14.7"),
        ("TWINLENS_DB_PORT", "5432"),
        ("TWINLENS_PORT_TCP", "80"),
        ("TWINLENS_SERVICE", "10.96.14.7"),
        ("TWINLENSX_SERVICE_HOST_", "10.96.14.7"),
        ("TWINLENS_DATABASE_HOST", "10.96.14.7"),
    ],
)
def test_nothing_else_is_taken_for_a_link(variable: str, text: str) -> None:
    if variable.startswith("TWINLENS_"):
        with pytest.raises(BadSetting, match=variable):
            Settings.read({variable: text})
    else:
        assert Settings.read({variable: text}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAX_UPLOAD", "32 MB", 32_000_000),
        ("MAX_UPLOAD", "1MiB", 1_048_576),
        ("MAX_UPLOAD", "5000", 5000),
        ("DEADLINE", "2.5", 2.5),
        ("URL_LIFETIME", "24h", 86_400.0),
        ("URL_LIFETIME", "7d", 604_800.0),
        ("URL_LIFETIME", "90 m", 5400.0),
        ("URL_LIFETIME", "60", 60.0),
        ("DEADLINE", "30 s", 30.0),
        ("DEMO", "on", True),
        ("DEMO", "0", False),
        ("DEVICE", "cuda", "cuda"),
        ("THREADS", "4", 4),
        ("WORKERS", "auto", None),
        ("CACHE", "0", 0),
        ("CACHE", "1 MB", 1_000_000),
        ("BODY_MEMORY", "auto", None),
        ("BODY_MEMORY", "1GB", 1_000_000_000),
    ],
)
def test_values_are_read_as_people_write_them(name: str, text: str, value: bool | float | int | str | None) -> None:
    assert getattr(Settings.read({f"TWINLENS_{name}": text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("MAX_UPLOAD", "32 parsecs"),
        ("MAX_UPLOAD", "0"),
        ("MAX_PIXELS", "-1"),
        ("DEADLINE", "0"),
        ("DEADLINE", "soon"),
        ("DEVICE", "tpu"),
        ("PRECISION", "fp64"),
        ("DEMO", "maybe"),
        ("BATCH", "0"),
        ("BATCH", "100000000"),
        ("THREADS", "all"),
    ],
)
def test_a_bad_value_names_the_setting_and_the_values_it_accepts(name: str, text: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings.read({f"TWINLENS_{name}": text})
    assert f"TWINLENS_{name} must be" in caught.value.sentence
    assert repr(text) in caught.value.sentence


def test_the_memory_of_bodies_follows_the_largest_body_and_has_room_for_two() -> None:
    assert Settings.read({}).memory_of_bodies == 512_000_000
    assert Settings.read({"TWINLENS_MAX_UPLOAD": "2GB"}).memory_of_bodies == 32_000_000_000
    assert Settings.read({"TWINLENS_BODY_MEMORY": "64MB"}).memory_of_bodies == 64_000_000
    with pytest.raises(BadSetting, match="TWINLENS_BODY_MEMORY must be at least twice TWINLENS_MAX_UPLOAD"):
        Settings.read({"TWINLENS_BODY_MEMORY": "63MB"})


def test_a_misspelt_variable_is_not_ignored() -> None:
    with pytest.raises(BadSetting, match="TWINLENS_PROT is not a setting"):
        Settings.read({"TWINLENS_PROT": "9000"})


def test_every_address_is_accepted_since_only_serve_asks_whether_there_are_keys() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        assert not Settings.read({"TWINLENS_HOST": host}).exposed
    for host in ("0.0.0.0", "::", "192.168.1.5", "shop.example"):
        assert Settings.read({"TWINLENS_HOST": host}).exposed


def test_secrets_do_not_print() -> None:
    settings = Settings.read({"TWINLENS_DATABASE_URL": "postgresql://shop:s3cret@db/shop"})
    assert "s3cret" not in repr(settings)


def secret_file(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text)
    return path


URL = "postgresql://shop:s3cret@db/shop"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_may_lie_in_a_file(tmp_path: Path, end: str) -> None:
    path = secret_file(tmp_path, URL + end)
    by_variable = Settings.read({"TWINLENS_DATABASE_URL_FILE": str(path)})
    by_flag = Settings.read({}, {"database_url_file": str(path)})
    assert by_variable.database_url == by_flag.database_url == URL
    assert "s3cret" not in repr(by_variable)


@pytest.mark.parametrize(
    ("text", "said"), [("", "is empty"), ("\n", "is empty"), ("a\nb", "more than one line"), (None, "cannot be read")]
)
def test_a_file_without_a_secret_in_it_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "nowhere" if text is None else secret_file(tmp_path, text)
    with pytest.raises(BadSetting, match=said) as caught:
        Settings.read({"TWINLENS_MEDIA_URL_FILE": str(path)})
    assert "TWINLENS_MEDIA_URL_FILE" in caught.value.sentence
    assert str(path) in caught.value.sentence


def test_a_secret_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    path = secret_file(tmp_path, URL)
    with pytest.raises(BadSetting, match="TWINLENS_DATABASE_URL and --database-url-file are both given"):
        Settings.read({"TWINLENS_DATABASE_URL": URL}, {"database_url_file": str(path)})


def test_every_setting_that_may_hold_a_secret_has_a_file(tmp_path: Path) -> None:
    secret = [one.name for one in fields(Settings) if one.metadata["secret"]]
    assert secret
    assert {file_of(name) for name in secret} <= {one.name for one in fields(Settings)}


def test_a_file_that_changes_is_read_again_and_its_last_value_stays_while_it_is_away(tmp_path: Path) -> None:
    path = secret_file(tmp_path, URL)
    read = Settings.read({"TWINLENS_DATABASE_URL_FILE": str(path)})
    path.write_text(URL.replace("s3cret", "n3w"))
    assert read.current("database_url") == URL.replace("s3cret", "n3w")
    path.unlink()
    assert read.current("database_url") == URL
    assert Settings(database_url=URL).current("database_url") == URL


def test_workers_get_the_file_and_not_what_is_in_it(tmp_path: Path) -> None:
    read = Settings.read({"TWINLENS_DATABASE_URL_FILE": str(secret_file(tmp_path, URL))})
    environment = _environment(read, URL)
    assert "s3cret" not in "".join(environment.values())
    assert Settings.read(environment) == read


@pytest.mark.parametrize("password", ["s3@ret", "s3/ret", "s3%ret", "77/ret", "@s3ret", "s3ret@", "a:s3@ret"])
def test_a_password_that_is_not_escaped_is_refused_without_a_word_of_it(password: str) -> None:
    with pytest.raises(BadSetting, match="@ as %40") as caught:
        Settings.read({"TWINLENS_DATABASE_URL": f"postgresql://shop:{password}@db.example:5432/shop"})
    assert not re.search("s3|ret|77", caught.value.sentence.replace("secret", ""))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:p%40ss%2F@db.example:5432/shop",
        "postgresql://shop:a?b#c[d@db.example:5432/shop",
        "postgres://shop@[::1]:5432/shop?sslmode=require",
        "postgresql://shop:p:w@one:5432,two,three:5434/shop?target_session_attrs=read-write",
        "postgresql:///shop?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/shop",
        "postgresql://",
        "host=db.example user=shop password='a @ b' dbname=shop",
    ],
)
def test_urls_as_libpq_reads_them_are_accepted(url: str) -> None:
    assert Settings.read({"TWINLENS_DATABASE_URL": url}).database_url == url


def test_commands_in_sentences_lead_to_the_same_data(tmp_path: Path) -> None:
    said = "This mends it: python -m server reembed --artifact new, or python -m server spaces."
    assert Settings().printable(said) == said
    there = Settings(data=tmp_path / "my shop", precision="int8", media_url="s3://shop/pictures").printable(said)
    flags = f"--data '{tmp_path}/my shop' --precision int8 --media-url s3://shop/pictures"
    assert there.count(f"python -m server {flags} ") == 2
    assert Settings(data=tmp_path).printable("Nothing to run.") == "Nothing to run."


def test_commands_in_sentences_never_show_a_password(tmp_path: Path) -> None:
    said = Settings(database_url=URL).printable(f"For {URL} and s3cret: python -m server migrate")
    assert "s3cret" not in said
    assert "--database-url" not in said
    assert "TWINLENS_DATABASE_URL" in said
    weak = Settings(database_url="postgresql://shop:twinlens@db/shop", data=Path("/srv/twinlens"))
    assert "python -m server --data /srv/twinlens migrate" in weak.printable("twinlens: python -m server migrate")
    path = secret_file(tmp_path, URL)
    read = Settings.read({"TWINLENS_DATABASE_URL_FILE": str(path)})
    assert read.printable("python -m server migrate") == f"python -m server --database-url-file {path} migrate"


@pytest.mark.parametrize(
    ("environment", "flags", "form"),
    [
        ({}, {}, "text"),
        ({"TWINLENS_LOG": "json"}, {}, "json"),
        ({"TWINLENS_LOG": "json"}, {"log": "text"}, "text"),
        ({"TWINLENS_LOG": "text"}, {"log": "json"}, "json"),
        ({"TWINLENS_LOG": "yaml"}, {"log": None}, "text"),
    ],
)
def test_the_form_of_the_log_is_known_before_the_settings_are_read(
    environment: dict[str, str], flags: dict[str, str | None], form: str
) -> None:
    assert log_form(environment, flags) == form


def test_settings_are_described_by_their_variables_and_without_secrets(tmp_path: Path) -> None:
    there = str(secret_file(tmp_path, URL))
    read = Settings.read({"TWINLENS_DATABASE_URL_FILE": there, "TWINLENS_DEADLINE": "2.5", "TWINLENS_DEMO": "on"})
    assert read.described(changed=True) == {
        "TWINLENS_DATABASE_URL": "postgresql://shop:***@db/shop",
        "TWINLENS_DATABASE_URL_FILE": there,
        "TWINLENS_DEADLINE": "2.5",
        "TWINLENS_DEMO": "on",
    }
    assert set(read.described()) == {variable_of(one.name) for one in fields(Settings)}
    assert not Settings().described(changed=True)


@pytest.mark.parametrize("name", [one.name for one in fields(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert f"`{variable_of(name)}`" in operations
    makefile = (ROOT / "Makefile").read_text()
    assert f" {name.upper()}" in makefile


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    table = (ROOT / "docs" / "operations.md").read_text().partition("| command |")[2].partition("\n\n")[0]
    assert re.search(rf"`python -m server {name}[` ]", table)


def test_a_worker_reads_what_its_parent_has_read() -> None:
    given = Settings(deadline=0.00001, workers=3, batch=4, cache=0, demo=True, device="cpu", data=Path("/there"))
    given = replace(given, cors_origins=("*", "https://shop.example"))
    read = Settings.read(_environment(given, "postgresql://x"))
    assert read == replace(given, database_url="postgresql://x")


def test_hosts_to_fetch_from_are_read_once_each_and_written_as_they_were_read() -> None:
    given = "CDN.shop.example, *.images.example:8443,cdn.shop.example,"
    hosts = Settings.read({"TWINLENS_FETCH_HOSTS": given}).fetch_hosts
    assert hosts == ("cdn.shop.example", "*.images.example:8443")
    assert Settings.read({"TWINLENS_FETCH_HOSTS": as_text(hosts)}).fetch_hosts == hosts
    with pytest.raises(BadSetting, match=r"TWINLENS_FETCH_HOSTS must be names of hosts.*no address, not '10\.0\.0\.1'"):
        Settings.read({"TWINLENS_FETCH_HOSTS": "10.0.0.1"})


def test_only_the_tests_own_variable_lets_a_server_fetch_from_its_own_machine() -> None:
    assert not may_fetch_from_loopback({})
    assert may_fetch_from_loopback({"TWINLENS_TEST_FETCH_LOOPBACK": "on"})
