"""The table of routes, and the application that is made of it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from jobyard.api import dead_letters, documentation, history, jobs, metrics, overview, probes
from jobyard.api.edge import Edge
from jobyard.api.openapi import document
from jobyard.api.pages import Pages
from jobyard.api.parts import Parts
from jobyard.api.problems import (
    MalformedJson,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
    ValidationFailed,
)
from jobyard.api.route import Header, Reply, Route
from jobyard.api.schemas import (
    AttemptPage,
    Bulk,
    BulkAnswer,
    Created,
    CreateJob,
    EventPage,
    Job,
    JobPage,
    ListQuery,
    LogPage,
    PageQuery,
)
from jobyard.api.traced import Traced
from jobyard.api.waiters import Waiters
from jobyard.config import Settings
from jobyard.domain.errors import (
    BadPageToken,
    DatabaseUnavailable,
    IdempotencyMismatch,
    JobyardError,
    NotFound,
    Overloaded,
    TooManyLanes,
    WrongState,
)
from jobyard.ports import Clock
from jobyard.store.database import Pool
from jobyard.store.lanes import Lanes
from jobyard.telemetry import traces

EXAMPLE_ID = "019384a0-5b1c-7d3e-8f21-0242ac120002"

IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "1 to 255 printable ASCII characters. For 24 hours the same key with the same body is the same job; with another body it is refused.",
    "order-17",
    r"^[\x20-\x7e]{1,255}$",
)
PREFER = Header(
    "Prefer", "`wait=N`: answer when the job is final, after N seconds (at most 60) at the latest.", "wait=10"
)
TRACEPARENT = Header(
    "traceparent",
    "W3C trace context, kept with the job. What is not valid is ignored.",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
IF_NONE_MATCH = Header(
    "If-None-Match",
    "An ETag: answered 304 as long as the job has not changed.",
    '"1.0.pending.1795687200.000000"',
)
LOCATION = Header("Location", "Where the job is.", f"/api/jobs/{EXAMPLE_ID}")
REPLAYED = Header("Idempotency-Replayed", "`true`: an earlier request with this key made the job.", "true")
ETAG = Header("ETag", "Changes whenever the job does.", '"1.0.pending.1795687200.000000"')

BODY: tuple[type[JobyardError], ...] = (
    MalformedJson,
    TooSlow,
    TooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)
DATABASE: tuple[type[JobyardError], ...] = (DatabaseUnavailable,)

ROUTES = (
    Route(
        "POST",
        "/api/jobs",
        jobs.create,
        "Create a job",
        "Committed before the answer: what is answered 202 is not lost. The payload is kept byte for byte.",
        "jobs",
        {
            202: Reply("Accepted.", (Created,), (LOCATION,)),
            200: Reply(
                "With `Prefer: wait` the whole job, final in time; or, for a known Idempotency-Key, the first answer.",
                (Job, Created),
                (LOCATION, REPLAYED),
            ),
        },
        body=CreateJob,
        body_example='{"type":"email","payload":{"to":"user@example.com"}}',
        headers=(IDEMPOTENCY_KEY, PREFER, TRACEPARENT),
        problems=(*BODY, IdempotencyMismatch, TooManyLanes, Overloaded, *DATABASE),
    ),
    Route(
        "POST",
        "/api/jobs/bulk",
        jobs.create_bulk,
        "Create many jobs",
        "Up to 1,000 jobs in one request. Each is accepted or refused on its own; the pointers of an item's problem start "
        "at the whole body, e.g. `/jobs/3/priority`. Idempotency keys are per job.",
        "jobs",
        {200: Reply("An item a job, in the order given.", (BulkAnswer,))},
        body=Bulk,
        body_example='{"jobs":[{"type":"email","payload":{"to":"user@example.com"},"idempotencyKey":"order-17"}]}',
        headers=(TRACEPARENT,),
        problems=(*BODY, Overloaded, *DATABASE),
    ),
    Route(
        "GET",
        "/api/jobs/{id}",
        jobs.get,
        "Look at a job",
        "All there is to know of a job. With `Prefer: wait` once it is completed or failed, or as it is when the time is up.",
        "jobs",
        {200: Reply("The job.", (Job,), (ETAG,)), 304: Reply("It has not changed.", (), (ETAG,))},
        headers=(PREFER, IF_NONE_MATCH),
        problems=(NotFound, Overloaded, *DATABASE),
    ),
    Route(
        "GET",
        "/api/jobs",
        jobs.list_jobs,
        "List jobs",
        "Newest first. A page may be short, or empty, and still have a `nextPageToken`: go on until it is null.",
        "jobs",
        {200: Reply("A page.", (JobPage,))},
        query=ListQuery,
        problems=(BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "GET",
        "/api/jobs/{id}/attempts",
        history.attempts,
        "List the attempts of a job",
        "Newest first, those of all runs, the running one included.",
        "jobs",
        {200: Reply("A page.", (AttemptPage,))},
        query=PageQuery,
        problems=(NotFound, BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "GET",
        "/api/jobs/{id}/events",
        history.events,
        "List what happened to a job",
        "Newest first. An event's `id` is `lease.phase`, unique within the job.",
        "jobs",
        {200: Reply("A page.", (EventPage,))},
        query=PageQuery,
        problems=(NotFound, BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "GET",
        "/api/jobs/{id}/log",
        history.log,
        "Read what the attempts of a job wrote",
        "Oldest first, the lines that handlers wrote onto the job.",
        "jobs",
        {200: Reply("A page.", (LogPage,))},
        query=PageQuery,
        problems=(NotFound, BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "POST",
        "/api/jobs/{id}/cancel",
        jobs.cancel,
        "Cancel a job",
        "A pending job is over at once. A running one is asked to end: its handler hears of it within 2 seconds, and may "
        "still complete the job. It is not tried again.",
        "jobs",
        {
            200: Reply("It was pending and is over now.", (Job,)),
            202: Reply("It runs, and is asked to end.", (Job,)),
        },
        problems=(NotFound, WrongState, *DATABASE),
    ),
    Route(
        "POST",
        "/api/jobs/{id}/retry",
        jobs.retry,
        "Run a failed job again",
        "Its next run, with all its tries before it; what happened before is kept.",
        "jobs",
        {200: Reply("It is pending again.", (Job,))},
        problems=(NotFound, WrongState, *DATABASE),
    ),
    Route(
        "GET",
        "/api/dead-letters",
        dead_letters.list_dead_letters,
        "List dead letters",
        "Jobs that failed for good and wait for a person, newest first. A page may be short, or empty, and still have a "
        "`nextPageToken`.",
        "dead letters",
        {200: Reply("A page.", (JobPage,))},
        query=dead_letters.DeadLetterQuery,
        problems=(BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "POST",
        "/api/dead-letters/redrive",
        dead_letters.redrive,
        "Run dead letters again",
        "A page of what is meant, oldest first, each with all its tries before it. With `rate` they are spread over "
        "time. Go on with the `nextPageToken` until it is null.",
        "dead letters",
        {200: Reply("What was, or would be, run again.", (dead_letters.Dealt,))},
        body=dead_letters.Redrive,
        body_example='{"filter":{"type":"email","reason":"exhausted"},"limit":100,"rate":10,"dryRun":true}',
        problems=(*BODY, BadPageToken, *DATABASE),
    ),
    Route(
        "DELETE",
        "/api/dead-letters",
        dead_letters.purge,
        "Delete dead letters",
        "A page of what is meant, oldest first, with all that is kept of them. It cannot be undone.",
        "dead letters",
        {200: Reply("What was, or would be, deleted.", (dead_letters.Dealt,))},
        body=dead_letters.Purge,
        body_example='{"filter":{"type":"email"},"dryRun":true}',
        problems=(*BODY, BadPageToken, *DATABASE),
    ),
    Route(
        "GET",
        "/api/stats",
        overview.stats,
        "Look at the whole yard",
        "How many jobs wait and run, how fast they move, and who works. Jobs are counted every 10 seconds by a "
        "maintainer, never by a request.",
        "overview",
        {200: Reply("The numbers.", (overview.Stats,))},
        problems=DATABASE,
    ),
    Route(
        "GET",
        "/api/queues",
        overview.queues,
        "List queues",
        "By name, every queue that was ever used, with its types. The counts are those of `/api/stats`.",
        "overview",
        {200: Reply("A page.", (overview.QueuePage,))},
        query=PageQuery,
        problems=(BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "GET",
        "/api/workers",
        overview.workers,
        "List workers",
        "Newest first, those that stopped beating included until they are swept.",
        "overview",
        {200: Reply("A page.", (overview.WorkerPage,))},
        query=PageQuery,
        problems=(BadPageToken, ValidationFailed, *DATABASE),
    ),
    Route(
        "GET",
        "/metrics",
        metrics.show,
        "Metrics for Prometheus",
        "This process in Prometheus' text format, with the numbers of jobs as last sampled.",
        "overview",
        {200: Reply("The metrics.", media="text/plain")},
    ),
    Route(
        "GET",
        "/healthz",
        probes.healthz,
        "Is the process alive",
        "Asks nothing of the database.",
        "probes",
        {200: Reply("It is.", (probes.Health,))},
        is_open=True,
    ),
    Route(
        "GET",
        "/readyz",
        probes.readyz,
        "Can the process serve",
        "Asks the database, and answers within 2 seconds.",
        "probes",
        {
            200: Reply("It can.", (probes.Readiness,)),
            503: Reply("It cannot; the parts say why.", (probes.Readiness,)),
        },
        is_open=True,
    ),
    Route(
        "GET",
        "/openapi.json",
        documentation.openapi,
        "This description",
        "OpenAPI 3.1, made from the same table as the routes.",
        "documentation",
        {200: Reply("The document.", media="application/json")},
        for_browsers=True,
    ),
    Route(
        "GET",
        "/docs",
        documentation.docs,
        "This description for people",
        "One page that needs no network.",
        "documentation",
        {200: Reply("The page.", media="text/html")},
        for_browsers=True,
    ),
    Route(
        "GET",
        "/",
        documentation.home,
        "Where people start",
        "Leads to the documentation.",
        "documentation",
        {307: Reply("Go there.", (), (Header("Location", "The page.", "/docs"),))},
        for_browsers=True,
    ),
)


class Api:
    """The ASGI application. `drain` at shutdown: whoever waits is answered, what was taken in is committed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        edge, spans = Edge(ROUTES, parts), traces.spans()
        self._app: ASGIApp = edge if spans is None else Traced(edge, spans)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def waiters(self) -> Waiters:
        """The requests that wait for the end of a job."""
        return self._parts.waiters

    async def drain(self) -> None:
        await self._parts.drain()


def create_app(settings: Settings, pool: Pool, lanes: Lanes, clock: Clock) -> Api:
    """Serves from the pool, which its owner closes after `drain`."""
    pages = Pages.of(document(ROUTES, guarded=settings.key is not None))
    return Api(Parts(settings, pool, lanes, clock, pages))
