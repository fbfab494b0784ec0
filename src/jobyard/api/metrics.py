"""What Prometheus reads: this process, and the last sample. Jobs are counted by maintainers, never by a scrape."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from jobyard.api.exchange import Answer, Request
from jobyard.api.parts import Parts
from jobyard.api.probes import LONGEST_PROBE_SECONDS
from jobyard.domain.errors import DatabaseUnavailable
from jobyard.store import overview
from jobyard.store.database import show_pool
from jobyard.store.sampling import Sample, last_sample
from jobyard.telemetry import metrics
from jobyard.telemetry.instruments import API, OTHER

NEVER = 0.0


async def show(parts: Parts, request: Request) -> Answer:
    _look_at_process(parts)
    database_is_up = await _look_at_database(parts)
    metrics.DATABASE_UP.set(database_is_up)
    text = metrics.exposition(API, ready=database_is_up and not parts.draining)
    return Answer(200, text, [], metrics.CONTENT_TYPE.encode())


def _look_at_process(parts: Parts) -> None:
    metrics.INTAKE_WAITING.set(parts.intake.waiting)
    metrics.INTAKE_LIMIT.set(parts.settings.create_queue)
    metrics.WAITERS.set(len(parts.waiters))
    show_pool(parts.pool)


async def _look_at_database(parts: Parts) -> bool:
    """False when it does not answer: then the last known sample is shown, whose time tells how old it is."""
    try:
        async with asyncio.timeout(LONGEST_PROBE_SECONDS), parts.reading() as connection:
            sample = await last_sample(connection)
            workers = await overview.workers_by_type(connection)
    except (TimeoutError, DatabaseUnavailable):
        return False
    show_sample(sample, workers)
    return True


def show_sample(sample: Sample | None, workers: dict[str, int]) -> None:
    """Everything by kind; what has no series of its own is summed, and its oldest is the oldest of all."""
    jobs: defaultdict[tuple[str, ...], float] = defaultdict(float)
    suspects: defaultdict[tuple[str, ...], float] = defaultdict(float)
    oldest: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for found in sample.types if sample else ():
        kind = metrics.kinds.of(found.queue, found.type)
        for place, count in (
            ("ready", found.ready),
            ("scheduled", found.scheduled),
            ("processing", found.active),
        ):
            jobs[*kind, place] += count
        suspects[kind] += found.suspects
        if sample and found.oldest:
            age = sample.age + (sample.at - found.oldest).total_seconds()
            oldest[kind] = max(oldest[kind], age)
    for kind in {*metrics.kinds.own(), *suspects}:
        # What is empty says so: a series that ends could be a scrape that failed.
        for place in ("ready", "scheduled", "processing"):
            jobs[*kind, place] += 0
        suspects[kind] += 0
        oldest[kind] += 0
    metrics.JOBS.replace(jobs)
    metrics.SUSPECTS.replace(suspects)
    metrics.OLDEST.replace(oldest)
    metrics.SAMPLE_TIME.set(sample.at.timestamp() if sample else NEVER)
    metrics.WORKERS.replace({(type,): workers.get(type, 0) for _, type in suspects if type != OTHER})
