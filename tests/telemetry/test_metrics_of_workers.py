"""What workers and maintainers show is true: ends of attempts, leases, loops, their health port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from jobyard import Fail, Retry
from jobyard.bus.listener import Listener
from jobyard.clock import SystemClock
from jobyard.health import Pages, health_server
from jobyard.key import Key
from jobyard.loop import Loop
from jobyard.maintain.retention import Retention
from jobyard.maintain.sweep import Sweep
from jobyard.store import dispatch
from jobyard.store.lanes import Lanes
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import API, MAINTAIN
from processes.program import free_port
from telemetry.samples import shown, value
from telemetry.yard_processes import closed_to_all
from worker.yard import Yard, until

pytestmark = pytest.mark.usefixtures("zeroed")


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
    nowhere = Listener(f"postgresql://nobody@127.0.0.1:{free_port()}/x", SystemClock())
    async with yard.working({"t": lambda: None}, wakeups=nowhere) as working:
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
    pages = Pages(lambda: True, dict, lambda: b"jobyard_ready 1.0\n")
    async with (
        health_server("127.0.0.1", port, pages, Key("the-key")),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        for shown_key in (None, "Bearer wrong", "Bearer", "Basic the-key", "the-key", "Bearer the-key2"):
            headers = {"Authorization": shown_key} if shown_key else {}
            refused = await client.get("/metrics", headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "jobyard_ready" not in refused.text
        twice = [("Authorization", "Bearer the-key")] * 2
        assert (await client.get("/metrics", headers=twice)).status_code == 401, "as the API has it"
        told = await client.get("/metrics", headers={"aUthorization": "bearer the-key"})
        assert (told.status_code, told.text) == (200, "jobyard_ready 1.0\n")
        assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await client.get("/healthz")).status_code == 200, "probes need no key"


def test_the_metrics_of_the_api_are_those_of_its_role() -> None:
    assert {it.name for it in metrics.METRICS if it.shown_by == (API,)} >= {
        "jobyard_jobs",
        "jobyard_jobs_created_total",
    }
