"""The relay publishes every event of every job, as the API tells it, and goes on after whatever stopped it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from jobyard import Fail
from jobyard.api import render
from jobyard.bus.postgres import PostgresBus
from jobyard.clock import SystemClock
from jobyard.domain.announcement import events_topic
from jobyard.domain.events import EventType, events_of
from jobyard.domain.retry import Backoff
from jobyard.maintain import relay as relaying
from jobyard.maintain.cloud_events import CONTENT_TYPE, LARGEST_RESULT
from jobyard.maintain.relay import Relay
from jobyard.ports import BusUnavailable, Capabilities, Message, Subscription
from jobyard.store import log_reader, reads, verbs
from jobyard.store.database import Connection, Pool
from jobyard.telemetry import metrics
from worker.yard import NAMESPACE, Yard, until

_SOON = Backoff(0.01, 0.01)
TOPIC = events_topic(NAMESPACE)
MAILER = Subscription(TOPIC, "mailer")


@pytest.fixture
async def yard(database: str, connection: Connection, pool: Pool) -> Yard:
    return Yard(database, connection, pool)


class Noting:
    """A bus that keeps what it is given, and may be away or take less."""

    def __init__(self, largest: int = 10_000_000) -> None:
        self.capabilities = Capabilities(True, True, True, True, largest)
        self.healthy = True
        self.kept: list[Message] = []
        self.away_after: int | None = None

    async def ensure(self, topic: str, subscriptions: Any = ()) -> None: ...

    async def publish(self, topic: str, messages: Any, /) -> None:
        assert topic == TOPIC
        if self.away_after is not None and len(self.kept) >= self.away_after:
            raise BusUnavailable("away")
        self.kept += messages

    def subscribe(self, subscription: Subscription, in_flight: int) -> Any: ...

    async def close(self) -> None: ...

    @property
    def events(self) -> list[CloudEvent]:
        return [event_of(message) for message in self.kept]


def event_of(message: Message) -> CloudEvent:
    """By the official SDK, which refuses what is no CloudEvent."""
    event = JSONFormat().read(CloudEvent, message.body)
    assert isinstance(event, CloudEvent)
    return event


def data_of(event: CloudEvent) -> dict[str, Any]:
    data = event.get_data()
    assert isinstance(data, dict)
    return data


def a_relay(yard: Yard, bus: Any) -> Relay:
    return Relay(yard.pool, bus, NAMESPACE, SystemClock())


async def catch_up(relay: Relay) -> None:
    """Until nothing is left."""
    await relay._pool.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")
    while await relay.step() == 0.0:
        await relay._pool.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")


@pytest.fixture
async def told(yard: Yard) -> tuple[Noting, Relay]:
    """A bus, and a relay to it that has begun."""
    bus = Noting()
    relay = a_relay(yard, bus)
    await catch_up(relay)
    return bus, relay


async def shown(yard: Yard, job: Any) -> list[dict[str, Any]]:
    """The job's events as the API shows them, oldest first."""
    row = await reads.get(yard.db, job, 1)
    assert row is not None
    rows = await reads.attempts(yard.db, job, reads.NEWEST_LEASE, 1000, all_ends=True)
    facts = events_of(row["created_at"], map(render.attempt_record, rows))
    return [json.loads(msgspec.json.encode(render.event(job, fact))) for fact in facts][::-1]


async def test_every_kind_of_event_is_told_with_the_id_time_and_data_that_the_api_shows(
    yard: Yard, told: tuple[Noting, Relay]
) -> None:
    bus, relay = told
    running, ended = asyncio.Event(), asyncio.Event()

    async def work(payload: str) -> Any:
        match payload:
            case "fails":
                raise ValueError("no way")
            case "retries" if not ended.is_set():
                ended.set()
                raise ValueError("not yet")
            case "waits":
                running.set()
                await asyncio.Event().wait()
            case "refuses":
                return Fail("never")
        return {"did": payload}

    async with yard.working({"t": work}, grace=0.1) as working:
        jobs = [
            (
                await yard.add(
                    payload=payload, backoff=_SOON, max_attempts=tries, tags='["a"]', metadata='{"k":"v"}'
                )
            )[0]
            for payload, tries in (("completes", 5), ("fails", 1), ("retries", 5), ("refuses", 5))
        ]
        async with yard.maintaining():
            await yard.all_ended()
        (waits,) = await yard.add(payload="waits")
        await running.wait()
        await verbs.cancel(yard.db, waits, 1)
        jobs.append(waits)
        await yard.end_of(waits)
        running.clear()
        (released,) = await yard.add(payload="waits")
        await running.wait()
        jobs.append(released)
        assert working
    await verbs.retry(yard.db, jobs[1], 1)
    await catch_up(relay)
    found: dict[str, list[CloudEvent]] = {}
    for event in bus.events:
        found.setdefault(event.get_subject() or "", []).append(event)
    kinds = set[str]()
    for job in jobs:
        expected = await shown(yard, job)
        events = found[str(job)]
        assert [event.get_id() for event in events] == [f"{job}/{it['id']}" for it in expected]
        assert [event.get_type() for event in events] == [it["type"] for it in expected]
        for event, it in zip(events, expected, strict=True):
            kinds.add(event.get_type())
            assert json.loads(_body(bus, event))["time"] == it["time"]
            assert it["data"].items() <= data_of(event).items()
            assert event.get_source() == f"/{NAMESPACE}"
            assert data_of(event)["jobId"] == str(job)
            assert data_of(event)["type"] == "t"
    assert kinds == {it.value for it in EventType} - {"job.progress"}
    (completed,) = [it for it in found[str(jobs[0])] if it.get_type() == "job.completed"]
    assert data_of(completed) == {
        "jobId": str(jobs[0]), "type": "t", "queue": "default", "run": 1, "attempt": 1, "tags": ["a"],
        "metadata": {"k": "v"}, "result": {"did": "completes"},
    }  # fmt: skip


def _body(bus: Noting, event: CloudEvent) -> bytes:
    return next(it.body for it in bus.kept if it.id == event.get_id())


async def test_a_message_says_beside_its_body_what_it_is_and_of_which_job(
    yard: Yard, told: tuple[Noting, Relay]
) -> None:
    bus, relay = told
    (job,) = await yard.add()
    await catch_up(relay)
    (message,) = bus.kept
    assert message.id == f"{job}/0.created"
    assert message.key == str(job)
    assert message.attributes == {"content-type": CONTENT_TYPE, "type": "job.created", "jobtype": "t"}


async def test_a_result_that_is_too_large_is_left_out_and_that_is_said(
    yard: Yard, told: tuple[Noting, Relay]
) -> None:
    bus, relay = told

    async def work(payload: int) -> str:
        return "x" * payload

    async with yard.working({"t": work}):
        fits = (await yard.add(payload=LARGEST_RESULT - 2))[0]
        large = (await yard.add(payload=LARGEST_RESULT))[0]
        await yard.all_ended()
    await catch_up(relay)
    completed = {it.get_subject(): data_of(it) for it in bus.events if it.get_type() == "job.completed"}
    assert len(completed[str(fits)]["result"]) == LARGEST_RESULT - 2
    assert "resultOmitted" not in completed[str(fits)]
    assert "result" not in completed[str(large)]
    assert completed[str(large)]["resultOmitted"] is True


async def test_what_the_bus_would_not_take_goes_without_its_largest_parts(yard: Yard) -> None:
    bus = Noting(largest=1000)
    relay = a_relay(yard, bus)
    await catch_up(relay)

    async def work() -> str:
        return "x" * 2000

    async with yard.working({"t": work}):
        await yard.add(metadata=json.dumps({"k": "v" * 1500}))
        await yard.all_ended()
    await catch_up(relay)
    assert all(len(message.body) <= 1000 for message in bus.kept)
    completed = data_of(bus.events[-1])
    assert (completed["resultOmitted"], completed["metadataOmitted"]) == (True, True)


async def test_of_a_job_that_is_deleted_already_the_events_are_told_with_what_the_log_has(
    yard: Yard, told: tuple[Noting, Relay]
) -> None:
    bus, relay = told

    async def work() -> None: ...

    async with yard.working({"t": work}):
        (job,) = await yard.add()
        await yard.all_ended()
    await yard.db.execute("TRUNCATE jobyard.job, jobyard.done")
    await catch_up(relay)
    assert [it.get_type() for it in bus.events] == ["job.created", "job.started", "job.completed"]
    assert data_of(bus.events[1]) == {
        "jobId": str(job),
        "attempt": 1,
        "worker": data_of(bus.events[1])["worker"],
    }
    assert data_of(bus.events[2]) == {"jobId": str(job), "attempt": 1}


async def test_while_the_bus_is_away_jobs_are_created_and_the_lag_grows_and_nothing_is_lost_or_disordered(
    yard: Yard, told: tuple[Noting, Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, relay = told
    monkeypatch.setattr(relaying, "LAG_SECONDS", 0.0)
    relay._measure_at = 0.0
    bus.away_after = 0
    jobs = [(await yard.add())[0] for _ in range(5)]
    for _ in range(3):
        await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '100 s'")
        with pytest.raises(BusUnavailable):
            await relay.step()
    assert metrics.RELAY_LAG.values[()] >= 100
    assert bus.kept == []
    bus.away_after = None
    await catch_up(relay)
    assert [it.get_subject() for it in bus.events] == [str(job) for job in jobs]
    await relay.step()
    assert metrics.RELAY_LAG.values[()] == 0


async def test_a_page_that_was_published_in_part_is_published_again_with_the_same_ids(
    yard: Yard, told: tuple[Noting, Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, relay = told
    monkeypatch.setattr(relaying, "PUBLISH_MESSAGES", 2)
    await yard.add(count=6)
    await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")
    bus.away_after = 4
    with pytest.raises(BusUnavailable):
        await relay.step()
    first = [it.id for it in bus.kept]
    bus.away_after = None
    await catch_up(relay)
    again = [it.id for it in bus.kept[4:]]
    assert again[:4] == first
    assert len(set(again)) == 6


async def test_several_relays_share_the_work_and_each_event_is_told_once(yard: Yard) -> None:
    buses = [Noting(), Noting(), Noting()]
    relays = [a_relay(yard, bus) for bus in buses]
    for relay in relays:
        await catch_up(relay)
        relay._behind = True  # as when there is much to do: each takes one shard
    for _ in range(40):
        await yard.add(count=5)
    await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")
    for _ in range(30):
        for relay in relays:
            relay._behind = True
        await asyncio.gather(*(relay.step() for relay in relays))
        await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")
    ids = [it.id for bus in buses for it in bus.kept]
    assert len(ids) == len(set(ids)) == 200
    assert sum(bool(bus.kept) for bus in buses) > 1


async def test_a_relay_whose_turn_is_over_marks_nothing(yard: Yard, told: tuple[Noting, Relay]) -> None:
    _, relay = told
    await yard.add()
    await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")
    turn = await relay._next_turn()
    assert turn is not None
    await yard.db.execute("UPDATE jobyard.relay SET held_until = '-infinity'")
    other = Noting()
    await catch_up(a_relay(yard, other))
    before = await yard.db.fetch("SELECT * FROM jobyard.relay ORDER BY shard")
    await log_reader.mark(yard.db, turn, turn.place)
    assert await yard.db.fetch("SELECT * FROM jobyard.relay ORDER BY shard") == before
    assert len(other.kept) == 1


async def test_a_maintainer_relays_over_a_bus_in_order_of_each_job(yard: Yard) -> None:
    bus = PostgresBus(yard.url, SystemClock())
    await bus.ensure(TOPIC, [MAILER])

    async def work() -> None: ...

    async with yard.relaying(bus) as maintainer, yard.working({"t": work}):
        await until(lambda: yard.db.fetchval("SELECT count(*) > 0 FROM jobyard.relay"), "it has begun")
        jobs = await yard.add(count=20)
        heard: dict[str, list[str]] = {}
        async with bus.subscribe(MAILER, 100) as deliveries:
            async with asyncio.timeout(20):
                async for delivery in deliveries:
                    event = event_of(delivery.message)
                    heard.setdefault(event.get_subject() or "", []).append(event.get_type())
                    await delivery.ack()
                    if sum(map(len, heard.values())) == 60:
                        break
        assert maintainer.parts["relay"]
    assert heard == {str(job): ["job.created", "job.started", "job.completed"] for job in jobs}
    await bus.close()


async def test_a_relay_that_leaves_frees_its_shards(yard: Yard) -> None:
    bus = PostgresBus(yard.url, SystemClock())
    async with yard.relaying(bus):
        for _ in range(20):
            await yard.add(count=10)
    assert await yard.db.fetchval("SELECT bool_and(held_until < now()) FROM jobyard.relay")
    await bus.close()


async def test_a_relay_killed_between_publish_and_mark_leaves_its_events_to_be_told_again_with_their_ids(
    yard: Yard, told: tuple[Noting, Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, relay = told
    await yard.add(count=3)
    await yard.db.execute("UPDATE jobyard.tick SET at = at - interval '1 s'")

    async def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(relay, "_mark", killed)
    with pytest.raises(SystemExit):
        await relay.step()
    first = [it.id for it in bus.kept]
    assert len(first) == 3
    other = Noting()
    await catch_up(a_relay(yard, other))
    assert other.kept == [], "its turn is not over"
    await yard.db.execute("UPDATE jobyard.relay SET held_until = now()")
    await catch_up(a_relay(yard, other))
    assert [it.id for it in other.kept] == first
