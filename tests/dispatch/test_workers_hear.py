"""Workers that hear of jobs over a bus: what is announced is claimed by name, and nothing depends on it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from contract.nats_server import NatsServer
from dispatch.conftest import BROKERS
from dispatch.talk import TOPIC, Lossy, announce, next_to, ready
from jobyard.domain.announcement import Announcement
from jobyard.domain.lifecycle import SOLITARY
from jobyard.ports import EventBus, Message
from jobyard.telemetry import metrics
from jobyard.worker import claimer
from worker.yard import Working, Yard, until

MakeBus = Callable[[], EventBus]


async def handle() -> None: ...


async def hears(working: Working) -> None:
    await until(lambda: working.worker.parts["announcements"], "it hears")


@pytest.fixture(autouse=True)
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimer, "POLL_WHILE_HEARING_SECONDS", 3600.0)


@pytest.mark.parametrize("another", BROKERS, indirect=True)
async def test_a_job_is_announced_claimed_and_acked_over_each_bus(yard: Yard, another: MakeBus) -> None:
    async with yard.announcing(another()), yard.working({"t": handle}, broker=another()) as working:
        await hears(working)
        before = metrics.HEARD.counts[()]
        for _ in range(3):
            await yard.add(count=5)
            await yard.all_ended()
        await until(lambda: metrics.HEARD.counts[()] >= before + 10, "the jobs were heard of")
    async with next_to(another()) as deliveries:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(deliveries)), 0.3)


async def test_a_worker_that_hears_claims_what_is_announced_and_nothing_else(
    yard: Yard, bus: EventBus
) -> None:
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        await yard.add(queue="warm-up")
        await announce(bus, await ready(yard))
        await yard.all_ended()
        untold, told = await yard.add(count=2)
        await announce(bus, [it for it in await ready(yard) if it.job == told])
        await yard.end_of(told)
        assert await yard.status(untold) == "pending"


async def test_a_worker_that_hears_never_says_that_it_is_idle_and_costs_creates_no_wake_up(
    yard: Yard, bus: EventBus
) -> None:
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        await until(lambda: working.worker._claimer._poll_at > 0, "it has polled")
        assert not await yard.db.fetchval("SELECT bool_or(idle) FROM jobyard.worker")


async def test_twice_announced_is_run_once_and_stale_announcements_change_nothing(
    yard: Yard, bus: EventBus
) -> None:
    runs: list[str] = []

    async def count(payload: str) -> None:
        runs.append(payload)

    async with yard.working({"t": count}, broker=bus) as working:
        await hears(working)
        await yard.add(payload="once")
        places = await ready(yard)
        for times in range(3):
            await announce(bus, places, times)
        await yard.all_ended()
        await announce(bus, [*places, Announcement(uuid4(), places[0].lane, 2**62)], 4)
        await yard.add(payload="then")
        await announce(bus, await ready(yard), 5)
        await yard.all_ended()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "all are acked")
    assert runs == ["once", "then"]


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"\xff", b"[]", b"null", b'"x"', b"7", b"{}", b'{"job":7,"lane":1,"seq":1}'),
        *(b'{"job":"no id","lane":1,"seq":1}', b"[" * 100_000),
        *(
            b'{"job":"01980000-0000-7000-8000-000000000000","lane":%s,"seq":%s}' % pair
            for pair in [(b"0", b"1"), (b"1", b"-1"), (b"true", b"1"), (b"1.5", b"1"), (b"1", b"9223372036854775808"),
                         (b"2147483648", b"1"), (b"2147483647", b"1")]
        ),
    ],
)  # fmt: skip
async def test_garbage_is_dropped_and_what_comes_after_it_is_heard(
    yard: Yard, bus: EventBus, garbage: bytes
) -> None:
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        await bus.publish(TOPIC, [Message("garbage", garbage)])
        await yard.add()
        await announce(bus, await ready(yard))
        await yard.all_ended()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "all are acked")


async def test_what_is_heard_is_acked_only_when_the_claim_is_committed(yard: Yard, bus: EventBus) -> None:
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        await yard.add(queue="warm-up")
        await announce(bus, await ready(yard))
        await yard.all_ended()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "acked")
        async with yard.held("active"):
            await yard.add()
            await announce(bus, await ready(yard), 1)
            await until(yard.blocked, "the claim waits")
            assert await yard.db.fetchval("SELECT count(*) FROM jobyard.delivery") == 1
        await yard.all_ended()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "acked")


async def test_an_ack_at_the_end_comes_when_the_attempt_is_settled(yard: Yard, bus: EventBus) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        await go_on.wait()

    async with yard.working({"t": wait}, broker=bus, ack_at_end=True) as working:
        await hears(working)
        await yard.add()
        await announce(bus, await ready(yard))
        await running.wait()
        assert await yard.db.fetchval("SELECT count(*) FROM jobyard.delivery") == 1
        go_on.set()
        await yard.all_ended()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "acked")


async def test_a_claim_that_failed_is_tried_again_with_what_was_heard(yard: Yard, bus: EventBus) -> None:
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        await yard.add(queue="warm-up")
        await announce(bus, await ready(yard))
        await yard.all_ended()
        async with yard.held("active"):
            (job,) = await yard.add()
            await announce(bus, await ready(yard), 1)
            await until(yard.blocked, "the claim waits")
            await yard.terminate_sessions("jobyard worker")
        await yard.end_of(job)


async def test_a_full_worker_leaves_what_it_heard_to_others(yard: Yard, another: MakeBus) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    async with yard.working({"t": wait}, concurrency=2, broker=another()) as full:
        await hears(full)
        jobs = await yard.add(count=6)
        await announce(another(), await ready(yard))
        await until(lambda: yard.db.fetchval("SELECT count(*) = 2 FROM jobyard.active"), "it is full")
        async with yard.working({"t": handle}, broker=another()):
            await until(
                lambda: yard.db.fetchval("SELECT count(*) = 4 FROM jobyard.done WHERE job = ANY($1)", jobs),
                "the other ran the rest",
            )
        go_on.set()
        await yard.all_ended()


async def test_a_worker_that_stops_leaves_what_it_heard_to_others(yard: Yard, another: MakeBus) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        await go_on.wait()

    async with yard.working({"t": wait}, concurrency=1, broker=another()) as stopping:
        await hears(stopping)
        await yard.add()
        await announce(another(), await ready(yard))
        await running.wait()
        await yard.add(count=3)
        await announce(another(), await ready(yard), 1)
        async with yard.working({"t": handle}, broker=another()) as other:
            await hears(other)
            stopping.worker.stop()
            await until(
                lambda: yard.db.fetchval("SELECT count(*) = 3 FROM jobyard.done"), "the other ran them"
            )
            go_on.set()


async def test_of_solitary_jobs_one_at_a_time_is_claimed_however_many_are_announced(
    yard: Yard, bus: EventBus
) -> None:
    at_once: list[int] = []
    now = 0

    async def count() -> None:
        nonlocal now
        now += 1
        at_once.append(now)
        await asyncio.sleep(0.02)
        now -= 1

    await yard.add(count=4)
    await yard.db.execute("UPDATE jobyard.lane SET suspect = $1", SOLITARY)
    await announce(bus, await ready(yard))
    async with yard.working({"t": count}, broker=bus):
        await yard.all_ended()
    assert at_once == [1, 1, 1, 1]


async def test_jobs_nobody_announced_are_found_by_polling(
    yard: Yard, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimer, "POLL_WHILE_HEARING_SECONDS", 1.0)
    async with yard.working({"t": handle}, broker=bus) as working:
        await hears(working)
        for number in range(2):
            await yard.add(count=2, queue=f"new-{number}")
            await yard.all_ended()


async def test_a_worker_whose_broker_is_away_works_by_polling_alone(yard: Yard, bus: EventBus) -> None:
    broken = Lossy(bus)
    broken.broken = True
    async with yard.working({"t": handle}, concurrency=2, broker=broken) as working:
        await until(lambda: working.worker.ready, "it is ready")
        assert not working.worker.parts["announcements"]
        for _ in range(2):
            await yard.add(count=30)
            await yard.all_ended(seconds=10)


async def test_workers_that_hear_and_workers_that_are_woken_share_the_work(
    yard: Yard, another: MakeBus
) -> None:
    async with (
        yard.announcing(another()),
        yard.working({"t": handle}, broker=another()) as hearing,
        yard.working({"t": handle}) as woken,
    ):
        await hears(hearing)
        await woken.idle(yard)
        for _ in range(10):
            await yard.add(count=20)
        await yard.all_ended()
    assert await yard.count("attempt") == 0


@pytest.mark.parametrize("another", ["nats"], indirect=True)
async def test_a_broker_that_lost_what_it_had_acked_in_a_power_cut_is_only_a_delay(
    yard: Yard, another: MakeBus, nats_server: NatsServer, tmp_path: Path
) -> None:
    """NATS acks before it syncs, unless it is told otherwise: here it loses all that it had."""
    jobs: list[UUID] = []
    async with yard.announcing(another()):
        before = metrics.ANNOUNCED.counts[()]
        jobs += await yard.add(count=5)
        await until(lambda: metrics.ANNOUNCED.counts[()] - before == 5, "they are announced")
        nats_server.kill()
        shutil.rmtree(tmp_path / "jetstream")
        nats_server.start()
        async with yard.working({"t": handle}, broker=another()) as working:
            await yard.all_ended()
            await hears(working)
            heard = metrics.HEARD.counts[()]
            jobs += await yard.add(count=5)
            await yard.all_ended()
            await until(lambda: metrics.HEARD.counts[()] - heard >= 5, "announcements go on")
    assert await yard.db.fetchval("SELECT count(DISTINCT job) FROM jobyard.done") == len(jobs)
