"""What is counted is true, stays bounded, and is shown to whoever has the key."""

from __future__ import annotations

import asyncio
import math
import random
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.site import Site, serving
from jobyard import Fail, Retry
from jobyard.api.metrics import show_sample
from jobyard.bus.postgres import PostgresBus
from jobyard.clock import SystemClock
from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause
from jobyard.health import Pages, health_server
from jobyard.loop import Loop
from jobyard.maintain.retention import Retention
from jobyard.maintain.sweep import Sweep
from jobyard.store import dispatch
from jobyard.store.database import open_pool
from jobyard.store.lanes import Lanes
from jobyard.store.sampling import Sample, TypeSample, take_sample
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import API, MAINTAIN, ROLES, SECONDS, WORKER, Kinds, Tally
from processes.program import free_port
from telemetry.yard_processes import closed_to_all
from worker.yard import Yard, claimed, until

pytestmark = pytest.mark.usefixtures("zeroed")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def shown(role: str = WORKER) -> Samples:
    return parsed(metrics.exposition(role, ready=True).decode())


async def scraped(site: Site) -> Samples:
    answer = await site.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


# The list


def test_every_name_follows_the_conventions_of_prometheus() -> None:
    for metric in metrics.METRICS:
        assert re.fullmatch(r"jobyard(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert not re.search(r"_(ms|millis\w*|minutes|kb|mb)(_|$)", metric.name)
        assert metric.about.endswith(".")
        assert metric.shown_by
        assert set(metric.shown_by) <= set(ROLES)
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS) > 30


@pytest.mark.parametrize("role", ROLES)
def test_each_process_shows_its_own_metrics_and_those_of_every_process(role: str) -> None:
    names = {name for name, _ in shown(role)}
    others = {it.name for it in metrics.METRICS if role not in it.shown_by}
    assert {"jobyard_ready", "process_resident_memory_bytes", "python_gc_collections_total"} <= names
    assert names.isdisjoint(others)
    assert ("jobyard_leases_lost_total" in names) == (role == WORKER), "there from the start, as 0"
    assert [dict(labels)["role"] for name, labels in shown(role) if name == "jobyard_build_info"] == [role]


def test_many_values_at_once_are_counted_as_one_by_one() -> None:
    chance = random.Random(7)
    values = [chance.choice([*SECONDS, 0.0, 1e9, chance.expovariate(1.0)]) for _ in range(500)]
    together, alone = Tally(SECONDS), Tally(SECONDS)
    together.observe_all(values)
    together.observe_all([])
    for one in values:
        alone.observe(one)
    assert together.counts == alone.counts
    assert math.isclose(together.total, alone.total)
    assert sum(together.counts) == 500


def test_a_histogram_is_cumulative_and_a_value_on_a_bound_is_below_it() -> None:
    metrics.RUN.of("q", "t").observe_all([0.005, 0.006, 1e9])
    samples = shown()
    bucket = [value(samples, "jobyard_attempt_run_seconds_bucket", queue="q", type="t", le=le)
              for le in ("0.005", "0.025", "3600.0", "+Inf")]  # fmt: skip
    assert bucket == [1, 2, 2, 3]
    assert value(samples, "jobyard_attempt_run_seconds_count", queue="q", type="t") == 3


# Bounds


async def test_random_paths_and_methods_make_no_series_of_their_own(site: Site) -> None:
    for number in range(100):
        await site.get(f"/{number}/{random.random()}")
        await site.get(f"/api/jobs/{number}")
    for method in ("LOCK", "PROPFIND", "SUBSCRIBE"):
        await site.client.request(method, "/api/jobs")
    for number in range(10_000):
        metrics.answered(None, f"M{number}", 404, 0.1)
    labels = [dict(labels) for name, labels in await scraped(site) if name == "jobyard_http_requests_total"]
    assert {it["route"] for it in labels} == {"/openapi.json", "/api/jobs", "/api/jobs/{id}", "unmatched"}
    assert {it["method"] for it in labels} == {"GET", "other"}
    assert len(labels) == 5


def test_random_queues_and_types_share_one_series_beyond_the_limit() -> None:
    metrics.kinds.limit = 20
    names = [(f"queue-{number}", f"type-{number}") for number in range(10_000)]
    lanes = [LaneKey(1, queue, type, 5) for queue, type in names]
    metrics.created(lanes)
    metrics.waited(claimed(queue=queue, type=type) for queue, type in names)
    for lane in lanes:
        metrics.timed_out(lane.queue, lane.type)
        for cause in (Cause.RETURNED, Cause.RETRY):
            metrics.ended(lane, cause, [1.0])
    now = datetime.now(UTC)
    types = [TypeSample(1, queue, type, 1, 2, 3, 4, now) for queue, type in names]
    show_sample(Sample(now, 0.0, 0, types, []), {type: 1 for _, type in names})
    samples = {**shown(API), **shown(WORKER)}
    series_of_a_kind = 1 + 3 + 2 + 1 + 2 + 2 * (len(SECONDS) + 3)
    # A kind has a series for the workers of its type, which the others together have not.
    of_all = [name for name, labels in samples if {"type"} & dict(labels).keys()]
    assert len(of_all) == 21 * series_of_a_kind + 20
    other = {"queue": "other", "type": "other"}
    assert value(samples, "jobyard_jobs_created_total", **other) == 10_000 - 20
    assert value(samples, "jobyard_jobs", place="processing", **other) == 3 * (10_000 - 20)
    assert value(samples, "jobyard_attempt_run_seconds_count", **other) == 2 * (10_000 - 20)


def test_kinds_are_the_first_that_come_and_stay() -> None:
    kinds = Kinds(2)
    assert [kinds.of("a", "1"), kinds.of("b", "1"), kinds.of("c", "1"), kinds.of("a", "1")] == [
        ("a", "1"), ("b", "1"), ("other", "other"), ("a", "1"),
    ]  # fmt: skip


# The API


@pytest.fixture
async def site(pool: Any) -> Any:
    async with serving(pool) as running:
        yield running


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


# Workers and maintainers


async def test_every_end_of_an_attempt_is_counted_by_its_cause(yard: Yard) -> None:
    async def ends(payload: str) -> Any:
        match payload:
            case "retry":
                return Retry(3600)
            case "fail":
                return Fail("never")
            case "raise":
                raise ValueError
            case _:
                return None

    await yard.add("t", 3, "return")
    for way in ("retry", "fail"):
        await yard.add("t", payload=way)
    await yard.add("t", payload="raise", max_attempts=1, queue="slow")
    async with yard.working({"t": ends}) as working:
        await until(lambda: sum(metrics.ENDED.counts.values()) == 6)
        await working.idle(yard)
        await until(lambda: ("listener",) in metrics.LOOP_SUCCESS.values)
        working.worker.show()
        samples = shown()
    counted = {
        cause: value(samples, "jobyard_attempts_ended_total", queue="default", type="t", cause=cause)
        for cause in ("returned", "retry", "non_retryable")
    }
    assert counted == {"returned": 3, "retry": 1, "non_retryable": 1}
    assert value(samples, "jobyard_attempts_ended_total", queue="slow", type="t", cause="exhausted") == 1
    assert value(samples, "jobyard_job_wait_seconds_count", queue="default", type="t") == 5
    assert value(samples, "jobyard_attempt_run_seconds_count", queue="default", type="t") == 5
    assert (value(samples, "jobyard_worker_slots"), value(samples, "jobyard_worker_slots_used")) == (4, 0)
    assert value(samples, "jobyard_listener_up") == 1
    assert value(samples, "jobyard_leases_lost_total") == 0
    assert value(samples, "jobyard_loop_last_success_timestamp_seconds", loop="heartbeat")


async def test_the_wait_is_from_ready_to_the_claim_by_the_databases_clock(yard: Yard) -> None:
    async def ends() -> None:
        await asyncio.sleep(0.05)

    await yard.add("t")
    await yard.db.execute("UPDATE jobyard.ready SET since = since - interval '50 seconds'")
    async with yard.working({"t": ends}):
        await yard.all_ended()
        await until(lambda: metrics.ENDED.counts)
    samples = shown()
    waited = value(samples, "jobyard_job_wait_seconds_sum", queue="default", type="t")
    ran = value(samples, "jobyard_attempt_run_seconds_sum", queue="default", type="t")
    assert waited is not None
    assert ran is not None
    assert 50 <= waited < 80
    assert 0.05 <= ran < 10


async def test_a_lost_lease_and_a_time_limit_are_counted(yard: Yard) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def waits(payload: str) -> None:
        entered.set()
        await (go_on.wait() if payload == "lose" else asyncio.sleep(60))

    await yard.add("t", payload="lose")
    await yard.add("t", payload="slow", timeout_seconds=0.05, max_attempts=1)
    async with yard.working({"t": waits}):
        await until(lambda: metrics.TIMEOUTS.counts)
        await entered.wait()
        await until(lambda: metrics.ENDED.counts)
        await yard.db.execute("UPDATE jobyard.active SET lease = lease + 1000")
        go_on.set()
        await until(lambda: metrics.LEASES_LOST.counts[()])
    samples = shown()
    assert value(samples, "jobyard_leases_lost_total") == 1
    assert value(samples, "jobyard_attempt_timeouts_total", queue="default", type="t") == 1
    assert value(samples, "jobyard_attempts_ended_total", queue="default", type="t", cause="timeout") == 1
    assert value(samples, "jobyard_attempts_ended_total", queue="default", type="t", cause="returned") is None


async def test_the_leases_of_a_worker_that_expired_are_lost_whether_they_run_or_wait(yard: Yard) -> None:
    async def hold() -> None:
        await asyncio.sleep(60)

    await yard.add("t", 3)
    async with yard.working({"t": hold}, concurrency=4, lease=1.0):
        await until(lambda: _in_flight(yard, 3))
        await yard.db.execute("DELETE FROM jobyard.worker")
        await until(lambda: metrics.LEASES_LOST.counts[()] == 3)


async def _in_flight(yard: Yard, jobs: int) -> bool:
    return await yard.count("active") == jobs


async def test_what_a_sweep_takes_back_is_counted_by_kind_and_cause(yard: Yard) -> None:
    await yard.add("t", 2)
    worker = await dispatch.start_worker(yard.db, "gone", ["t"], 1, 30)
    lanes = [lane.id for lane in await dispatch.lanes_of(yard.db, ["t"])]
    assert len(await dispatch.claim(yard.db, worker, lanes, [0] * len(lanes), 2, 30)) == 2
    await yard.db.execute("UPDATE jobyard.worker SET expires_at = now() - interval '1 second'")
    await Sweep(yard.pool, Lanes()).step()
    samples = shown(MAINTAIN)
    assert value(samples, "jobyard_attempts_ended_total", queue="default", type="t", cause="orphan") == 2
    assert value(samples, "jobyard_workers_expired_total") == 1
    assert value(samples, "jobyard_attempt_run_seconds_count", queue="default", type="t") is None


async def test_what_retention_deletes_is_counted(yard: Yard) -> None:
    async def ends() -> None: ...

    await yard.add("t", 2)
    async with yard.working({"t": ends}):
        await yard.all_ended()
    await Retention(yard.pool, SystemClock(), 0, 0).step()
    assert value(shown(MAINTAIN), "jobyard_jobs_deleted_total") == 2


async def test_a_stuck_thread_is_visible(make_bench: Any) -> None:
    go_on = threading.Event()

    def never_returns() -> None:
        go_on.wait()

    bench = make_bench({"t": never_returns})
    try:
        await bench.change_of(bench.start(timeout_seconds=0.02))
        bench.runner.show()
        assert value(shown(), "jobyard_worker_stuck_threads") == 1
    finally:
        go_on.set()


async def test_a_lost_listener_is_visible(yard: Yard) -> None:
    nowhere = PostgresBus(f"postgresql://nobody@127.0.0.1:{free_port()}/x", SystemClock())
    async with yard.working({"t": lambda: None}, bus=nowhere) as working:
        await until(lambda: metrics.LOOP_FAILURES.counts.get(("listener",)))
        working.worker.show()
        assert value(shown(), "jobyard_listener_up") == 0


async def test_every_way_of_a_worker_to_the_database_tells_when_it_fails(
    server: Callable[[str], str], yard: Yard
) -> None:
    go_on = asyncio.Event()

    async def waits() -> None:
        await go_on.wait()

    await yard.add("t")
    async with yard.working({"t": waits}, lease=1.0):
        await until(lambda: yard.count("active"))
        async with closed_to_all(server, yard):
            go_on.set()
            ways = {("claim",), ("settle",), ("heartbeat",), ("listener",)}
            await until(lambda: ways <= metrics.LOOP_FAILURES.counts.keys())
        await yard.all_ended()


async def test_a_failing_loop_and_its_recovery_are_visible() -> None:
    fails = True

    async def step() -> float:
        if fails:
            raise OSError("gone")
        return 60.0

    task = asyncio.create_task(Loop("sweep", step, SystemClock()).run())
    await until(lambda: metrics.LOOP_FAILURES.counts.get(("sweep",), 0) >= 2)
    assert value(shown(MAINTAIN), "jobyard_loop_last_success_timestamp_seconds", loop="sweep") is None
    fails = False
    await until(lambda: metrics.LOOP_SUCCESS.values)
    task.cancel()


async def test_the_port_of_a_worker_shows_metrics_to_whoever_has_the_key() -> None:
    port = free_port()
    pages = Pages(lambda: True, lambda: b"jobyard_ready 1.0\n")
    async with (
        health_server("127.0.0.1", port, pages, "the-key"),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        for shown_key in (None, "Bearer wrong", "Bearer", "Basic the-key", "the-key", "Bearer the-key2"):
            headers = {"Authorization": shown_key} if shown_key else {}
            refused = await client.get("/metrics", headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "jobyard_ready" not in refused.text
        told = await client.get("/metrics", headers={"aUthorization": "bearer the-key"})
        assert (told.status_code, told.text) == (200, "jobyard_ready 1.0\n")
        assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await client.get("/healthz")).status_code == 200, "probes need no key"


def test_the_metrics_of_the_api_are_those_of_its_role() -> None:
    assert {it.name for it in metrics.METRICS if it.shown_by == (API,)} >= {
        "jobyard_jobs",
        "jobyard_jobs_created_total",
    }
