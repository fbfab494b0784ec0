"""One maintainer announces what becomes ready; it is woken for it, repeats itself, and is replaced."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from dispatch.talk import TOPIC, WORKERS, Lossy, eavesdropping, ready
from jobyard.bus.listener import Listener
from jobyard.bus.polling import Polling
from jobyard.clock import ManualClock, SystemClock
from jobyard.domain.announcement import workers_subscription
from jobyard.maintain import announcer as announcing
from jobyard.maintain.announcer import DUTY_SECONDS, LOOK_SECONDS, Announcer
from jobyard.maintain.outstanding import FIRST_REPEAT_SECONDS
from jobyard.ports import BusUnavailable, EventBus, WakeUps
from jobyard.store import announcements
from jobyard.telemetry import metrics
from worker.yard import NAMESPACE, Yard, until

MakeBus = Callable[[], EventBus]


def an_announcer(
    yard: Yard, bus: EventBus, clock: ManualClock, wakeups: WakeUps | None = None, ahead: int = 100
) -> Announcer:
    return Announcer(yard.pool, wakeups or Polling(), bus, NAMESPACE, ahead, clock)


async def step(announcer: Announcer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look, without the wait after it."""

    async def at_once() -> None: ...

    monkeypatch.setattr(announcer, "_wait", at_once)
    await announcer.step()


async def test_ready_jobs_are_announced_within_twice_the_look_even_if_nothing_wakes(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, clock = Lossy(another()), ManualClock()
    announcer = an_announcer(yard, bus, clock)
    await step(announcer, clock, monkeypatch)
    await yard.add(count=3)
    await clock.advance(LOOK_SECONDS)
    await step(announcer, clock, monkeypatch)
    assert sorted(it.id.partition(".")[2] for it in bus.published) == sorted(
        f"{it.lane}.{it.seq}.0" for it in await ready(yard)
    )


async def test_what_is_created_wakes_the_announcer_and_names_the_lane(yard: Yard, another: MakeBus) -> None:
    before = metrics.ANNOUNCED.counts[()]
    async with yard.announcing(another()) as maintainer, eavesdropping(another()) as ears:
        await until(lambda: maintainer.ready and _has_duty(yard), "it is on duty")
        for count in (1, 5):
            await yard.add(count=count)
            expected = await ready(yard)
            await until(lambda: len(ears.heard) >= len(expected), "announced")  # noqa: B023 - awaited within the turn
            assert sorted(ears.announced) == sorted(expected)
    assert metrics.ANNOUNCED.counts[()] - before == 6


async def _has_duty(yard: Yard) -> bool:
    return await yard.db.fetchval("SELECT count(*) = 1 FROM jobyard.duty WHERE until > now()")


async def test_a_create_notifies_the_announcer_although_no_worker_is_idle(yard: Yard) -> None:
    woken: list[frozenset[int]] = []
    await yard.add()
    listener = Listener(yard.url, SystemClock())
    async with listener.subscribe(lambda wake: woken.append(wake.workers)):
        await until(lambda: listener.healthy, "it listens")
        woken.clear()
        await announcements.take_duty(yard.db, uuid4(), 60)
        await yard.add()
        await until(lambda: woken, "the announcer is told")
    assert woken == [frozenset({announcing.WORKER})]


async def test_without_an_announcer_nobody_is_notified_where_no_worker_is_idle(yard: Yard) -> None:
    woken: list[frozenset[int]] = []
    await yard.add()
    listener = Listener(yard.url, SystemClock())
    async with listener.subscribe(lambda wake: woken.append(wake.workers)):
        await until(lambda: listener.healthy, "it listens")
        woken.clear()
        await yard.add()
        await yard.db.execute("SELECT pg_notify('jobyard_ready', '1|77')")
        await until(lambda: woken, "the marker came")
    assert woken == [frozenset({77})]


async def test_a_job_that_falls_due_is_announced(yard: Yard, another: MakeBus) -> None:
    async with yard.announcing(another()), eavesdropping(another()) as ears:
        (job,) = await yard.add(delay_seconds=0.2)
        await until(lambda: [it.job for it in ears.announced] == [job], "announced")


async def test_what_is_not_claimed_is_announced_again(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, clock = Lossy(another()), ManualClock()
    announcer = an_announcer(yard, bus, clock)
    await yard.add()
    before = metrics.ANNOUNCED_AGAIN.counts[()]
    for _ in range(int(2.5 * FIRST_REPEAT_SECONDS)):
        await step(announcer, clock, monkeypatch)
        await clock.advance(1.0)
    assert [it.id.rpartition(".")[2] for it in bus.published] == ["0", "1"]
    assert metrics.ANNOUNCED_AGAIN.counts[()] - before == 1


async def test_no_more_than_ahead_of_a_lane_are_announced_and_not_claimed(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, clock = Lossy(another()), ManualClock()
    announcer = an_announcer(yard, bus, clock, ahead=3)
    await yard.add(count=8)
    await yard.add(count=2, queue="other")
    for _ in range(3):
        await step(announcer, clock, monkeypatch)
        await clock.advance(LOOK_SECONDS)
    assert len(bus.published) == 5
    await yard.db.execute("DELETE FROM jobyard.ready WHERE seq IN (SELECT min(seq) FROM jobyard.ready)")
    await step(announcer, clock, monkeypatch)
    assert len(bus.published) == 6


async def test_a_publish_that_failed_is_repeated_with_the_same_ids(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, clock = Lossy(another()), ManualClock()
    announcer = an_announcer(yard, bus, clock)
    await yard.add(count=2)
    bus.broken = True
    with pytest.raises(BusUnavailable):
        await step(announcer, clock, monkeypatch)
    assert bus.published == []
    bus.broken = False
    await clock.advance(LOOK_SECONDS)
    await step(announcer, clock, monkeypatch)
    assert [it.id.partition(".")[2] for it in bus.published] == [
        f"{it.lane}.{it.seq}.0" for it in await ready(yard)
    ]


async def test_of_two_announcers_one_announces_and_the_other_takes_over_when_it_is_gone(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    buses = [Lossy(another()), Lossy(another())]
    first, second = (an_announcer(yard, bus, clock) for bus in buses)
    await yard.add()
    for announcer in (first, second):
        await step(announcer, clock, monkeypatch)
    assert [len(bus.published) for bus in buses] == [1, 0]
    assert (first.on_duty, second.on_duty) == (True, False)
    # It was killed: its time passes on the database's clock.
    await yard.db.execute("UPDATE jobyard.duty SET until = now() - interval '1 s'")
    await clock.advance(DUTY_SECONDS)
    await step(second, clock, monkeypatch)
    assert second.on_duty
    assert len(buses[1].published) == 1
    await step(first, clock, monkeypatch)
    assert not first.on_duty


async def test_an_announcer_that_stops_leaves_its_duty_at_once(yard: Yard, another: MakeBus) -> None:
    async with yard.announcing(another()):
        await until(lambda: _has_duty(yard), "it is on duty")
    assert await yard.count("duty") == 0


async def test_what_is_announced_before_the_first_worker_came_waits_for_it(
    yard: Yard, another: MakeBus
) -> None:
    async with yard.announcing(another()):
        jobs = await yard.add(count=3)
        await until(lambda: yard.db.fetchval("SELECT count(*) = 3 FROM jobyard.delivery"), "announced")
    async with eavesdropping(another()) as ears:
        await until(lambda: len(ears.heard) == 3, "heard")
        assert {it.job for it in ears.announced} == set(jobs)
    assert WORKERS.name == workers_subscription(NAMESPACE, "t")


async def test_while_the_broker_is_away_jobs_are_created_and_announced_once_it_is_back(
    yard: Yard, another: MakeBus
) -> None:
    bus = Lossy(another())
    async with yard.announcing(bus) as maintainer, eavesdropping(another()) as ears:
        await until(lambda: _has_duty(yard), "it is on duty")
        bus.broken = True
        jobs = await yard.add(count=4)
        await bus.refused.wait()
        await until(lambda: not maintainer.parts["announce"], "it says so")
        bus.broken = False
        await until(lambda: {it.job for it in ears.announced} == set(jobs), "announced")
        await until(lambda: maintainer.ready, "it is ready again")


async def test_a_broker_that_lost_everything_gets_its_topics_again(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, clock = Lossy(another()), ManualClock()
    announcer = an_announcer(yard, bus, clock)
    await yard.add()
    await step(announcer, clock, monkeypatch)
    bus.broken = True
    await yard.add()
    await clock.advance(LOOK_SECONDS)
    with pytest.raises(BusUnavailable):
        await step(announcer, clock, monkeypatch)
    bus.broken = False
    await yard.db.execute("TRUNCATE jobyard.subscription, jobyard.topic, jobyard.message, jobyard.delivery")
    await clock.advance(LOOK_SECONDS)
    await step(announcer, clock, monkeypatch)
    assert await yard.db.fetchval("SELECT name FROM jobyard.subscription") == WORKERS.name
    assert await yard.db.fetchval("SELECT name FROM jobyard.topic") == TOPIC


@pytest.mark.parametrize("another", ["nats"], indirect=True)
async def test_another_database_with_the_same_numbers_is_announced_over_the_same_broker(
    yard: Yard, another: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that knows ids again must not take the one's announcements for repeats of the other's."""
    clock = ManualClock()
    await yard.add()
    async with eavesdropping(another()) as ears:
        for _ in range(2):
            await yard.db.execute("TRUNCATE jobyard.duty")
            await step(an_announcer(yard, another(), clock), clock, monkeypatch)
        await until(lambda: len(ears.heard) == 2, "both were heard")
