"""What the API shows is true: requests, creates, depths from the sample, the database."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from api.site import Site, serving
from jobyard.store.database import open_pool
from jobyard.store.sampling import take_sample
from jobyard.telemetry import metrics
from telemetry.samples import scraped, value
from worker.yard import Yard, until

pytestmark = pytest.mark.usefixtures("zeroed")


async def take_sample_now(site: Site) -> None:
    async with site.pool.acquire() as connection:
        await connection.execute("UPDATE jobyard.sample SET at = at - interval '1 minute'")
        await take_sample(connection, 10)


async def test_creates_and_requests_are_counted_by_kind_and_by_route(site: Site) -> None:
    await site.add(type="report", queue="slow")
    first = await site.post({"type": "email"}, Idempotency_Key="k")
    await site.post({"type": "email"}, Idempotency_Key="k")
    await site.post({"type": "email", "priority": 77})
    await site.post({"jobs": [{"type": "email"}] * 5}, "/api/jobs/bulk")
    await site.get(f"/api/jobs/{first.json()['id']}")
    await site.get("/nowhere")
    samples = await scraped(site)
    assert value(samples, "jobyard_jobs_created_total", queue="slow", type="report") == 1
    assert value(samples, "jobyard_jobs_created_total", queue="default", type="email") == 6, (
        "replays are none"
    )
    assert value(samples, "jobyard_intake_flush_jobs_count") == 4

    def requests(route: str, status: int, method: str = "POST") -> float | None:
        return value(samples, "jobyard_http_requests_total", route=route, method=method, status=str(status))

    assert requests("/api/jobs", 202) == 2
    assert requests("/api/jobs", 200) == 1
    assert requests("/api/jobs", 422) == 1
    assert requests("/api/jobs/bulk", 200) == 1
    assert requests("/api/jobs/{id}", 200, "GET") == 1
    assert requests("unmatched", 404, "GET") == 1
    assert value(samples, "jobyard_http_request_seconds_count", route="/api/jobs", method="POST") == 4


async def test_a_client_that_leaves_before_its_answer_is_counted_as_gone(site: Site) -> None:
    job = await site.add()
    async with site.raw(
        f"GET /api/jobs/{job} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=30\r\n\r\n".encode()
    ):
        await until(lambda: len(site.app.waiters) == 1)
        assert value(await scraped(site), "jobyard_requests_waiting") == 1
    gone = ("/api/jobs/{id}", "GET", "gone")
    await until(lambda: metrics.REQUESTS.counts.get(gone))


async def test_depths_come_from_the_sample_and_from_nothing_else(site: Site) -> None:
    for _ in range(3):
        await site.add(type="email")
    await site.add(type="email", delaySeconds=60)
    samples = await scraped(site)
    assert value(samples, "jobyard_sample_timestamp_seconds") == 0
    assert not [name for name, labels in samples if name == "jobyard_jobs" and samples[name, labels]]
    await take_sample_now(site)
    await site.add(type="email")
    samples = await scraped(site)
    email = {"queue": "default", "type": "email"}
    assert value(samples, "jobyard_jobs", place="ready", **email) == 3, "counted by the maintainer alone"
    assert value(samples, "jobyard_jobs", place="scheduled", **email) == 1
    assert value(samples, "jobyard_jobs", place="processing", **email) == 0
    assert value(samples, "jobyard_workers", type="email") == 0, "a type that waits and has no worker says so"
    assert value(samples, "jobyard_database_up") == value(samples, "jobyard_ready") == 1
    assert value(samples, "jobyard_sample_timestamp_seconds")
    assert value(samples, "jobyard_intake_limit") == 10_000
    assert value(samples, "jobyard_database_connections", state="idle")


async def test_the_oldest_grows_older_by_the_databases_clock_and_an_empty_queue_says_zero(site: Site) -> None:
    await site.add()
    async with site.pool.acquire() as connection:
        await connection.execute("UPDATE jobyard.ready SET since = since - interval '100 seconds'")
        await take_sample_now(site)
        await connection.execute("UPDATE jobyard.sample SET at = at - interval '40 seconds'")
        email = {"queue": "default", "type": "email"}
        age = value(await scraped(site), "jobyard_oldest_ready_age_seconds", **email)
        assert age is not None
        assert 100 <= age < 130, "the age at the sample, 60, and the age of the sample, 40"
        await connection.execute("DELETE FROM jobyard.ready")
        await take_sample_now(site)
        samples = await scraped(site)
    assert value(samples, "jobyard_oldest_ready_age_seconds", **email) == 0
    assert value(samples, "jobyard_jobs", place="ready", **email) == 0


async def test_with_a_key_metrics_are_for_whoever_shows_it(pool: Any) -> None:
    async with serving(pool, key="the-key-of-this-yard") as site:
        assert (await site.get("/metrics")).status_code == 200
        wrong = await site.get("/metrics", Authorization="Bearer another")
        assert wrong.status_code == 401
        assert "jobyard_" not in wrong.text


async def test_without_the_database_the_rest_is_shown_and_the_last_sample_kept(yard: Yard) -> None:
    async with serving(yard.pool, database_timeout_seconds=1.0) as site:
        await site.add()
        await take_sample_now(site)
        await scraped(site)
        yard.pool.terminate()
        samples = await scraped(site)
    assert value(samples, "jobyard_database_up") == value(samples, "jobyard_ready") == 0
    assert value(samples, "jobyard_jobs", place="ready", queue="default", type="email") == 1


async def test_creates_and_requests_that_wait_for_the_database_are_counted(yard: Yard) -> None:
    async with serving(yard.pool) as site, yard.held("job"):
        creating: list[asyncio.Task[httpx.Response]] = []
        for flushes in (1, 2):
            creating.append(asyncio.create_task(site.post()))
            await until(lambda flushes=flushes: _blocked(yard, flushes))
        creating += [asyncio.create_task(site.post()) for _ in range(3)]

        async def three_wait() -> bool:
            return value(await scraped(site), "jobyard_intake_waiting") == 3

        await until(three_wait, "three wait behind two flushes")
    await asyncio.gather(*creating)


async def _blocked(yard: Yard, statements: int) -> bool:
    return await yard.blocked() == statements


async def test_who_waits_for_a_connection_of_the_pool_is_counted(database: str) -> None:
    pool = await open_pool(database, size=1, hot=True)
    async with serving(pool) as site:
        async with pool.acquire():
            asking = asyncio.create_task(site.get("/api/jobs"))
            await until(lambda: metrics.POOL_WAITING.values[()] == 1)
        assert (await asking).status_code == 200
        samples = await scraped(site)
        assert value(samples, "jobyard_database_connections_waiting") == 0
        assert value(samples, "jobyard_database_connections_limit") == 1
    await pool.close()


async def test_a_process_that_drains_is_not_ready(site: Site) -> None:
    await site.app.drain()
    samples = await scraped(site)
    assert (value(samples, "jobyard_ready"), value(samples, "jobyard_database_up")) == (0, 1)
