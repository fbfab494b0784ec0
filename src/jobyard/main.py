"""The composition root: Settings in, a running process out. Each function returns the process's exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from jobyard import telemetry
from jobyard.bus.listener import Listener
from jobyard.bus.opening import open_bus
from jobyard.bus.polling import Polling
from jobyard.clock import SystemClock
from jobyard.config import Settings, without_password
from jobyard.domain.errors import DatabaseUnavailable, JobyardError
from jobyard.health import Pages, health_server
from jobyard.key import Key
from jobyard.loading import load_handlers, mailer_of
from jobyard.maintain import maintainer as maintaining
from jobyard.maintain.announcer import Announcer
from jobyard.maintain.relay import Relay
from jobyard.ports import Clock, EventBus
from jobyard.process import OK, SUPERVISED, StartError, run_process, until_stopped
from jobyard.store import migrate as migrating
from jobyard.store.database import GONE, connect, open_pool, passes_pooler, show_pool, why
from jobyard.store.lanes import Lanes
from jobyard.telemetry import LogEvent, metrics, traces
from jobyard.telemetry.instruments import MAINTAIN, WORKER
from jobyard.worker import pool as working
from jobyard.worker.children import ChildOptions, Children
from jobyard.worker.claimer import Listen
from jobyard.worker.hearing import Hearing
from jobyard.worker.heartbeat import Heartbeat
from jobyard.worker.link import HandlerDatabase

CLOSE_SECONDS = 1.0
"""What a message broker may take for a farewell."""

OWN_CONNECTIONS = 2
"""Of a worker beside its pool: the heartbeat's and the listener's."""


def api(settings: Settings) -> int:
    """Serve the HTTP API until SIGTERM or SIGINT."""
    return _run(settings, lambda stop: _serve(settings, stop))


def worker(settings: Settings) -> int:
    """Run jobs until SIGTERM or SIGINT."""
    return _run(settings, lambda stop: _work(settings, stop))


def maintain(settings: Settings) -> int:
    """Promote, sweep and delete until SIGTERM or SIGINT."""
    return _run(settings, lambda stop: _maintain(settings, stop))


def migrate(settings: Settings, *, as_json: bool = False) -> int:
    """Bring the schema of DATABASE_URL up to date."""
    return _run(settings, lambda stop: _migrate(_direct(settings), as_json))


def dev(settings: Settings) -> int:
    """Everything on this machine, with an embedded PostgreSQL unless DATABASE_URL names another."""
    from jobyard.dev import Dev  # it alone needs an HTTP client and a console

    return _run(settings, lambda stop: Dev(settings).run(stop))


def _run(settings: Settings, start: Callable[[asyncio.Event], Coroutine[Any, Any, int]]) -> int:
    telemetry.configure_logging(settings.log, settings.log_level, settings.secrets)
    metrics.kinds.limit = settings.metrics_max_types
    return run_process(start)


async def _serve(settings: Settings, stop: asyncio.Event) -> int:
    from jobyard.api.app import create_app  # the other processes do without Starlette and uvicorn
    from jobyard.api.server import Server

    url = _database(settings)
    pooler = await require_current_schema(url, connections=settings.database_pool)
    pool = await open_pool(
        url,
        size=settings.database_pool,
        hot=True,
        pooler=pooler or settings.pooler is not None,
        name="jobyard api",
        command_timeout=settings.database_timeout_seconds,
    )
    telemetry.hear_python_logging(settings.log_level)
    async with _traces("jobyard-api", settings, stop):
        app = create_app(settings, pool, Lanes(), SystemClock())
        await Server(app, settings).serve(stop)
        pool.terminate()
    return OK


async def _work(settings: Settings, stop: asyncio.Event) -> int:
    clock = SystemClock()
    url = _direct(settings)
    connections = working.CONNECTIONS + OWN_CONNECTIONS + settings.handler_connections
    pooler = _is_pooled(settings, found=await require_current_schema(url, connections=connections))
    mailer = mailer_of(settings)
    handlers = load_handlers(settings, mailer)
    telemetry.hear_python_logging(settings.log_level)
    pool = await open_pool(
        url,
        size=working.CONNECTIONS,
        hot=True,
        pooler=pooler,
        name="jobyard worker",
        command_timeout=working.COMMAND_SECONDS,
    )
    database = HandlerDatabase(url, settings.handler_connections, settings.max_payload_bytes, pooler=pooler)
    options = working.WorkerOptions(
        settings.concurrency,
        settings.lease_seconds,
        settings.grace_seconds,
        settings.max_payload_bytes,
        ack_at_end=settings.push_ack == "end",
    )
    async with _opened_bus(settings, url, clock) as bus, _traces("jobyard-worker", settings, stop):
        broker = bus if settings.bus.announces else None

        def shown() -> bytes:
            process.show()
            show_pool(pool)
            return metrics.exposition(WORKER, ready=process.ready)

        pages = Pages(lambda: process.ready, lambda: process.parts, shown)
        process = working.Worker(
            pool,
            Polling() if pooler or broker else Listener(url, clock),
            clock,
            handlers,
            options,
            lambda on_expired: Heartbeat(url, settings.lease_seconds, on_expired, pooler=pooler),
            Children(child_options(settings, pooler=pooler)),
            database,
            _listen(broker, settings, pages, clock) if broker else None,
        )
        # Where it is pushed to, the pages are on the same port.
        async with _health(settings, pages) if settings.push_audience is None else AsyncExitStack():
            await until_stopped(process.run(), process.stop, stop)
        await mailer.close()
        database.close()
        pool.terminate()
    if process.must_exit:
        # Threads that never return would keep the interpreter from ending.
        os._exit(process.exit_code)
    return process.exit_code


def child_options(settings: Settings, *, pooler: bool = False) -> ChildOptions:
    """How a worker with these settings starts its children: each has the same ones, and the same handlers."""
    environment = os.environ | {"JOBYARD_APP": settings.app or ""}
    if pooler and settings.database_direct_url is None:
        environment["JOBYARD_POOLER"] = "transaction"  # which the worker may have found out by itself
    return ChildOptions(
        [sys.executable, "-m", "jobyard.child"], environment, str(Path.cwd()), settings.child_jobs
    )


async def _maintain(settings: Settings, stop: asyncio.Event) -> int:
    url = _direct(settings)
    clock = SystemClock()
    pooler = _is_pooled(
        settings, found=await require_current_schema(url, connections=maintaining.CONNECTIONS)
    )
    pool = await open_pool(
        url, size=maintaining.CONNECTIONS, hot=True, pooler=pooler, name="jobyard maintain"
    )
    telemetry.hear_python_logging(settings.log_level)
    async with _opened_bus(settings, url, clock) as bus:
        broker = bus if settings.bus.announces else None
        process = maintaining.Maintainer(
            pool,
            clock,
            settings.completed_retention_days,
            settings.failed_retention_days,
            Announcer(
                pool,
                Polling() if pooler else Listener(url, clock),
                broker,
                settings.bus.namespace,
                settings.announce_ahead,
                clock,
            )
            if broker
            else None,
            Relay(pool, bus, settings.bus.namespace, clock) if settings.events == "on" else None,
        )

        def shown() -> bytes:
            show_pool(pool)
            return metrics.exposition(MAINTAIN, ready=process.ready)

        async with _health(settings, Pages(lambda: process.ready, lambda: process.parts, shown)):
            await until_stopped(process.run(), process.stop, stop)
        pool.terminate()
    return OK


@asynccontextmanager
async def _opened_bus(settings: Settings, url: str, clock: Clock) -> AsyncGenerator[EventBus]:
    """Connected when it is needed first."""
    try:
        bus = open_bus(settings.bus, url, clock)
    except JobyardError as missing:
        raise StartError(f"JOBYARD_BUS: {missing}") from missing
    try:
        yield bus
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await bus.close()


def _listen(broker: EventBus, settings: Settings, pages: Pages, clock: Clock) -> Listen:
    if settings.push_audience is not None:
        return _listen_to_pushes(settings, pages, clock)
    return lambda types, inbox, room: Hearing(broker, settings.bus.namespace, types, clock, inbox, room)


async def _migrate(url: str, as_json: bool) -> int:
    connection = await _reach(url)
    try:
        applied = await migrating.migrate(connection, url)
    except (migrating.MigrationError, DatabaseUnavailable, asyncpg.PostgresError) as trouble:
        raise StartError(f"the schema of {without_password(url)} was not changed: {trouble}") from trouble
    finally:
        await connection.close()
    names = [f"{migration.number:04d}_{migration.name}" for migration in applied]
    if as_json:
        sys.stdout.write(json.dumps({"applied": names}) + "\n")
    else:
        lines = [
            *(f"applied {name}" for name in names),
            f"the schema of {without_password(url)} is up to date",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
    return OK


@asynccontextmanager
async def _traces(service: str, settings: Settings, stop: asyncio.Event) -> AsyncGenerator[None]:
    """For the parts that make spans; after the user's own module, which may have set a provider."""
    async with AsyncExitStack() as until_sent:
        try:
            await until_sent.enter_async_context(traces.exporting(service, stop, settings.grace_seconds))
        except traces.CannotTrace as fault:
            raise StartError(str(fault)) from fault
        yield


def _listen_to_pushes(settings: Settings, pages: Pages, clock: Clock) -> Listen:
    from jobyard.push.door import PushOptions, open_door  # other workers do without Starlette and uvicorn

    assert settings.push_audience is not None
    assert settings.push_service_account is not None
    assert settings.health_port is not None
    options = PushOptions(
        settings.host,
        settings.health_port,
        settings.push_audience,
        settings.push_service_account,
        settings.push_keys_url,
        settings.push_ack == "end",
    )
    try:
        return open_door(options, pages, _key(settings), clock)
    except OSError as taken:
        raise _port_taken(settings, taken) from taken


def _key(settings: Settings) -> Key | None:
    return Key(settings.key) if settings.key else None


def _port_taken(settings: Settings, taken: OSError) -> StartError:
    return StartError(
        f"cannot answer health checks on {settings.host}:{settings.health_port} ({taken.strerror}); "
        "set JOBYARD_HEALTH_PORT to a free port"
    )


@asynccontextmanager
async def _health(settings: Settings, pages: Pages) -> AsyncGenerator[None]:
    async with AsyncExitStack() as open_server:
        try:
            await open_server.enter_async_context(
                health_server(settings.host, settings.health_port, pages, _key(settings))
            )
        except OSError as taken:
            raise _port_taken(settings, taken) from taken
        yield


async def require_current_schema(url: str, *, connections: int) -> bool:
    """Whether a pooler is in the way. Raises StartError. Says how many processes like this one, of so many connections,
    the server carries."""
    connection = await _reach(url)
    try:
        if not os.environ.get(SUPERVISED):  # under `jobyard dev` nobody counts processes
            await _tell_connections(connection, connections)
        if not await migrating.is_current(connection):
            raise StartError(
                f"the schema of {without_password(url)} is older than this release; run `make migrate` "
                "(or `jobyard migrate`) first"
            )
        return await passes_pooler(connection)
    finally:
        await connection.close()


async def _tell_connections(connection: asyncpg.Connection[asyncpg.Record], each: int) -> None:
    usable = await connection.fetchval(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    )
    telemetry.info(LogEvent.CONNECTIONS, each=each, usable=usable, processes_carried=usable // each)


async def _reach(url: str) -> asyncpg.Connection[asyncpg.Record]:
    try:
        return await connect(url, hot=False, name="jobyard")
    except (*GONE, asyncpg.PostgresError, ValueError) as trouble:
        raise StartError(
            f"cannot reach PostgreSQL at {without_password(url)} ({why(trouble)}); check DATABASE_URL and that the "
            "server is running"
        ) from trouble


def _database(settings: Settings) -> str:
    if settings.database_url is None:
        raise StartError(
            "DATABASE_URL is not set; set it to your PostgreSQL, or run `jobyard dev`, which brings its own"
        )
    return settings.database_url


def _direct(settings: Settings) -> str:
    """The address of workers and maintainers, whose planner settings and listener pass no transaction pooler."""
    return settings.direct_url or _database(settings)


def _is_pooled(settings: Settings, *, found: bool) -> bool:
    """Whether the direct address passes a pooler all the same, as was said or `found`; then that is told: it works, and
    less well."""
    pooled = found or (settings.pooler is not None and settings.database_direct_url is None)
    if pooled:
        telemetry.warning(LogEvent.POOLER)
    return pooled
