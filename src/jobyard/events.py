"""Follow what happens to jobs, from another service: it needs the event bus and nothing else of Jobyard.

from jobyard.events import JobEvent, run

def on_event(event: JobEvent) -> None:
    if event.type == "job.completed" and event.job_type == "order.paid":
        print("paid:", event.data["result"])

run("mailer", on_event)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from jobyard import telemetry
from jobyard.bus.opening import open_bus
from jobyard.clock import SystemClock
from jobyard.config import Settings, SettingsError
from jobyard.domain.announcement import events_topic
from jobyard.domain.errors import JobyardError
from jobyard.loop import backoff, cancelled
from jobyard.ports import BusUnavailable, Delivery, EventBus, Subscription
from jobyard.process import FAILED, OK, StartError, run_process
from jobyard.telemetry import LogEvent

ACK_SECONDS = 30.0
MOST_DELIVERIES = 100
"""After so many the bus sets an event aside, where it can: the handler never got through with it."""

LONGEST_AGAIN_SECONDS = 60.0

Handle = Callable[["JobEvent"], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What happened to a job. `id` is the same on every repeat. `type`: `job.completed` and so on; `job_type`: the job's own,
    None for one that is deleted; `data`: as docs/event-bus.md says."""

    id: str
    type: str
    time: datetime
    job_id: str
    job_type: str | None
    data: Mapping[str, Any]


class _Envelope(msgspec.Struct):
    id: str
    type: str
    time: datetime
    subject: str
    data: dict[str, Any]


def run(subscription: str, handle: Handle) -> None:
    """`follow` as a program, with the settings of the environment (JOBYARD_BUS, and DATABASE_URL where PostgreSQL is the bus),
    until SIGTERM or SIGINT. What is wrong with them is told in a sentence, with exit code 1."""
    try:
        settings = Settings.read(os.environ)
    except SettingsError as wrong:
        sys.stderr.write(f"jobyard: {wrong}\n")
        sys.exit(FAILED)
    telemetry.configure_logging(settings.log, settings.log_level, settings.secrets)

    async def until_told(stop: asyncio.Event) -> int:
        following = asyncio.create_task(follow(subscription, handle, settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        stopping.cancel()
        await cancelled(following)
        return OK

    sys.exit(run_process(until_told))


async def follow(
    subscription: str, handle: Handle, settings: Settings | None = None, *, at_once: int = 10
) -> None:
    """Call `handle` with every event, until cancelled. All who use one `subscription` share its events, and it has those from
    its making on, also the ones that come while nobody follows it. An event is done with when `handle` returns; if it raises,
    the event comes again after a growing pause. A `def` runs in a thread. `at_once`: events in its hands at a time. Raises
    StartError."""
    settings = settings or Settings.read(os.environ)
    topic = events_topic(settings.bus.namespace)
    wanted = Subscription(topic, f"{settings.bus.namespace}.{subscription}", ACK_SECONDS, MOST_DELIVERIES)
    bus = _opened(settings)
    try:
        await _ensure(bus, wanted)
        telemetry.info(LogEvent.FOLLOWING, subscription=subscription)
        async with asyncio.TaskGroup() as handling, bus.subscribe(wanted, at_once) as deliveries:
            async for delivery in deliveries:
                handling.create_task(_handle(delivery, handle, subscription))
    finally:
        await bus.close()


def _opened(settings: Settings) -> EventBus:
    if settings.bus.kind == "postgres" and settings.direct_url is None:
        raise StartError(
            "events come over PostgreSQL, and DATABASE_URL is not set; set it to the database of Jobyard, or "
            "JOBYARD_BUS to the message broker that it uses"
        )
    try:
        return open_bus(settings.bus, settings.direct_url or "", SystemClock())
    except JobyardError as missing:
        raise StartError(f"JOBYARD_BUS: {missing}") from missing


async def _ensure(bus: EventBus, wanted: Subscription) -> None:
    failures = 0
    while True:
        try:
            await bus.ensure(wanted.topic, [wanted])
            break
        except BusUnavailable as trouble:
            failures += 1
            if failures == 1:
                telemetry.warning(LogEvent.LOOP_FAILED, loop="events", error=str(trouble))
            await asyncio.sleep(backoff(failures))
    if failures:
        telemetry.info(LogEvent.LOOP_RECOVERED, loop="events", after_failures=failures)


async def _handle(delivery: Delivery, handle: Handle, subscription: str) -> None:
    event = _read(delivery)
    if event is None:
        telemetry.warning(LogEvent.EVENT_STRANGE, subscription=subscription, message=delivery.message.id)
        await delivery.ack()
        return
    keeping = asyncio.create_task(_keep(delivery))
    try:
        await _call(handle, event)
    except Exception as error:
        again_in = min(2.0 ** min(delivery.attempt, 10), LONGEST_AGAIN_SECONDS)
        telemetry.warning(
            LogEvent.EVENT_REFUSED,
            subscription=subscription,
            event_id=event.id,
            error=type(error).__name__,
            again_in=again_in,
        )
        await cancelled(keeping)
        await delivery.nack(again_in)
    else:
        await cancelled(keeping)
        await delivery.ack()
    finally:
        keeping.cancel()


async def _call(handle: Handle, event: JobEvent) -> None:
    if inspect.iscoroutinefunction(handle):
        await handle(event)
    else:
        await asyncio.to_thread(handle, event)


async def _keep(delivery: Delivery) -> None:
    """While it is handled it stays in these hands, however long that takes."""
    while True:
        await asyncio.sleep(ACK_SECONDS / 3)
        await delivery.extend(ACK_SECONDS)


def _read(delivery: Delivery) -> JobEvent | None:
    with contextlib.suppress(msgspec.MsgspecError):
        it = msgspec.json.decode(delivery.message.body, type=_Envelope)
        return JobEvent(it.id, it.type, it.time, it.subject, it.data.get("type"), it.data)
    return None
