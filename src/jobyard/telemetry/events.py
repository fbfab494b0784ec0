"""Every log event: its name, level and fields, and what it means. Nothing else is ever logged by Jobyard itself."""

from __future__ import annotations

from enum import StrEnum


class LogEvent(StrEnum):
    """One fact that Jobyard tells. docs/reference/log-events.md is made from this list."""

    level: str
    about: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, level: str, about: str, *fields: str) -> LogEvent:
        event = str.__new__(cls, name)
        event._value_ = name
        event.level, event.about, event.fields = level, about, fields
        return event

    # Processes

    CONNECTIONS = (
        "connections",
        "info",
        "At start, but not under `jobyard dev`: the database connections of one process like this, and how many such processes the server carries.",
        "each",
        "usable",
        "processes_carried",
    )
    POOLER = (
        "pooler",
        "warning",
        "At start: the address of this process passes a connection pooler. It works without planner settings of its own, "
        "and a worker polls each second, as no wake-up reaches it. Set DATABASE_DIRECT_URL.",
    )
    API_STARTED = "api.started", "info", "The API takes connections.", "host", "port"
    API_STOPPED = "api.stopped", "info", "The API has answered everybody and ends."
    WORKER_STARTED = (
        "worker.started",
        "info",
        "The worker has a new id and claims; also after it lost its leases.",
        "worker",
        "name",
        "types",
    )
    WORKER_DRAINING = (
        "worker.draining",
        "info",
        "The worker was told to stop: it claims nothing more and lets what runs end.",
        "running",
    )
    WORKER_STOPPED = "worker.stopped", "info", "The worker has handed everything back and ends.", "worker"
    WORKER_EXPIRED = (
        "worker.expired",
        "warning",
        "The worker could not renew its leases in time: its attempts belong to others now.",
        "worker",
        "attempts",
    )
    WORKER_STUCK = (
        "worker.stuck",
        "error",
        "As many threads as the worker has slots never returned from a handler: it drains and exits with code 70.",
        "threads",
    )
    CHILD_CRASHED = (
        "child.crashed",
        "error",
        "A child process ended by itself. The attempt it ran is charged with it; without one, it was waiting for work.",
        "pid",
        "how",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
    )
    CHILD_CANNOT_START = (
        "child.cannot_start",
        "error",
        "No child process could be started for an attempt, which has failed by that; the next start waits a while.",
        "error",
    )
    MAINTAIN_STARTED = "maintain.started", "info", "The maintainer runs these loops.", "loops"
    MAINTAIN_STOPPED = "maintain.stopped", "info", "The maintainer ends."

    # Jobs

    JOB_CREATED = (
        "job.created",
        "debug",
        "A job was committed.",
        "job",
        "type",
        "queue",
        "request_id",
        "trace_id",
        "replayed",
    )
    ATTEMPT_STARTED = (
        "attempt.started",
        "debug",
        "A handler is called.",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
    )
    ATTEMPT_COMPLETED = (
        "attempt.completed",
        "debug",
        "A handler returned; its result is about to be written.",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
        "seconds",
    )
    ATTEMPT_FAILED = (
        "attempt.failed",
        "warning",
        "An attempt ended without success. `error` is the type of the error, `at` the line that raised it; its message may quote the payload, so it is "
        "kept with the job (`jobyard get`) and not logged.",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
        "error",
        "at",
        "cause",
        "becomes",
        "retry_in",
    )
    ATTEMPT_PUT_OFF = (
        "attempt.put_off",
        "info",
        "A handler returned `Retry`: it wants to be called again, in `retry_in` seconds.",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
        "retry_in",
    )
    REPORT_REFUSED = (
        "report.refused",
        "error",
        "The database refused to keep progress or log lines of attempts; they are dropped, the attempts go on.",
        "error",
    )
    ATTEMPTS_RELEASED = (
        "attempts.released",
        "warning",
        "Attempts were handed back unburnt, because the worker drains or never heard of them.",
        "attempts",
        "why",
    )
    LEASE_LOST = (
        "lease.lost",
        "warning",
        "An attempt ended after its lease had gone to another: its outcome was dropped.",
        "job",
        "lease",
        "type",
        "queue",
    )
    SETTLE_REFUSED = (
        "settle.refused",
        "error",
        "PostgreSQL refused to keep the outcome of an attempt: the job is failed instead.",
        "job",
        "type",
        "queue",
        "error",
    )
    SWEPT = (
        "swept",
        "warning",
        "Attempts of workers that stopped beating, or past their deadline, were taken back; how many for which cause.",
        "workers",
        "attempts",
    )
    DELETED = (
        "deleted",
        "info",
        "What was older than its retention is gone.",
        "jobs",
        "idempotency_keys",
        "events",
        "messages",
    )

    # Requests

    REQUEST_ANSWERED = (
        "request.answered",
        "debug",
        "A request was answered. The address is that of the route, never the client's own.",
        "request_id",
        "method",
        "route",
        "status",
        "seconds",
    )
    REQUEST_FAILED = (
        "request.failed",
        "error",
        "Nobody foresaw what a request met: it was answered 500. A bug; please report it.",
        "method",
        "request_id",
        "code",
        "exception",
    )
    REQUEST_UNAVAILABLE = (
        "request.unavailable",
        "warning",
        "A request was answered 503, because the database is away or too much waits already; told once a second at most.",
        "method",
        "request_id",
        "code",
        "error",
    )

    # What repeats, and what is listened to

    LOOP_FAILED = (
        "loop.failed",
        "warning",
        "Something that repeats failed, and is repeated with growing pauses; told once until it works again.",
        "loop",
        "error",
    )
    LOOP_RECOVERED = "loop.recovered", "info", "It works again.", "loop", "after_failures"
    LISTENER_LOST = (
        "listener.lost",
        "warning",
        "Wake-ups do not arrive; until they do, jobs are found by polling each second.",
        "error",
    )
    LISTENER_BACK = "listener.back", "info", "Wake-ups arrive again."
    ANNOUNCING = (
        "announcing",
        "info",
        "This maintainer is the one that announces ready jobs over the message broker.",
        "namespace",
    )
    HEARING = (
        "hearing",
        "info",
        "The worker hears of jobs over the message broker, by these subscriptions.",
        "subscriptions",
    )
    ANNOUNCEMENT_STRANGE = (
        "announcement.strange",
        "warning",
        "Something came over the message broker that announces no job of this worker; it is dropped.",
        "subscription",
        "message",
    )
    PUSH_REFUSED = (
        "push.refused",
        "warning",
        "A push of Google Pub/Sub was refused, and Pub/Sub will push it again; told once a second at most.",
        "status",
        "why",
    )
    PUSH_STARTED = (
        "push.started",
        "info",
        "The worker takes pushes of Google Pub/Sub.",
        "host",
        "port",
        "path",
    )
    FOLLOWING = "following", "info", "A service has its subscription to the events of jobs.", "subscription"
    EVENT_REFUSED = (
        "event.refused",
        "warning",
        "The function that a service follows events with raised: the event comes again after the pause.",
        "subscription",
        "event_id",
        "error",
        "again_in",
    )
    EVENT_STRANGE = (
        "event.strange",
        "warning",
        "Something came with the events that is none; it is dropped.",
        "subscription",
        "message",
    )
    MESSAGE_SET_ASIDE = (
        "message.set_aside",
        "warning",
        "A message of the event bus was delivered as often as its subscription allows, never acked, and waits for a person.",
        "subscription",
        "message",
    )
    SUBSCRIPTION_DIFFERS = (
        "subscription.differs",
        "warning",
        "A subscription of Google Pub/Sub was there before and is not as the event bus would have made it; nothing of it is "
        "changed. `differs` says what.",
        "subscription",
        "differs",
    )

    # Others

    APP_LOG = (
        "app.log",
        "as logged",
        "A line that a handler or a library wrote with Python's `logging`; inside a handler with the job it is about.",
        "logger",
        "message",
        "exception",
        "job",
        "attempt",
        "type",
        "queue",
        "trace_id",
    )
