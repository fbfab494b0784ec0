"""What the spans say: a request, the wait of a job for its worker (dispatch), and an attempt, in one trace.

Names and attributes follow the semantic conventions of OpenTelemetry (HTTP, messaging); what they have no word for
begins with `jobyard.`. No payload, result, header or query ever stands in one.
"""

from __future__ import annotations

import threading
import time
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, Protocol
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TracerProvider,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobyard.domain.lifecycle import Change, Crashed, Failed, Outcome, Status, TimedOut
from jobyard.telemetry import logs

KNOWN_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
FIRST_SERVER_ERROR = 500
MAX_MESSAGE_CHARACTERS = 4096
NANOSECONDS = 1_000_000_000

_extract = TraceContextTextMapPropagator().extract


class Attempt(logs.Attempt, Protocol):
    """What a span tells of an attempt, beside what log lines do. `waited`: seconds from ready to claimed, by the
    database's clock; `previous`: the lease of the attempt before this one, where one has ended."""

    @property
    def lease(self) -> int: ...
    @property
    def run(self) -> int: ...
    @property
    def waited(self) -> float: ...
    @property
    def previous(self) -> int | None: ...


class Spans:
    """Starts the spans. A job's trace is that of the request which created it; without one its id is made of the job's."""

    def __init__(self, provider: TracerProvider) -> None:
        self._api = provider.get_tracer("jobyard.api", version("jobyard"))
        self._worker = provider.get_tracer("jobyard.worker", version("jobyard"))
        self._ids = _ids_of(self._worker)

    def request(self, method: str, path: str, scheme: str, traceparent: str | None) -> RequestSpan:
        known = method in KNOWN_METHODS
        about = {
            "http.request.method": method if known else "_OTHER",
            "url.path": path,
            "url.scheme": scheme,
        }
        name = method if known else "HTTP"
        return RequestSpan(self._api.start_span(name, _remote(traceparent), SpanKind.SERVER, about), name)

    def attempt(self, attempt: Attempt, held_seconds: float) -> AttemptSpan:
        """The span of an attempt that starts now, under that of its dispatch, which ends now. `held_seconds`: how long
        this worker has had it in its hands."""
        now = time.time_ns()
        since = now - int((attempt.waited + held_seconds) * NANOSECONDS)
        about = _about(attempt)
        if self._ids:
            self._ids.trace = _trace_id(attempt.job)
        dispatch = self._worker.start_span(
            f"dispatch {attempt.type}", _remote(attempt.trace), attributes=about, start_time=since
        )
        dispatch.end(now)
        if self._ids:
            self._ids.span = _span_id(attempt.job, attempt.lease)
        span = self._worker.start_span(
            f"process {attempt.type}",
            set_span_in_context(dispatch, Context()),
            SpanKind.CONSUMER,
            about | {"messaging.operation.name": "process", "messaging.operation.type": "process"},
            self._link(attempt, dispatch.get_span_context()),
            start_time=now,
        )
        return AttemptSpan(span)

    def _link(self, attempt: Attempt, here: SpanContext) -> list[Link]:
        """To the attempt before. All attempts of a job share its trace."""
        if attempt.previous is None or self._ids is None:
            return []
        before = SpanContext(here.trace_id, _span_id(attempt.job, attempt.previous), True, here.trace_flags)
        return [Link(before, {"jobyard.link": "previous attempt"})]


class RequestSpan:
    def __init__(self, span: Span, name: str) -> None:
        self._span = span
        self._name = name

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span)

    def end(self, route: str | None, status: int | None) -> None:
        """`route`: the pattern of the address; `status` None: the client went away before its answer."""
        span = self._span
        if route is not None:
            span.update_name(f"{self._name} {route}")
            span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
            if status >= FIRST_SERVER_ERROR:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
        span.end()


class AttemptSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span)

    def enter(self) -> None:
        """Spans that are started from now on in this context (of contextvars) are below this one."""
        contexts.attach(set_span_in_context(self._span, Context()))

    def end(self, change: Change | None, outcome: Outcome | None) -> None:
        """`change` None: the lease was lost, and with it the right to say what becomes of the job."""
        span = self._span
        span.set_attribute("jobyard.outcome", _outcome(change))
        if change is not None and change.reason:
            span.set_attribute("jobyard.reason", change.reason)
        if isinstance(outcome, Failed):
            span.add_event("exception", _exception(outcome))
        if change is not None and (change.reason or isinstance(outcome, Failed | TimedOut | Crashed)):
            # Only the type: the message of a payload that did not fit may quote it.
            kind = str((change.error or {}).get("type"))
            span.set_attribute("error.type", kind)
            span.set_status(StatusCode.ERROR, kind)
        span.end()


def _about(attempt: Attempt) -> dict[str, str | int]:
    job = str(attempt.job)
    return {
        "messaging.system": "jobyard",
        "messaging.destination.name": attempt.queue,
        "messaging.message.id": job,
        "jobyard.job.id": job,
        "jobyard.job.type": attempt.type,
        "jobyard.queue": attempt.queue,
        "jobyard.run": attempt.run,
        "jobyard.attempt": attempt.attempt,
    }


def _outcome(change: Change | None) -> str:
    """In the words of the API: completed, failed, retry, release; or lease_lost."""
    if change is None:
        return "lease_lost"
    return change.cause if change.status is Status.PENDING else change.status


def _exception(failed: Failed) -> dict[str, str]:
    error = failed.error
    return {
        "exception.type": error["type"],
        "exception.message": error["message"][:MAX_MESSAGE_CHARACTERS],
        "exception.stacktrace": error["traceback"],
    }


def _remote(traceparent: str | None) -> Context:
    """What is not valid counts as none. `tracestate` is not kept, as the specification allows."""
    return _extract({"traceparent": traceparent} if traceparent else {}, Context())


def _traceparent(span: Span) -> str:
    here = span.get_span_context()
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"


# Ids that every worker can work out, so that an attempt can link to one that ran elsewhere with nothing stored for it.


def _trace_id(job: UUID) -> int:
    # A digest, not the id itself: samplers take these bits for random.
    return int.from_bytes(blake2b(job.bytes, digest_size=16).digest())


def _span_id(job: UUID, lease: int) -> int:
    return int.from_bytes(blake2b(job.bytes + lease.to_bytes(8), digest_size=8).digest())


class _ChosenIds(threading.local):
    """The id chosen for the next span or trace that this thread starts; else one by chance."""

    def __init__(self, others: Any) -> None:
        self._others = others
        self.trace: int | None = None
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        chosen, self.trace = self.trace, None
        return chosen or self._others.generate_trace_id()

    def generate_span_id(self) -> int:
        chosen, self.span = self.span, None
        return chosen or self._others.generate_span_id()

    def is_trace_id_random(self) -> bool:
        return self._others.is_trace_id_random()


def _ids_of(tracer: Any) -> _ChosenIds | None:
    """None where the tracer is not that of the SDK: its spans then have ids by chance, and no links."""
    ids = getattr(tracer, "id_generator", None)
    if ids is not None and not isinstance(ids, _ChosenIds):
        # The tracer is one for all who ask for its name, and nobody else does.
        ids = tracer.id_generator = _ChosenIds(ids)
    return ids
