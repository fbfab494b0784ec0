"""What a service that follows events may rely on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobyard import events
from jobyard.config import Settings
from jobyard.domain.announcement import events_topic
from jobyard.events import JobEvent, follow
from jobyard.ports import EventBus, Message
from jobyard.process import StartError
from worker.yard import Yard, until

TOPIC = events_topic("jobyard")
ENVELOPE = (
    '{"specversion":"1.0","id":"%s","source":"/jobyard","type":"job.completed","subject":"job %s",'
    '"time":"2026-11-27T00:00:00.000001Z","data":{"type":"order.paid","result":{"total":42}}}'
)


def said(*ids: str) -> list[Message]:
    return [Message(id, (ENVELOPE % (id, id)).encode(), f"job {id}") for id in ids]


@asynccontextmanager
async def following(
    yard: Yard, handle: Callable[[JobEvent], Any], name: str = "mailer", at_once: int = 10
) -> AsyncIterator[None]:
    task = asyncio.create_task(
        follow(name, handle, Settings.read({"DATABASE_URL": yard.url}), at_once=at_once)
    )
    try:
        await until(
            lambda: task.done() or yard.db.fetchval("SELECT count(*) > 0 FROM jobyard.subscription"),
            "it follows",
        )
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def all_done(yard: Yard) -> None:
    await until(lambda: yard.db.fetchval("SELECT count(*) = 0 FROM jobyard.delivery"), "all are done with")


async def test_each_event_is_given_to_the_handler_with_all_that_it_says(yard: Yard, bus: EventBus) -> None:
    heard: list[JobEvent] = []
    async with following(yard, heard.append):
        await bus.publish(TOPIC, said("a"))
        await until(lambda: heard, "it was heard")
        await all_done(yard)
    (event,) = heard
    assert (event.id, event.type, event.job_id, event.job_type) == (
        "a",
        "job.completed",
        "job a",
        "order.paid",
    )
    assert event.data["result"] == {"total": 42}
    assert event.time.microsecond == 1


async def test_an_event_whose_handler_raised_comes_again_with_the_same_id(
    yard: Yard, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LONGEST_AGAIN_SECONDS", 0.1)
    heard: list[str] = []

    async def fail_twice(event: JobEvent) -> None:
        heard.append(event.id)
        if len(heard) < 3:
            raise ValueError("not now")

    async with following(yard, fail_twice):
        await bus.publish(TOPIC, said("a"))
        await until(lambda: len(heard) == 3, "the third time")
        await all_done(yard)
    assert heard == ["a"] * 3


async def test_a_failing_event_does_not_hold_up_others(yard: Yard, bus: EventBus) -> None:
    heard: list[str] = []

    async def fail_one(event: JobEvent) -> None:
        if event.id == "bad":
            raise ValueError("never")
        heard.append(event.id)

    async with following(yard, fail_one, at_once=1):
        await bus.publish(TOPIC, said("bad", "a", "b"))
        await until(lambda: heard == ["a", "b"], "the others were heard")


async def test_a_plain_function_runs_in_a_thread(yard: Yard, bus: EventBus) -> None:
    threads: list[threading.Thread] = []
    async with following(yard, lambda _: threads.append(threading.current_thread())):
        await bus.publish(TOPIC, said("a"))
        await all_done(yard)
        await until(lambda: threads, "it ran")
    assert threads[0] is not threading.main_thread()


async def test_a_handler_that_takes_longer_than_the_bus_waits_keeps_its_event(
    yard: Yard, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "ACK_SECONDS", 0.6)
    heard: list[str] = []
    go_on = asyncio.Event()

    async def take_long(event: JobEvent) -> None:
        heard.append(event.id)
        await go_on.wait()

    async with following(yard, take_long):
        await bus.publish(TOPIC, said("a"))
        await until(lambda: heard, "it was heard")
        extended = "SELECT due_at > (SELECT published_at FROM jobyard.message) + interval '1.5 s' FROM jobyard.delivery"
        await until(lambda: yard.db.fetchval(extended), "it was extended twice")
        go_on.set()
        await all_done(yard)
    assert heard == ["a"]


async def test_what_is_no_event_is_dropped(yard: Yard, bus: EventBus) -> None:
    heard: list[str] = []
    async with following(yard, lambda event: heard.append(event.id)):
        for at, body in enumerate((b"", b"\xff", b"[]", b'{"id":"x"}')):
            await bus.publish(TOPIC, [Message(f"garbage {at}", body)])
        await bus.publish(TOPIC, said("a"))
        await until(lambda: heard == ["a"], "the event was heard")
        await all_done(yard)


async def test_all_who_share_a_name_share_the_events_and_each_name_has_all(yard: Yard, bus: EventBus) -> None:
    shared: list[str] = []
    alone: list[str] = []
    async with (
        following(yard, lambda event: shared.append(event.id)),
        following(yard, lambda event: shared.append(event.id)),
        following(yard, lambda event: alone.append(event.id), "audit"),
    ):
        await until(
            lambda: yard.db.fetchval("SELECT count(*) = 2 FROM jobyard.subscription"), "both are there"
        )
        ids = [str(number) for number in range(20)]
        await bus.publish(TOPIC, said(*ids))
        await all_done(yard)
    assert sorted(shared) == sorted(alone) == sorted(ids)


async def test_without_a_bus_to_reach_it_says_what_to_set() -> None:
    with pytest.raises(StartError, match="set it to the database of Jobyard, or JOBYARD_BUS"):
        await follow("mailer", lambda _: None, Settings.read({}))
