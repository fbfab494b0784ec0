"""The trace that the client's calls belong to."""

from __future__ import annotations

import subprocess
import sys

import pytest
from contract_server import Yard
from opentelemetry import trace

from jobyard.client import Client
from traced import TRACEPARENT, no_provider, traceparent, tracing

MANY = [{"type": "email"}] * 1500


def sent(yard: Yard, path: str) -> list[str | None]:
    return [request.headers.get("traceparent") for request in yard.requests(path)]


def test_what_is_created_within_a_span_is_sent_with_it(yard: Yard, client: Client) -> None:
    with tracing() as traced:
        with trace.get_tracer("users.own").start_as_current_span("order"):
            client.create("email", {})
            client.create_many(MANY)
        span = traceparent(traced.one("order"))
    assert sent(yard, "/api/jobs") == [span]
    assert sent(yard, "/api/jobs/bulk") == [span, span]


def test_a_trace_that_is_given_goes_before_the_active_one(yard: Yard, client: Client) -> None:
    with tracing(), trace.get_tracer("users.own").start_as_current_span("order"):
        client.create("email", {}, traceparent=TRACEPARENT)
        client.create_many(MANY, traceparent=TRACEPARENT)
    assert sent(yard, "/api/jobs") == [TRACEPARENT]
    assert sent(yard, "/api/jobs/bulk") == [TRACEPARENT, TRACEPARENT]


def test_without_a_span_there_is_no_trace(yard: Yard, client: Client) -> None:
    with no_provider():
        client.create("email", {})
        client.create_many(MANY[:1])
    assert sent(yard, "/api/jobs") == sent(yard, "/api/jobs/bulk") == [None]


@pytest.mark.parametrize("given", ["two\r\nlines", "\u00fcml\u00e4ut"])
def test_what_no_header_can_carry_is_refused(yard: Yard, client: Client, given: str) -> None:
    with pytest.raises(ValueError, match="a traceparent is printable ASCII characters"):
        client.create("email", {}, traceparent=given)
    assert yard.seen == []


def test_a_program_without_opentelemetry_does_not_come_to_load_it(yard: Yard) -> None:
    program = (
        "import sys; from jobyard.client import Client\n"
        f"with Client({yard.url!r}) as client: client.create('email', {{}})\n"
        "print(*sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "jobyard.client.tracing" in ended.stdout
    assert "opentelemetry" not in ended.stdout
    assert sent(yard, "/api/jobs") == [None]
