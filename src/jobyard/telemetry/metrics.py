"""Every metric, and the text in which Prometheus reads them. Each process shows its own; docs/operate says how to sum."""

from __future__ import annotations

import time
from collections import Counter as Tallied
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import version
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobyard.domain.job import LaneKey
from jobyard.domain.lifecycle import Cause
from jobyard.telemetry.instruments import (
    API,
    MAINTAIN,
    WORKER,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Kinds,
    Labels,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_KINDS = 100
KIND = ("queue", "type")
REQUEST_BOUNDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0)
FLUSH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1000)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED, OTHER_METHOD, GONE = "unmatched", "other", "gone"

# What the last sample says; of any number of API processes each shows the same, so rules take the maximum.

JOBS = Gauge(
    "jobyard_jobs",
    "Jobs by place when a maintainer last counted: `ready` may run now, `scheduled` later, `processing` are in flight. "
    "Every API process shows the same sample: take `max by (queue, type, place)`.",
    (*KIND, "place"),
    shown_by=[API],
)
SUSPECTS = Gauge(
    "jobyard_jobs_suspect",
    "Jobs, ready or in flight, that were in flight when a worker died; from the same sample.",
    KIND,
    shown_by=[API],
)
OLDEST = Gauge(
    "jobyard_oldest_ready_age_seconds",
    "How long the first of the ready jobs has been waiting by now, by the database's clock; 0 where none waits. From the "
    "same sample.",
    KIND,
    shown_by=[API],
)
SAMPLE_TIME = Gauge(
    "jobyard_sample_timestamp_seconds",
    "When a maintainer last counted; 0 for never. More than half a minute ago: no maintainer works.",
    shown_by=[API],
)
WORKERS = Gauge(
    "jobyard_workers",
    "Living workers that run this type, 0 included for types that wait. As long as a worker renews its lease it lives.",
    ("type",),
    shown_by=[API],
)

# Jobs and attempts

CREATED = Counter("jobyard_jobs_created_total", "Jobs committed.", KIND, shown_by=[API])
ENDED = Counter(
    "jobyard_attempts_ended_total",
    "Attempts whose end is written, each once, by the worker that ran it or by the maintainer that took it back. `returned` "
    "completes the job; `exhausted`, `non_retryable`, `timeout`, `crashed` and `cancelled` fail it; `retry`, `release`, "
    "`orphan` and `crash` put it back in line.",
    (*KIND, "cause"),
    shown_by=[WORKER, MAINTAIN],
)
TIMEOUTS = Counter(
    "jobyard_attempt_timeouts_total",
    "Attempts that a worker ended because they ran longer than their `timeoutSeconds`, whatever became of the job.",
    KIND,
    shown_by=[WORKER],
)
WAIT = Histogram(
    "jobyard_job_wait_seconds",
    "From ready to claimed, by the database's clock.",
    KIND,
    shown_by=[WORKER],
)
RUN = Histogram(
    "jobyard_attempt_run_seconds", "From the call of the handler to its end.", KIND, shown_by=[WORKER]
)
LEASES_LOST = Counter(
    "jobyard_leases_lost_total",
    "Attempts whose lease had gone to another when they ended: their outcomes were dropped.",
    shown_by=[WORKER],
)

# A worker and a maintainer

SLOTS = Gauge("jobyard_worker_slots", "Attempts this worker runs at a time.", shown_by=[WORKER])
SLOTS_USED = Gauge("jobyard_worker_slots_used", "Attempts it runs now.", shown_by=[WORKER])
CLAIMED_AHEAD = Gauge(
    "jobyard_worker_claimed_ahead", "Attempts it holds that wait for a slot.", shown_by=[WORKER]
)
STUCK_THREADS = Gauge(
    "jobyard_worker_stuck_threads",
    "Threads in which a handler goes on after its time was up. With as many as there are slots the worker drains.",
    shown_by=[WORKER],
)
CHILDREN = Gauge(
    "jobyard_worker_children",
    "Child processes alive, for handlers with `process=True` and for suspects; those that wait for their next job included.",
    shown_by=[WORKER],
)
CHILD_CRASHES = Counter(
    "jobyard_child_crashes_total",
    "Child processes that ended by themselves; what one ran is charged with it.",
    shown_by=[WORKER],
)
LISTENING = Gauge(
    "jobyard_listener_up",
    "1 while wake-ups, or announcements over a message broker, arrive; else jobs are found by polling.",
    shown_by=[WORKER],
)
HEARD = Counter(
    "jobyard_announcements_heard_total",
    "Jobs that this worker was told of over a message broker, repeats included.",
    shown_by=[WORKER],
)
EVENTS_PUBLISHED = Counter(
    "jobyard_events_published_total",
    "Events of jobs that the event bus took from this maintainer, repeats included.",
    shown_by=[MAINTAIN],
)
RELAY_LAG = Gauge(
    "jobyard_relay_lag_seconds",
    "How long the first event that is not published yet has been waiting, by the database's clock; 0 where none waits. "
    "Every maintainer that publishes shows the same: take `max`.",
    shown_by=[MAINTAIN],
)
PUSHES = Counter(
    "jobyard_pushes_total",
    "Pushes of Google Pub/Sub by the status they were answered with: 204 is done with, anything else is pushed again.",
    ("status",),
    shown_by=[WORKER],
)
ANNOUNCED = Counter(
    "jobyard_jobs_announced_total",
    "Announcements of ready jobs that a message broker took from this maintainer.",
    shown_by=[MAINTAIN],
)
ANNOUNCED_AGAIN = Counter(
    "jobyard_jobs_announced_again_total",
    "Those among them of jobs that were announced before and not claimed.",
    shown_by=[MAINTAIN],
)
EXPIRED_WORKERS = Counter(
    "jobyard_workers_expired_total",
    "Workers that stopped beating and were swept by this maintainer.",
    shown_by=[MAINTAIN],
)
DELETED = Counter("jobyard_jobs_deleted_total", "Jobs deleted after their retention.", shown_by=[MAINTAIN])
LOOP_FAILURES = Counter(
    "jobyard_loop_failures_total",
    "Steps that failed of whatever repeats in this process; each is repeated with growing pauses.",
    ("loop",),
)
LOOP_SUCCESS = Gauge(
    "jobyard_loop_last_success_timestamp_seconds",
    "When a step last succeeded, of the loops that have one at least once a minute.",
    ("loop",),
    shown_by=[WORKER, MAINTAIN],
)

# The API and its database connections

REQUESTS = Counter(
    "jobyard_http_requests_total",
    "Requests by route, method and status. `route` is the address as documented, or `unmatched`; the status `gone` is a "
    "client that left before its answer.",
    ("route", "method", "status"),
    shown_by=[API],
)
REQUEST_SECONDS = Histogram(
    "jobyard_http_request_seconds",
    "From the request's headers to its answer, the time included that `Prefer: wait` asked for.",
    ("route", "method"),
    bounds=REQUEST_BOUNDS,
    shown_by=[API],
)
INTAKE_WAITING = Gauge("jobyard_intake_waiting", "Creates that wait for a flush.", shown_by=[API])
INTAKE_LIMIT = Gauge(
    "jobyard_intake_limit",
    "Creates that may wait (`JOBYARD_CREATE_QUEUE`); more are answered 503.",
    shown_by=[API],
)
FLUSH_JOBS = Histogram(
    "jobyard_intake_flush_jobs", "Jobs in one flush to the database.", bounds=FLUSH_SIZES, shown_by=[API]
)
WAITERS = Gauge(
    "jobyard_requests_waiting", "Requests that wait for the end of a job (`Prefer: wait`).", shown_by=[API]
)
DATABASE_UP = Gauge("jobyard_database_up", "1 when the database answered this scrape.", shown_by=[API])
POOL = Gauge(
    "jobyard_database_connections",
    "Connections of this process's pool, by state: `used` or `idle`.",
    ("state",),
)
POOL_LIMIT = Gauge("jobyard_database_connections_limit", "Connections that the pool may have.")
POOL_WAITING = Gauge(
    "jobyard_database_connections_waiting",
    "Requests and flushes that wait for a connection of the pool.",
    shown_by=[API],
)

# The process

READY = Gauge("jobyard_ready", "1 while this process can do its work, as /readyz says.")
BUILD = Gauge("jobyard_build_info", "Always 1; what this process is.", ("version", "role"))

METRICS = tuple(it for it in list(globals().values()) if isinstance(it, Instrument))
"""All of them, in the order of this file."""

kinds = Kinds(MOST_KINDS)


def created(lanes: Iterable[LaneKey]) -> None:
    """Jobs were committed, each into a lane."""
    for lane, jobs in Tallied(lanes).items():
        CREATED.add(*kinds.of(lane.queue, lane.type), by=jobs)


class Claimed(Protocol):
    """What is counted of an attempt that was claimed: its kind, and the seconds that it had been ready for."""

    @property
    def queue(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def waited(self) -> float: ...


def waited(attempts: Iterable[Claimed]) -> None:
    seconds: defaultdict[Labels, list[float]] = defaultdict(list)
    for attempt in attempts:
        seconds[attempt.queue, attempt.type].append(attempt.waited)
    for (queue, type), some in seconds.items():
        WAIT.of(*kinds.of(queue, type)).observe_all(some)


def ended(lane: LaneKey, cause: Cause, ran: Collection[float | None]) -> None:
    """Attempts ended, each after so long (None where nobody knows)."""
    kind = kinds.of(lane.queue, lane.type)
    ENDED.add(*kind, cause.value, by=len(ran))
    RUN.of(*kind).observe_all(seconds for seconds in ran if seconds is not None)


def timed_out(queue: str, type: str) -> None:
    TIMEOUTS.add(*kinds.of(queue, type))


def answered(route: str | None, method: str, status: int | None, seconds: float) -> None:
    """A request of this method to this route (None: to none that there is) was answered, or the client left (None)."""
    place = (route or UNMATCHED, method if method in METHODS else OTHER_METHOD)
    REQUESTS.add(*place, str(status) if status else GONE)
    REQUEST_SECONDS.of(*place).observe(seconds)


def loop_succeeded(loop: str) -> None:
    LOOP_SUCCESS.set(time.time(), loop)


def loop_failed(loop: str) -> None:
    LOOP_FAILURES.add(loop)


def exposition(role: str, *, ready: bool) -> bytes:
    """What this process has to say, as Prometheus reads it."""
    READY.set(ready)
    BUILD.replace({(version("jobyard"), role): 1})
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Shown(role))
    return generate_latest(registry)


class _Shown(Collector):
    def __init__(self, role: str) -> None:
        self._role = role

    def collect(self) -> Iterator[Metric]:
        for metric in METRICS:
            if self._role in metric.shown_by:
                yield metric.reading()

    def describe(self) -> Iterable[Metric]:
        return []
