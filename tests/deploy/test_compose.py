"""compose.yaml, held against its specification and what the server reads. It is run in `test_containers.py`."""

from __future__ import annotations

import re
from typing import Any

import compose_spec
import pytest
import yaml

from server.settings import Settings
from tests.support.compose import compose


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(POSTGRES_PASSWORD="secret")["services"]
    return found


def test_it_is_a_compose_file() -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose(POSTGRES_PASSWORD="secret")))


def test_without_a_password_nothing_is_started() -> None:
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        compose()


def test_the_server_reads_its_settings_and_finds_the_database(services: dict[str, Any]) -> None:
    settings = Settings.read(services["twinlens"]["environment"])
    database = services["database"]["environment"]
    assert settings.database_url == (
        f"postgresql://{database['POSTGRES_USER']}:secret@database:5432/{database['POSTGRES_DB']}"
    )
    assert "database" in services
    assert services["twinlens"]["networks"] == ["inner", "outer"]
    assert services["database"]["networks"] == ["inner"]


def test_the_database_is_postgresql_18_with_its_data_where_that_version_has_them(services: dict[str, Any]) -> None:
    assert re.search(r"-pg18-", services["database"]["image"])
    assert services["database"]["volumes"] == ["database:/var/lib/postgresql"]


@pytest.mark.parametrize("name", ["twinlens", "proxy"])
def test_what_others_can_reach_has_no_rights_to_lose(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_server_has_time_to_stop_and_is_published_to_this_machine_alone(services: dict[str, Any]) -> None:
    grace = int(services["twinlens"]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings().deadline + 10
    assert services["twinlens"]["ports"] == ["127.0.0.1:8000:8000"]
