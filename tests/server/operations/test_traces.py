"""Whether traces are asked for, and that the server serves whatever is wrong with them."""

from __future__ import annotations

import logging
import sys
from time import perf_counter

import pytest

from bench.traces.collector import Collector
from server.operations.traces import asked_by, open_traces
from server.tracing import within
from tests.support.process import PATIENCE
from tests.support.traces import to, told

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nothing listens


@pytest.mark.parametrize(
    ("variables", "by"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "shop"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, None),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, None),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
    ],
    ids=["none", "name", "empty", "endpoint", "of-traces", "exporter", "exporter-none", "disabled", "not-disabled"],
)
async def test_traces_are_off_unless_a_standard_variable_asks_for_them(
    variables: dict[str, str], by: str | None
) -> None:
    assert asked_by(variables) == by


async def test_without_the_extra_the_log_says_what_is_missing_and_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "server.operations.otel", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}) as tracer:
        assert tracer is None
    (line,) = caplog.messages
    assert line.startswith("OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and there are none: opentelemetry")
    assert "the extra otel" in line


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"OTEL_TRACES_EXPORTER": "telegraph"}, "telegraph"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}, "pigeon"),
    ],
    ids=["exporter", "protocol"],
)
async def test_what_the_variables_ask_for_and_nobody_has_is_a_line_in_the_log(
    variables: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with told(variables):
        async with open_traces(variables) as tracer:
            assert tracer is None
    (line,) = [one.getMessage() for one in caplog.records if one.name == "server.operations.traces"]
    assert why in line


async def test_what_was_not_sent_yet_is_sent_at_the_end() -> None:
    with Collector() as collector:
        variables = to(collector, OTEL_BSP_SCHEDULE_DELAY="600000")
        with told(variables):
            async with open_traces(variables) as tracer:
                assert tracer is not None
                with within(tracer.begin("last", [], {}, began=perf_counter())):
                    pass
            assert [span.name for span in collector.wait(lambda spans: len(spans) == 1, PATIENCE)] == ["last"]


async def test_a_sampler_of_the_standard_variables_decides_what_is_traced() -> None:
    with Collector() as collector:
        variables = to(collector, OTEL_TRACES_SAMPLER="always_off")
        with told(variables):
            async with open_traces(variables) as tracer:
                assert tracer is not None
                assert not tracer.begin("unsampled", [], {}, began=perf_counter())
        assert not collector.spans()


async def test_a_collector_that_is_away_is_a_line_in_the_log_and_holds_up_no_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}
    with told(variables), caplog.at_level(logging.WARNING):
        async with open_traces(variables) as tracer:
            assert tracer is not None
            with within(tracer.begin("lost", [], {}, began=perf_counter())):
                pass
    assert any(one.name.startswith("opentelemetry.") for one in caplog.records)
