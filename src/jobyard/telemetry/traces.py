"""Whether spans are made, and where they go: said by the standard OTEL_ variables, or by the application itself.

Nothing of OpenTelemetry is imported before one of them asks for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobyard.telemetry.logs import LogEvent, warning

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from jobyard.telemetry.spans import Spans

EXIT_SECONDS = 0.9
"""What a process that is told to stop has beyond its grace; the last spans are sent within that."""

LAST_SPANS_SECONDS = 2.0
"""How long a process waits for its last spans to be sent where it has more: a collector may be away."""

COMPLAINT_SECONDS = 60.0
COMPLAINT_CHARACTERS = 300

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
READER_OF_HEADERS = "opentelemetry.util.re"

_URL = re.compile(r"url: \S+")


class CannotTrace(Exception):
    """Traces are asked for and cannot be made: one sentence, with what to do."""


def spans() -> Spans | None:
    """What makes the spans of this process, or None where nobody asks for any. For parts that are being put together:
    a provider that the application sets later is not noticed."""
    if "opentelemetry.trace" not in sys.modules or _is_disabled(os.environ):
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    from jobyard.telemetry.spans import Spans

    return Spans(provider)


@asynccontextmanager
async def exporting(service: str, stop: asyncio.Event, grace_seconds: float) -> AsyncGenerator[None]:
    """Send the spans of this process where the variables say, if they do and the application has not set a provider of
    its own. The last are sent before the process has to end, which is counted from `stop`. Raises CannotTrace."""
    names = _exporters(os.environ)
    if not names or spans() is not None:
        yield
        return
    provider = _provider(service, names)
    told = asyncio.create_task(_moment_of(stop))
    try:
        yield
    finally:
        since = told.result() if told.done() else time.monotonic()
        told.cancel()
        _close(provider, min(LAST_SPANS_SECONDS, since + grace_seconds + EXIT_SECONDS - time.monotonic()))


async def _moment_of(stop: asyncio.Event) -> float:
    await stop.wait()
    return time.monotonic()


def _is_disabled(environment: Mapping[str, str]) -> bool:
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _exporters(environment: Mapping[str, str]) -> list[str]:
    """The names of those that are asked for; an endpoint asks for OTLP."""
    if _is_disabled(environment):
        return []
    named = environment.get("OTEL_TRACES_EXPORTER", "")
    if not named:
        return ["otlp"] if any(environment.get(variable) for variable in ENDPOINTS) else []
    return [name for name in map(str.strip, named.split(",")) if name not in ("", "none")]


def _exporter(name: str) -> SpanExporter:
    exporters: dict[str, Callable[[], SpanExporter]] = {"otlp": _otlp, "console": _console}
    if name not in exporters:
        raise CannotTrace(
            f"OTEL_TRACES_EXPORTER: {name!r} cannot be used; expected otlp, console, both with a comma, or none"
        )
    return exporters[name]()


def _console() -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=sys.stdout)


def _otlp() -> SpanExporter:
    _require(PROTOCOLS, lambda value: value == PROTOCOL, f"{PROTOCOL}, which collectors take on port 4318")
    # The address stands in no message: it may hold a password.
    _require(ENDPOINTS, _is_http, "an address like http://localhost:4318")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _require(variables: tuple[str, ...], fits: Callable[[str], bool], expected: str) -> None:
    """Of variables that say the same the first one that is set counts."""
    variable = next((variable for variable in variables if os.environ.get(variable)), None)
    if variable is not None and not fits(os.environ[variable]):
        raise CannotTrace(f"{variable}: its value cannot be used; expected {expected}")


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _provider(service: str, exporters: Iterable[str]) -> TracerProvider:
    _listen_to_complaints()
    try:
        return _set_provider(service, exporters)
    except ImportError as missing:
        raise CannotTrace(
            "the OTEL_ variables ask for traces, and what sends them is not installed; run `pip install 'jobyard[otel]'` "
            "(in a checkout `make install`), or set OTEL_TRACES_EXPORTER=none"
        ) from missing
    except ValueError as fault:
        raise CannotTrace(f"an OTEL_ variable cannot be used: {fault}") from fault


def _set_provider(service: str, exporters: Iterable[str]) -> TracerProvider:
    """Also for the user's own spans: handlers find it where every OpenTelemetry program looks."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": service, "service.version": version("jobyard")})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    trace.set_tracer_provider(provider)
    return provider


def _close(provider: TracerProvider, seconds: float) -> None:
    # In a thread that the process does not wait for: it may wait for a collector.
    sending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    sending.start()
    sending.join(max(0.0, seconds))


def _listen_to_complaints() -> None:
    """What the SDK logs comes as one of our own log events, and not with every batch that is lost."""
    log = logging.getLogger("opentelemetry")
    log.propagate = False
    if not any(isinstance(handler, _Complaints) for handler in log.handlers):
        log.addHandler(_Complaints(logging.WARNING))


class _Complaints(logging.Handler):
    _last = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._last < COMPLAINT_SECONDS:
            return
        self._last = now
        # The address of a collector, or a header that nobody can read, may hold its key.
        said = (
            str(record.msg) if record.name == READER_OF_HEADERS else _URL.sub("url: ...", record.getMessage())
        )
        warning(LogEvent.LOOP_FAILED, loop="traces", error=said[:COMPLAINT_CHARACTERS])
