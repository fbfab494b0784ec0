"""`Yard`: Jobyard as a test holds it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, Unpack
from uuid import UUID

import uvloop

from jobyard.client import Client
from jobyard.client.shapes import JobOptions
from jobyard.config import Settings
from jobyard.handlers.email import Mailer
from jobyard.loading import import_handlers, load_handlers
from jobyard.process import StartError
from jobyard.testing.database import DatabaseRefused, running_server
from jobyard.testing.jobs import Job
from jobyard.testing.loop_thread import LoopThread
from jobyard.testing.matching import ANYTHING, Facts, Wanted, listed, nearest_miss
from jobyard.testing.runs import AttemptOptions, Runs, jobs_of, result_of
from jobyard.testing.site import Site, site
from jobyard.worker.handlers import Handler, Handlers, read_signature

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

ATTEMPTS_UNTIL_IDLE = 1000
"""More than a test means to run: beyond it a job is taken for one that creates itself again and again."""

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""Where jobs of type `http` may call beside public addresses: the servers that a test starts."""


class YardError(Exception):
    """What a test needs is not there: what, and what to do."""


class HasId(Protocol):
    """A job, as `create` or any client gave it."""

    @property
    def id(self) -> str: ...


class Yard:
    """The HTTP API, a worker and a maintainer on a database of their own, which move only when told to.

    Nothing runs by itself: `run_until_idle` is the worker, `travel` is time and the maintainer. `client` is a client of
    the API for all else. `app` is a module of handlers to import, and `app_from` says where it was named, for a message;
    those of modules that are imported already are known anyway. Of the environment only JOBYARD_TEST_DATABASE_URL,
    JOBYARD_HOME and JOBYARD_APP count.
    """

    def __init__(self, app: str | None = None, *, app_from: str = "app") -> None:
        given = {name: os.environ.get(name, "") for name in ("JOBYARD_HOME", "JOBYARD_APP")}
        self._settings = Settings.read(given)
        self._app = app or self._settings.app
        self._app_from = app_from if app else "JOBYARD_APP"
        self._own = Handlers()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start the database and the API. Raises YardError when that cannot be, or `app` cannot be imported."""
        with ExitStack() as undo:
            try:
                self._open(undo)
            except DatabaseRefused as refusal:
                raise YardError(str(refusal)) from refusal
            if self._app:
                try:
                    self.use(self._app)
                except YardError as fault:
                    raise YardError(f"{self._app_from}: {fault}") from fault
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Drop the database and stop everything."""
        self._undo.close()

    def _open(self, undo: ExitStack) -> None:
        self._outbox = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="jobyard-outbox-")))
        given = os.environ.get("JOBYARD_TEST_DATABASE_URL") or None
        server = undo.enter_context(running_server(given, self._settings.home))
        self._thread = LoopThread()
        undo.callback(self._thread.close)
        here = site(server)
        self._site: Site = self._thread.call(here.__aenter__())
        undo.callback(lambda: self._thread.call(here.__aexit__(None, None, None)))
        self._runs = Runs(self._thread, self._site, self._settings.max_payload_bytes)
        self.client = undo.enter_context(Client(self.url))
        # One loop for all runs: what a handler keeps from run to run (a pool, a client) stays good.
        self._loop = undo.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

    def reset(self) -> None:
        """Forget all jobs and mails, the handlers of this test, and the travels."""
        self._own = Handlers()
        for mail in self._outbox.iterdir():
            mail.unlink()
        self._thread.call(self._site.empty())

    # What code under test talks to

    @property
    def url(self) -> str:
        """Where the HTTP API answers."""
        return self._site.url

    @property
    def database_url(self) -> str:
        """The address of the database, for SQL of your own; there `now()` travels too."""
        return self._site.database_url

    def create(self, type: str, payload: Any = None, **options: Unpack[JobOptions]) -> Job:
        """A job, created over HTTP as anybody would. Without a payload it has `{}`."""
        __tracebackhide__ = True
        return self.job(self.client.create(type, {} if payload is None else payload, **options))

    # Handlers

    def use(self, app: str) -> None:
        """Import a module of handlers. Raises YardError."""
        try:
            import_handlers(app)
        except StartError as fault:
            raise YardError(str(fault)) from fault

    def handler(self, type: str) -> Callable[[F], F]:
        """As `@jobyard.handler`, until the end of this test, and instead of the handler the type has otherwise."""

        def bind(function: F) -> F:
            self._own.add(type, function)
            return function

        return bind

    @property
    def outbox(self) -> list[EmailMessage]:
        """The mails that the built-in `email` handler sent, in that order."""
        mails = sorted(self._outbox.glob("*.eml"), key=lambda mail: mail.stat().st_mtime_ns)
        return [message_from_bytes(mail.read_bytes(), policy=policy.default) for mail in mails]

    # Run

    def run_until_idle(self, *, limit: int = ATTEMPTS_UNTIL_IDLE, raising: bool = True) -> list[Job]:
        """Run every job that is ready and has a handler, one after another, until none is left; a retry that waits
        for its time waits on. Answers the jobs in the order they ran, each as its attempt left it.

        Then the first error is raised: what a handler raised, or AttemptFailed where a payload did not fit, a result
        could not be kept or the time was over. A Retry or Fail that was returned is no error. `raising=False` leaves
        all of them to the jobs. Raises NeverIdle after `limit` attempts; warns (NoHandler) when jobs of types without
        a handler are left that are ready.
        """
        __tracebackhide__ = True
        return jobs_of(self._in_own_loop(self._runs.until_idle(self._handlers(), limit)), raising)

    async def run_until_idle_async(
        self, *, limit: int = ATTEMPTS_UNTIL_IDLE, raising: bool = True
    ) -> list[Job]:
        """As `run_until_idle`, for a test that is a coroutine: its handlers share its event loop."""
        __tracebackhide__ = True
        return jobs_of(await self._runs.until_idle(self._handlers(), limit), raising)

    def run(
        self, handler: str | Callable[..., Any], payload: Any = None, **options: Unpack[AttemptOptions]
    ) -> Any:
        """One attempt of one handler, given as a function or by its type, without a job. Answers the result as it
        would be kept, or the Retry or Fail that was returned; raises as `run_until_idle` does."""
        __tracebackhide__ = True
        found, now = self._find(handler), self.now()
        return result_of(self._in_own_loop(self._runs.alone(found, payload, now, options)))

    async def run_async(
        self, handler: str | Callable[..., Any], payload: Any = None, **options: Unpack[AttemptOptions]
    ) -> Any:
        """As `run`, for a test that is a coroutine."""
        __tracebackhide__ = True
        return result_of(await self._runs.alone(self._find(handler), payload, self.now(), options))

    def _in_own_loop(self, running: Coroutine[Any, Any, R]) -> R:
        __tracebackhide__ = True
        with closing(running):
            if _in_a_coroutine():
                raise RuntimeError(
                    "this test is a coroutine, and its handlers may need its event loop: "
                    "`await jobyard.run_until_idle_async()`, and `run_async` in place of `run`"
                )
            self._runs.require_free()
            return self._loop.run(running, context=contextvars.copy_context())

    def _find(self, handler: str | Callable[..., Any]) -> Handler:
        known = self._handlers()
        if isinstance(handler, str):
            if handler not in known.types():
                raise LookupError(
                    f"no handler for type {handler!r}; there are {', '.join(known.types())}. "
                    "Import the module that has it, or name that as jobyard_app"
                )
            return known.get(handler)
        of_type = [each for each in known if each.function is handler]
        return of_type[0] if of_type else read_signature(handler.__name__, handler)

    def _handlers(self) -> Handlers:
        """This test's own, those of all modules imported so far, and the built-in ones."""
        settings = Settings(outbound_allow=LOOPBACK)
        return self._own.merged(load_handlers(settings, self._mailer()))

    def _mailer(self) -> Mailer:
        return Mailer(None, self._settings.smtp_from, self._outbox)

    # Time

    def now(self) -> datetime:
        """The database's time, by which everything is due."""
        return self._thread.call(self._site.now())

    def travel(self, by: float | timedelta) -> None:
        """Let so much time pass, in seconds where it is a number: what falls due meanwhile becomes ready, what is
        abandoned goes back, what is old enough is deleted. Nothing runs until `run_until_idle`. The clock of Python
        stays as it is."""
        __tracebackhide__ = True
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not seconds >= 0:
            raise ValueError(f"time goes forward only, not by {seconds:g} s")
        self._thread.call(self._site.travel(seconds))

    def travel_to(self, moment: datetime) -> None:
        """As `travel`, until this moment; it needs a time zone."""
        __tracebackhide__ = True
        if moment.tzinfo is None:
            raise ValueError(f"{moment.isoformat()} has no time zone; say datetime(..., tzinfo=UTC)")
        now = self.now()
        if moment < now:
            raise ValueError(
                f"time goes forward only: it is {now.isoformat()}, later than {moment.isoformat()}"
            )
        self.travel(moment - now)

    # Look and assert

    def job(self, job: str | UUID | HasId) -> Job:
        """This job as it is now. Raises LookupError."""
        __tracebackhide__ = True
        id = str(job) if isinstance(job, str | UUID) else job.id
        try:
            return self._thread.call(self._site.job(UUID(id)))
        except (LookupError, ValueError):
            raise LookupError(f"there is no job {id}") from None

    def jobs(self, type: str | None = None, payload: Any = ANYTHING, **facts: Unpack[Facts]) -> list[Job]:
        """The jobs that `assert_created` would count, oldest first."""
        __tracebackhide__ = True
        return Wanted(type, payload, facts).among(self._thread.call(self._site.jobs()))

    def assert_created(
        self,
        type: str | None = None,
        payload: Any = ANYTHING,
        *,
        count: int | None = None,
        **facts: Unpack[Facts],
    ) -> list[Job]:
        """Jobs of this type, with at least this in their payload, and with these facts, have been created: one or
        more, or exactly `count`. Answers them, oldest first; it does not matter what has become of them."""
        __tracebackhide__ = True
        wanted = Wanted(type, payload, facts)
        jobs = self._thread.call(self._site.jobs())
        found = wanted.among(jobs)
        if len(found) == count or (found and count is None):
            return found
        if found:
            raise AssertionError(f"{wanted}: {len(found)} created, not {count}.\n{listed(found, 'Created')}")
        raise AssertionError(
            f"No {wanted} was created.\n{listed(jobs, 'Created instead')}\n{nearest_miss(wanted, jobs)}".rstrip()
        )

    def assert_not_created(
        self, type: str | None = None, payload: Any = ANYTHING, **facts: Unpack[Facts]
    ) -> None:
        """No job of this type, with this in its payload, and with these facts, has been created."""
        __tracebackhide__ = True
        if found := self.jobs(type, payload, **facts):
            raise AssertionError(
                f"No {Wanted(type, payload, facts)} was expected.\n{listed(found, 'Created')}"
            )


def _in_a_coroutine() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
