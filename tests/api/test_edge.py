"""What holds for every route: key, ids of requests, problems, and a database that is not there."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openapi_spec_validator import validate
from structlog.testing import capture_logs

from api.site import MAIL, Site, head, problem, serving, until
from jobyard.api.app import ROUTES
from jobyard.store import database as db
from jobyard.store import reads
from jobyard.store.database import Pool
from store.scene import Scene

KEY = "a-secret-key"


# Requests and problems


async def test_a_request_has_an_id_of_its_own_or_the_clients(site: Site):
    first, second = [(await site.get("/healthz")).headers["x-request-id"] for _ in range(2)]
    assert first != second
    named = await site.get("/api/jobs/x", X_Request_Id="trace:17/a")
    assert (named.headers["x-request-id"], named.json()["requestId"]) == ("trace:17/a", "trace:17/a")
    for odd in ("", "a b", "x" * 129, "ä"):
        answer = await site.client.get("/healthz", headers={"X-Request-Id": odd.encode("latin-1")})
        assert answer.headers["x-request-id"] not in ("", odd)


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/api",
        "/api/",
        "/api/jobs/",
        "/api/jobs/x/y",
        "/healthz/",
        "/api/jobs%2Fbulk/x",
        "/%00",
        "/\u00e9",
    ],
)
async def test_an_address_that_does_not_exist(site: Site, path: str):
    problem(await site.get(path), 404, "not_found")


async def test_a_method_that_an_address_does_not_take_is_told_which_it_does(site: Site):
    for method, path, allowed in (
        ("DELETE", "/api/jobs", "GET, HEAD, POST"),
        ("GET", "/api/jobs/bulk", "POST"),
        ("POST", "/api/jobs/x", "GET, HEAD"),
        ("PATCH", "/", "GET, HEAD"),
    ):
        answer = await site.client.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


# What browsers may do with an answer


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_every_answer_says_what_browsers_may_do_with_it(site: Site, method: str):
    job = f"/api/jobs/{await site.add()}"
    for path in ("/healthz", "/readyz", "/docs", "/", "/openapi.json", "/nope", "/api/jobs", job):
        headers = (await site.client.request(method, path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy


async def test_no_copy_of_a_job_is_kept_unless_its_etag_is_asked_again(site: Site):
    job = f"/api/jobs/{await site.add()}"
    fresh = await site.get(job)
    same = await site.get(job, If_None_Match=fresh.headers["etag"])
    assert (fresh.status_code, same.status_code) == (200, 304)
    assert {answer.headers["cache-control"] for answer in (fresh, same)} == {"private, no-cache"}
    for answer in (
        await site.get("/api/jobs"),
        await site.post(),
        await site.get(f"{job}x"),
        await site.get("/docs"),
    ):
        assert answer.headers["cache-control"] == "no-store"


async def test_no_page_of_another_site_may_read_or_send(site: Site):
    elsewhere = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    before_a_post = await site.client.options("/api/jobs", headers=elsewhere)
    problem(before_a_post, 405, "method_not_allowed")
    listing = await site.client.get("/api/jobs", headers=elsewhere)
    form = await site.client.post(
        "/api/jobs", content=MAIL, headers=elsewhere | {"Content-Type": "text/plain"}
    )
    problem(form, 415, "unsupported_media_type")
    for answer in (before_a_post, listing, form):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_what_nobody_foresaw_is_logged_and_not_told(site: Site, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: object) -> Any:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr(reads, "get", broken)
    with capture_logs() as logs:
        answer = await site.get("/api/jobs/01a210f7-d16a-75cb-ae71-932ef940bb06", X_Request_Id="r1")
    problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["request_id"]) == ("request.failed", "error", "r1")
    assert str(entry["exc_info"]) == "the inner secret"


# The documents


async def test_the_document_is_valid_with_and_without_a_key(pool: Pool):
    for key in (None, KEY):
        async with serving(pool, key=key) as site:
            document = (await site.get("/openapi.json")).json()
        validate(document)
        assert document["openapi"].startswith("3.1")
        for route in ROUTES:
            operation = document["paths"][route.path][route.method.lower()]
            ways = [{"key": []}, {"browser": []}][: 1 + route.for_browsers]
            assert operation.get("security") == (None if route.is_open or key is None else ways)
            assert ("401" in operation["responses"]) == (key is not None and not route.is_open)


async def test_the_document_names_headers_limits_and_codes(site: Site):
    document = (await site.get("/openapi.json")).json()
    create = document["paths"]["/api/jobs"]["post"]
    assert create["responses"]["202"]["headers"].keys() >= {"Location", "X-Request-Id"}
    assert create["responses"]["200"]["headers"].keys() >= {"Idempotency-Replayed"}
    assert create["responses"]["503"]["headers"].keys() >= {"Retry-After"}
    codes = create["responses"]["422"]["content"]["application/problem+json"]["examples"].keys()
    assert codes == {"validation_failed", "idempotency_mismatch", "too_many_lanes"}
    shape = document["components"]["schemas"]["CreateJob"]
    assert (shape["required"], shape["additionalProperties"]) == (["type"], False)
    assert shape["properties"]["priority"] | {"description": ""} == {
        "type": "integer", "minimum": 0, "maximum": 9, "default": 5, "description": "",
    }  # fmt: skip
    names = {parameter["name"] for parameter in document["paths"]["/api/jobs"]["get"]["parameters"]}
    assert names == {
        *(
            "status",
            "type",
            "queue",
            "tag",
            "metadata.K",
            "createdAfter",
            "createdBefore",
            "pageSize",
            "pageToken",
        )
    }


async def test_the_page_needs_no_network_and_allows_none(site: Site):
    answer = await site.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page, policy = answer.text, answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert set(re.findall(r"""(?:src|href)=['"]?([^'"#> ]+)""", page)) == {"/openapi.json"}
    assert not re.search(r"\son\w+=|style=", page)
    for route in ROUTES:
        assert f"<code>{route.path}</code>" in page


async def test_the_type_of_a_problem_leads_to_its_place_on_the_page(site: Site):
    page = (await site.get("/docs")).text
    for answer in (await site.get("/nope"), await site.post(b"{}"), await site.client.delete("/api/jobs")):
        address, _, place = answer.json()["type"].partition("#")
        assert address == "/docs"
        assert f"id={place}>" in page


async def test_whoever_starts_at_the_root_is_led_to_the_page(site: Site):
    answer = await site.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


# Probes, and a database that is not there


@asynccontextmanager
async def nowhere() -> AsyncIterator[Pool]:
    """A pool of a server that refuses every connection."""
    pool = await db.open_pool("postgresql://nobody:hidden@127.0.0.1:1/none", size=2, hot=True)
    yield pool
    pool.terminate()


@asynccontextmanager
async def silence() -> AsyncIterator[Pool]:
    """A pool of a server that takes every connection and never says a word."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = await db.open_pool(
        f"postgresql://nobody:hidden@127.0.0.1:{port}/none", size=2, hot=True, command_timeout=0.5
    )
    yield pool
    pool.terminate()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("gone", [nowhere, silence])
async def test_without_a_database_every_answer_is_a_503_in_bounded_time(gone: Any):
    async with gone() as pool, serving(pool, database_timeout_seconds=0.5) as site:
        job = "/api/jobs/01a210f7-d16a-75cb-ae71-932ef940bb06"
        with capture_logs() as logs:
            for ask in (
                lambda: site.post(),
                lambda: site.post({"jobs": [{"type": "email"}]}, "/api/jobs/bulk"),
                lambda: site.get(job),
                lambda: site.get("/api/jobs"),
                lambda: site.get(f"{job}/events"),
                lambda: site.get(f"{job}/attempts"),
            ):
                started = time.monotonic()
                answer = await ask()
                assert time.monotonic() - started < 2 * 0.5 + 0.5
                problem(answer, 503, "database_unavailable")
                assert answer.headers["retry-after"] == "1"
                assert not re.search("127.0.0.1|hidden|nobody", answer.text)
        assert logs
        assert all(entry["event"] == "request.unavailable" for entry in logs)
        assert "hidden" not in str(logs)
        assert (await site.get("/healthz")).json() == {"status": "ok"}
        readiness = await site.get("/readyz")
        assert (readiness.status_code, readiness.json()["status"]) == (503, "not_ready")
        assert readiness.json()["parts"]["database"]["ok"] is False


async def test_readiness_names_the_state_of_each_part(site: Site, scene: Scene):
    ready = await site.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert {part: state["ok"] for part, state in ready.json()["parts"].items()} == dict.fromkeys(
        ("database", "schema", "serving"), True
    )
    async with unmigrated(scene):
        behind = (await site.get("/readyz")).json()
        assert {part: state["ok"] for part, state in behind["parts"].items()} == {
            "database": True, "schema": False, "serving": True,
        }  # fmt: skip
    await site.app.drain()
    stopping = await site.get("/readyz")
    assert (stopping.status_code, stopping.json()["parts"]["serving"]["ok"]) == (503, False)


@asynccontextmanager
async def unmigrated(scene: Scene) -> AsyncIterator[None]:
    await scene.db.execute("ALTER TABLE jobyard.migration RENAME TO migration_away")
    try:
        yield
    finally:
        await scene.db.execute("ALTER TABLE jobyard.migration_away RENAME TO migration")


async def test_a_statement_that_waits_too_long_is_a_503_and_the_next_is_served(pool: Pool, scene: Scene):
    async with serving(pool, database_timeout_seconds=0.3) as site:
        job = await site.add()
        async with scene.locked("job"):
            problem(await site.get(f"/api/jobs/{job}"), 503, "database_unavailable")
            problem(await site.post(), 503, "database_unavailable")
        assert (await site.get(f"/api/jobs/{job}")).status_code == 200


async def test_a_process_that_has_to_stop_answers_what_the_database_holds_up_and_ends(
    pool: Pool, scene: Scene, caplog: pytest.LogCaptureFixture
):
    async with serving(pool, grace_seconds=1.0) as site:
        job = await site.add()
        async with scene.locked("job"):
            asks = [asyncio.create_task(it) for it in (site.post(), site.get(f"/api/jobs/{job}"))]
            await until(scene.blocked)
            async with asyncio.timeout(5):
                await site.end()
            for answer in await asyncio.gather(*asks):
                problem(answer, 503, "database_unavailable")
                assert answer.headers["retry-after"] == "1"
    assert caplog.messages == ["Cancel 2 running task(s), timeout graceful shutdown exceeded"]
    caplog.clear()


async def test_the_database_comes_back_and_so_does_the_site(site: Site, scene: Scene):
    job = await site.add()
    await scene.db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    async def served() -> bool:
        answers = [await site.get(f"/api/jobs/{job}"), await site.post()]
        assert {answer.status_code for answer in answers} <= {200, 202, 503}
        return all(answer.is_success for answer in answers)

    await until(served)


async def test_five_hundred_clients_that_vanish_leave_nothing_behind(pool: Pool, scene: Scene):
    """Half of them in the middle of a body, the others while the database holds up what they asked for."""
    start = head("POST", "/api/jobs", Content_Type="application/json", Content_Length=str(len(MAIL)))
    listing = head("GET", "/api/jobs")
    async with serving(pool) as site:
        async with scene.locked("job"):

            async def vanish(number: int) -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", site.port)
                writer.write((start + MAIL[:20], start + MAIL, listing)[number % 3])
                await writer.drain()
                writer.transport.abort()

            await asyncio.gather(*(vanish(number) for number in range(500)))
            await until(scene.blocked)
        answers = await asyncio.gather(
            *(site.post() for _ in range(50)), *(site.get("/api/jobs") for _ in range(50))
        )
        assert {answer.status_code for answer in answers} <= {200, 202}

        async def whole() -> bool:
            return pool.get_idle_size() == pool.get_size()

        await until(whole)
        stuck = await scene.db.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND (state LIKE 'idle in transaction%' OR cardinality(pg_blocking_pids(pid)) > 0)"
        )
        assert stuck == 0
        assert (
            await scene.db.fetchval(
                "SELECT count(*) FROM jobyard.job j WHERE NOT EXISTS (SELECT FROM jobyard.ready WHERE job = j.id)"
            )
            == 0
        )
