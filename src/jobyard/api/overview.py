"""The endpoints of operators: what waits, what runs, who works. Numbers of jobs are those of the last sample."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from jobyard.api.exchange import Answer, Request, json_answer
from jobyard.api.listing import list_name, read_query
from jobyard.api.paging import make_token, read_token
from jobyard.api.parts import Parts
from jobyard.api.render import time_or_null, time_text
from jobyard.api.schemas import PageQuery, Time
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.store import overview
from jobyard.store.sampling import Moved, Sample, TypeSample, last_sample

MINUTE_SECONDS = 60.0


class Counts(msgspec.Struct, rename="camel", kw_only=True):
    """Jobs in one place, when they were last counted. `pending` is `ready` and `scheduled` together; `suspects` were
    in flight when a worker died; `oldestReadyAt`: since when the first of the ready ones has been waiting."""

    pending: int = 0
    ready: int = 0
    scheduled: int = 0
    processing: int = 0
    suspects: int = 0
    oldest_ready_at: Time | None = None


class Pace(msgspec.Struct, rename="camel", kw_only=True):
    """How many jobs had which event in the `seconds` before `at`."""

    at: Time
    seconds: float
    created: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    retry_scheduled: int = 0
    released: int = 0


class WorkerTotals(msgspec.Struct, rename="camel"):
    """Worker processes that are alive, what they can run at once, and how many of them wait for work."""

    live: int
    slots: int
    idle: int


class Stats(msgspec.Struct, rename="camel", kw_only=True):
    """The whole yard. `sampledAt`: when a maintainer last counted; null while none has, and then all counts are 0."""

    sampled_at: Time | None
    jobs: Counts
    workers: WorkerTotals
    last_minute: Pace | None
    history: list[Pace]


class QueueType(Counts, rename="camel", kw_only=True):
    """One type in a queue. With `workers` 0 nobody is there to run it."""

    type: str
    workers: int


class Queue(Counts, rename="camel", kw_only=True):
    """A queue that jobs were ever put into."""

    name: str
    types: list[QueueType]


class QueuePage(msgspec.Struct, rename="camel"):
    """By name."""

    items: list[Queue]
    next_page_token: str | None


class Worker(msgspec.Struct, rename="camel", kw_only=True):
    """A worker process. `alive` until `expiresAt`, which each heartbeat moves; `inFlight`: the attempts it holds."""

    id: str
    name: str
    types: list[str]
    concurrency: int
    in_flight: int
    idle: bool
    alive: bool
    started_at: Time
    expires_at: Time


class WorkerPage(msgspec.Struct, rename="camel"):
    """Newest first."""

    items: list[Worker]
    next_page_token: str | None


async def stats(parts: Parts, request: Request) -> Answer:
    async with parts.reading() as connection:
        sample = await last_sample(connection)
        totals = WorkerTotals(**await overview.worker_totals(connection))
    return json_answer(
        200,
        Stats(
            sampled_at=time_or_null(sample.at if sample else None),
            jobs=_counts(_types_of(sample)),
            workers=totals,
            last_minute=_pace(sample.events_within(MINUTE_SECONDS)) if sample else None,
            history=[_pace(moved) for moved in sample.history] if sample else [],
        ),
    )


async def queues(parts: Parts, request: Request) -> Answer:
    values = request.query()
    query = read_query(values, PageQuery)
    name = list_name(request, values)
    above = (
        read_token(query.page_token, name).decode(errors="replace") if query.page_token is not None else ""
    )
    async with parts.reading() as connection:
        found = await overview.queues(
            connection, DEFAULT_TENANT, above.replace("\0", ""), query.page_size + 1
        )
        workers = await overview.workers_by_type(connection)
        sampled = _types_of(await last_sample(connection))
    shown = list(found)[: query.page_size]
    token = make_token(shown[-1].encode(), name) if len(found) > len(shown) else None
    counted = {(it.queue, it.type): it for it in sampled}
    return json_answer(
        200, QueuePage([_queue(queue, found[queue], counted, workers) for queue in shown], token)
    )


async def workers(parts: Parts, request: Request) -> Answer:
    values = request.query()
    query = read_query(values, PageQuery)
    name = list_name(request, values)
    position = read_token(query.page_token, name, 8) if query.page_token is not None else None
    below = (
        overview.NEWEST_WORKER if position is None else min(int.from_bytes(position), overview.NEWEST_WORKER)
    )
    async with parts.reading() as connection:
        rows = await overview.workers(connection, below, query.page_size + 1)
    shown = rows[: query.page_size]
    token = make_token(shown[-1]["id"].to_bytes(8), name) if len(rows) > len(shown) else None
    return json_answer(200, WorkerPage(list(map(_worker, shown)), token))


def _worker(row: asyncpg.Record) -> Worker:
    return Worker(
        id=str(row["id"]),
        name=row["name"],
        types=row["types"],
        concurrency=row["concurrency"],
        in_flight=row["in_flight"],
        idle=row["idle"],
        alive=row["alive"],
        started_at=time_text(row["started_at"]),
        expires_at=time_text(row["expires_at"]),
    )


def _types_of(sample: Sample | None) -> list[TypeSample]:
    return [it for it in sample.types if it.tenant == DEFAULT_TENANT] if sample else []


def _queue(
    name: str, types: list[str], counted: dict[tuple[str, str], TypeSample], workers: dict[str, int]
) -> Queue:
    sampled = {type: counted[name, type] for type in types if (name, type) in counted}
    return Queue(
        name=name,
        types=[
            QueueType(
                type=type,
                workers=workers.get(type, 0),
                **_fields(_counts([sampled[type]] if type in sampled else [])),
            )
            for type in types
        ],
        **_fields(_counts(list(sampled.values()))),
    )


def _counts(types: list[TypeSample]) -> Counts:
    ready, scheduled = sum(it.ready for it in types), sum(it.scheduled for it in types)
    oldest = min((it.oldest for it in types if it.oldest), default=None)
    return Counts(
        pending=ready + scheduled,
        ready=ready,
        scheduled=scheduled,
        processing=sum(it.active for it in types),
        suspects=sum(it.suspects for it in types),
        oldest_ready_at=time_or_null(oldest),
    )


def _fields(counts: Counts) -> dict[str, Any]:
    return msgspec.structs.asdict(counts)


def _pace(moved: Moved) -> Pace:
    shown = {kind: jobs for kind, jobs in moved.events.items() if kind in Pace.__struct_fields__}
    return Pace(at=time_text(moved.at), seconds=moved.seconds, **shown)
