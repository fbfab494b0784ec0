"""How a worker hears of work: by wake-ups, and without them."""

from __future__ import annotations

from jobyard.bus.listener import Listener
from jobyard.clock import SystemClock
from worker.yard import DeafBus, Yard, until

POLL_BOUND_SECONDS = 2 * 1.0


async def waited(yard: Yard) -> float:
    """By the database's clock: the longest time from a job's creation to its start."""
    return await yard.db.fetchval(
        "SELECT max(extract(epoch FROM d.started_at - j.created_at))::float8"
        " FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job"
    )


async def handle() -> None: ...


async def test_with_a_bus_that_never_delivers_polling_finds_every_job(yard: Yard) -> None:
    async with yard.working({"t": handle}, wakeups=DeafBus()) as working:
        for _ in range(2):
            await working.idle(yard)
            await yard.add(count=3)
            await yard.all_ended()
    assert await waited(yard) < POLL_BOUND_SECONDS


async def test_with_a_bus_that_never_delivers_polling_finds_jobs_of_new_lanes_too(yard: Yard) -> None:
    async with yard.working({"t": handle}, wakeups=DeafBus()) as working:
        await working.idle(yard)
        for number in range(3):
            await yard.add(queue=f"new-{number}", priority=number)
        await yard.all_ended()
    assert await waited(yard) < POLL_BOUND_SECONDS


async def test_a_notification_wakes_an_idle_worker_and_a_new_lane_is_learnt(yard: Yard) -> None:
    bus = Listener(yard.url, SystemClock())
    async with yard.working({"t": handle}, wakeups=bus) as working:
        await working.idle(yard)
        await until(lambda: bus.healthy, "it listens")
        await yard.add(queue="known")
        await yard.all_ended()
        await working.idle(yard)
        await yard.add(queue="never seen before", priority=9)
        await yard.all_ended()
    assert await waited(yard) < POLL_BOUND_SECONDS


async def test_a_job_behind_the_scan_hint_is_found_by_the_next_poll(yard: Yard) -> None:
    async with yard.working({"t": handle}) as working:
        await yard.add(count=5)
        await yard.all_ended()
        await working.idle(yard)
        (late,) = await yard.add(queue="elsewhere", type="not handled here")
        await yard.db.execute("UPDATE jobyard.job SET type = 't' WHERE id = $1", late)
        # A row with a lower seq than what was claimed, as of a create that committed late.
        await yard.db.execute(
            "WITH gone AS (DELETE FROM jobyard.ready WHERE job = $1 RETURNING job, run, attempt, crashes)"
            " INSERT INTO jobyard.ready (lane, seq, run, attempt, crashes, job) OVERRIDING SYSTEM VALUE"
            " SELECT (SELECT id FROM jobyard.lane WHERE type = 't'), 1, run, attempt, crashes, job FROM gone",
            late,
        )
        await yard.end_of(late)
