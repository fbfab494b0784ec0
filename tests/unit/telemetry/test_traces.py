"""Who asks for traces, where they go then, and what happens where they cannot."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pytest
from opentelemetry import trace

from jobyard.telemetry import traces
from jobyard.telemetry.traces import CannotTrace, exporting, spans
from otlp import Collector, collecting
from traced import no_provider, tracing

COMPLAINING = logging.getLogger("opentelemetry")


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(variable)
    handlers, propagate = list(COMPLAINING.handlers), COMPLAINING.propagate
    with no_provider():
        yield
    COMPLAINING.handlers[:], COMPLAINING.propagate = handlers, propagate


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is logged."""
    facts: list[dict[str, Any]] = []
    monkeypatch.setattr(traces, "warning", lambda event, **said: facts.append({"event": event, **said}))
    return facts


@asynccontextmanager
async def running(stop: asyncio.Event | None = None, grace: float = 8.0) -> Any:
    async with exporting("jobyard-test", stop or asyncio.Event(), grace):
        yield spans()


SetEnv = Callable[[dict[str, str]], None]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> SetEnv:
    def put(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_SERVICE_NAME": "alone it asks for nothing"},
    ],
    ids=str,
)
async def test_nothing_traces_unless_asked(
    env: SetEnv, collector: Collector, variables: dict[str, str]
) -> None:
    env({name: value.replace("{url}", collector.url) for name, value in variables.items()})
    async with running() as made:
        assert made is None
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "{url}"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{url}/v1/traces"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "{url}/"},
        {
            "OTEL_TRACES_EXPORTER": " otlp, none",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "{url}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        },
    ],
    ids=str,
)
async def test_a_variable_that_asks_has_spans_sent_by_the_end(
    env: SetEnv, collector: Collector, variables: dict[str, str]
) -> None:
    env({name: value.replace("{url}", collector.url) for name, value in variables.items()})
    async with running() as made:
        made.request("GET", "/api/jobs", "http", None).end("/api/jobs", 200)
        trace.get_tracer("users.own").start_span("theirs").end()
    assert {(span.service, span.name) for span in collector.spans} == {
        ("jobyard-test", "GET /api/jobs"),
        ("jobyard-test", "theirs"),
    }


async def test_the_service_is_named_with_its_version_and_process_unless_otherwise_said(
    env: SetEnv, collector: Collector
) -> None:
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    for variables, name in (
        ({}, "jobyard-test"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=yard,deployment.environment.name=test"}, "yard"),
        ({"OTEL_SERVICE_NAME": "mails"}, "mails"),
    ):
        env(variables)
        with no_provider():
            async with running() as made:
                made.request("GET", "/", "http", None).end("/", 307)
        resource = collector.spans[-1].resource
        assert (resource["service.name"], resource["service.version"]) == (name, version("jobyard"))
        assert len(resource["service.instance.id"]) == 36
    assert collector.spans[-1].resource["deployment.environment.name"] == "test"


async def test_the_console_shows_spans_without_a_collector(
    env: SetEnv, capsys: pytest.CaptureFixture[str]
) -> None:
    env({"OTEL_TRACES_EXPORTER": "console"})
    async with running() as made:
        made.request("GET", "/", "http", None).end("/", 307)
    assert '"name": "GET /"' in capsys.readouterr().out


async def test_the_sampler_is_chosen_by_its_variable(env: SetEnv, collector: Collector) -> None:
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER": "always_off"})
    async with running() as made:
        made.request("GET", "/", "http", None).end("/", 307)
    assert collector.spans == []


async def test_a_provider_of_the_application_stays(env: SetEnv, collector: Collector) -> None:
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with tracing() as traced:
        theirs = trace.get_tracer_provider()
        async with running() as made:
            assert trace.get_tracer_provider() is theirs
            made.request("GET", "/", "http", None).end("/", 307)
        assert traced.one("GET /")
        trace.get_tracer("users.own").start_span("later").end()
        assert traced.one("later"), "it is theirs to shut down"
    assert collector.spans == []


def test_a_disabled_sdk_disables_an_applications_provider_too(env: SetEnv) -> None:
    with tracing():
        assert spans() is not None
        env({"OTEL_SDK_DISABLED": "true"})
        assert spans() is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: 'zipkin' cannot be used; expected otlp, console",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: .* expected http/protobuf"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: .* expected http/protobuf",
        ),
        *(
            (
                {"OTEL_EXPORTER_OTLP_ENDPOINT": address},
                "OTEL_EXPORTER_OTLP_ENDPOINT: .* expected an address like http://localhost:4318",
            )
            for address in ("collector:4318", "grpc://user:secret@collector", "http://", "http://a:secret")
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "an OTEL_ variable cannot be used: max_export_batch_size must be"),
    ],
    ids=str,
)
async def test_what_cannot_be_is_told(env: SetEnv, variables: dict[str, str], expected: str) -> None:
    env({"OTEL_TRACES_EXPORTER": "otlp", **variables})
    with pytest.raises(CannotTrace, match=expected) as refusal:
        async with running():
            pass
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.resources", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
async def test_what_is_not_installed_is_told_with_its_cure(
    env: SetEnv, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CannotTrace, match=r"run `pip install 'jobyard\[otel\]'`"):
        async with running():
            pass


async def test_a_collector_that_does_not_answer_holds_the_end_only_so_long(
    env: SetEnv, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "LAST_SPANS_SECONDS", 0.2)
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    collector.hold.clear()
    async with running() as made:
        made.request("GET", "/", "http", None).end("/", 307)
        began = time.monotonic()
    assert collector.asked.is_set()
    assert time.monotonic() - began < 5  # the exporter itself would wait for 10 s


async def test_the_last_spans_have_no_more_than_what_is_left_of_the_grace(
    env: SetEnv, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "LAST_SPANS_SECONDS", 60.0)
    monkeypatch.setattr(traces, "EXIT_SECONDS", 0.0)
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    collector.hold.clear()
    stop = asyncio.Event()
    async with running(stop, grace=0.2) as made:
        made.request("GET", "/", "http", None).end("/", 307)
        stop.set()
        await asyncio.sleep(0)  # the news reaches who waits for it
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_collector_that_refuses_is_complained_about_now_and_then(
    env: SetEnv, collector: Collector, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    env({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    collector.status = 400
    async with running() as made:
        for apart, complaints in ((60.0, 1), (60.0, 1), (0.0, 2)):
            monkeypatch.setattr(traces, "COMPLAINT_SECONDS", apart)
            made.request("GET", "/", "http", None).end("/", 307)
            assert trace.get_tracer_provider().force_flush()  # pyright: ignore[reportAttributeAccessIssue] - the SDK's own
            assert len(told) == complaints
    assert told[0]["event"] == "loop.failed"
    assert told[0]["loop"] == "traces"
    assert "400" in told[0]["error"]


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://user:secret@127.0.0.1:1/v1/traces?key=secret"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,secret",
        },
    ],
    ids=["address", "headers"],
)
async def test_a_complaint_holds_no_secret(
    env: SetEnv,
    told: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    monkeypatch.setattr(traces, "COMPLAINT_SECONDS", 0.0)
    monkeypatch.setattr(traces, "LAST_SPANS_SECONDS", 0.5)
    env(variables)
    async with running() as made:
        made.request("GET", "/", "http", None).end("/", 307)
    assert told
    assert "secret" not in str(told)
    assert caplog.records == [], "nor is it repeated to whoever else listens"
