"""A request as a span: what it says, and that the jobs it creates go on in its trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from api.site import JSON, MAIL, Site, head, serving, until
from jobyard.store.database import Pool
from store.scene import Scene
from traced import CALLER, TRACE, TRACEPARENT, Traced, parent_id, span_id, trace_id, traceparent, tracing


@pytest.fixture
def traced() -> Iterator[Traced]:
    with tracing() as traced:
        yield traced


@pytest.fixture
async def site(traced: Traced, pool: Pool) -> AsyncIterator[Site]:
    async with serving(pool) as running:
        traced.exporter.clear()  # the site itself has asked for its document
        yield running


async def test_a_create_is_a_server_span_and_the_job_keeps_its_context(site: Site, traced: Traced) -> None:
    job = await site.add()
    span = traced.one("POST /api/jobs")
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/api/jobs",
        "http.response.status_code": 202,
        "url.path": "/api/jobs",
        "url.scheme": "http",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert (await site.job(job))["traceparent"] == traceparent(span)


async def test_the_clients_trace_goes_on_in_the_request_and_the_job(site: Site, traced: Traced) -> None:
    answer = await site.post(traceparent=TRACEPARENT, tracestate="vendor=1")
    span = traced.one("POST /api/jobs")
    assert (trace_id(span), parent_id(span)) == (TRACE, CALLER)
    kept = (await site.job(answer.json()["id"]))["traceparent"]
    assert kept == f"00-{TRACE}-{span_id(span)}-{span.get_span_context().trace_flags:02x}"


async def test_a_trace_that_the_client_does_not_sample_is_kept_and_not_sent(
    site: Site, traced: Traced
) -> None:
    answer = await site.post(traceparent=f"00-{TRACE}-{CALLER}-00")
    assert traced.named("POST /api/jobs") == []
    kept = (await site.job(answer.json()["id"]))["traceparent"]
    assert kept.startswith(f"00-{TRACE}-")
    assert kept.endswith("-00")


async def test_what_is_no_trace_context_is_ignored(site: Site, traced: Traced) -> None:
    nothing = ("0" * 32, "0" * 16)
    malformed = [
        "",
        "nonsense",
        f"00-{nothing[0]}-{CALLER}-01",
        f"00-{TRACE}-{nothing[1]}-01",
        "\xff" * 55,
        "0" * 5000,
    ]
    for given in malformed:
        traced.exporter.clear()
        answer = await site.client.post(
            "/api/jobs", content=MAIL, headers=JSON | {"traceparent": given.encode("latin-1")}
        )
        assert answer.status_code == 202
        span = traced.one("POST /api/jobs")
        assert span.parent is None
        assert (await site.job(answer.json()["id"]))["traceparent"] == traceparent(span)


async def test_a_bulk_is_one_span_and_all_its_jobs_are_below_it(site: Site, traced: Traced) -> None:
    answer = await site.post({"jobs": [{"type": "email"}] * 3}, "/api/jobs/bulk")
    span = traced.one("POST /api/jobs/bulk")
    kept = {(await site.job(item["id"]))["traceparent"] for item in answer.json()["items"]}
    assert kept == {traceparent(span)}


async def test_an_address_in_a_span_is_its_pattern_and_its_path_without_the_query(
    site: Site, traced: Traced
) -> None:
    job = await site.add(tags=["secret"])
    await site.get(f"/api/jobs/{job}?wrong=secret")
    await site.get("/api/jobs?tag=secret")
    attributes = traced.one("GET /api/jobs/{id}").attributes or {}
    assert (attributes["http.route"], attributes["url.path"]) == ("/api/jobs/{id}", f"/api/jobs/{job}")
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


async def test_what_has_no_route_or_no_such_method_has_a_span_of_few_names(
    site: Site, traced: Traced
) -> None:
    for method, path in (("GET", "/nowhere/17"), ("PROPFIND", "/api/jobs"), ("DELETE", "/api/jobs")):
        await site.client.request(method, path)
    by_status = {span.name: (span.attributes or {})["http.response.status_code"] for span in traced.spans}
    assert by_status == {"GET": 404, "HTTP /api/jobs": 405, "DELETE /api/jobs": 405}
    methods = [(span.attributes or {})["http.request.method"] for span in traced.spans]
    assert methods == ["GET", "_OTHER", "DELETE"]
    # A refusal is the client's error and not the server's.
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}


async def test_a_server_error_is_the_error_of_its_span(traced: Traced, pool: Pool, scene: Scene) -> None:
    async with serving(pool, database_timeout_seconds=0.2) as site:
        async with scene.locked("job"):
            assert (await site.post()).status_code == 503
        span = traced.one("POST /api/jobs")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "503"


async def test_a_client_that_goes_away_leaves_a_span_without_a_status(site: Site, traced: Traced) -> None:
    job = await site.add()

    async def waits() -> bool:
        return len(site.app.waiters) == 1

    async def ended() -> bool:
        return bool(traced.named("GET /api/jobs/{id}"))

    async with site.raw(head("GET", f"/api/jobs/{job}", Prefer="wait=60")):
        await until(waits)
    await until(ended)
    assert "http.response.status_code" not in (traced.one("GET /api/jobs/{id}").attributes or {})


async def test_probes_have_no_spans(site: Site, traced: Traced) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await site.client.get(path)
    assert traced.spans == ()


async def test_no_header_and_no_body_stands_in_a_span(traced: Traced, pool: Pool) -> None:
    """F37, with the key that the site's client sends each time."""
    async with serving(pool, key="secret-key") as site:
        await site.post(
            {"type": "email", "payload": {"to": "secret"}, "metadata": {"k": "secret"}},
            Idempotency_Key="secret",
            User_Agent="secret",
            X_Request_Id="secret",
            Cookie="secret=1",
        )
        await site.post(b'{"type":"email","secret":"secret"}')
        await site.client.get("/api/jobs", headers={"Authorization": "Bearer secret"})
    assert len(traced.spans) >= 4
    assert "secret" not in "".join(span.to_json() for span in traced.spans)
