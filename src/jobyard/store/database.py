"""Connections to PostgreSQL, and what their trouble means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import asyncpg

from jobyard.config import without_password
from jobyard.domain.errors import DatabaseUnavailable
from jobyard.servers import WatchedConnection, connected
from jobyard.telemetry import metrics

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Pool, Connection = asyncpg.Pool, asyncpg.Connection

R = TypeVar("R")

HOT_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""For connections that run only our own hot statements: a plan made on empty tables stays right on full ones."""

MINIMUM_SERVER = 150000
STATEMENTS_KEPT = 200
CONNECT_TIMEOUT_SECONDS = 10.0
COMMAND_TIMEOUT_SECONDS = 30.0
TRANSIENT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""The server undid the whole transaction: doing it again is safe."""

GONE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""The database, or the way to it, is gone: nothing is known of the statement's fate."""


class PlainConnection(WatchedConnection):
    """A connection that is not reset between uses: our statements leave no session state behind, and the reset
    would cost a round trip each time."""

    def get_reset_query(self) -> str:
        return ""


async def open_pool(
    url: str,
    *,
    size: int,
    hot: bool,
    pooler: bool = False,
    name: str = "jobyard",
    command_timeout: float = COMMAND_TIMEOUT_SECONDS,
) -> Pool:
    """A pool of at most `size` connections, opened one at a time as they are needed.

    `hot`: planner settings for our own hot statements; they need a direct address, since a transaction pooler
    drops them. `pooler`: the address passes a transaction pooler, so no prepared statement outlives its use.
    """
    settings = {"application_name": name} | (HOT_SETTINGS if hot and not pooler else {})
    pool = asyncpg.create_pool(
        url,
        connect=cast("Any", connected),  # of its many arguments we give these few
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=0 if hot else 300,
        timeout=min(CONNECT_TIMEOUT_SECONDS, command_timeout),
        command_timeout=command_timeout,
        statement_cache_size=0 if pooler else STATEMENTS_KEPT,
        max_cached_statement_lifetime=0,
        connection_class=PlainConnection,
        server_settings=settings,
    )
    await pool
    return pool


async def connect(url: str, *, hot: bool, name: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection of its own, for those that must not wait for a pool. One that is not `hot` may pass a transaction
    pooler."""
    return await connected(
        url,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        statement_cache_size=STATEMENTS_KEPT if hot else 0,
        max_cached_statement_lifetime=0,
        connection_class=PlainConnection,
        server_settings={"application_name": name} | (HOT_SETTINGS if hot else {}),
    )


@asynccontextmanager
async def borrowed(pool: Pool, timeout: float) -> AsyncGenerator[Connection]:
    """A connection of the pool. Trouble on the way or during its use is raised as DatabaseUnavailable."""
    try:
        connection = await _acquired(pool, timeout)
        try:
            yield connection
        finally:
            await pool.release(connection)
    except GONE as trouble:
        raise DatabaseUnavailable(why(trouble)) from trouble


async def _acquired(pool: Pool, timeout: float) -> PoolConnectionProxy[asyncpg.Record]:
    """Raises DatabaseUnavailable for whatever a server refuses a connection with: that it starts, is full, or takes none to
    this database for now."""
    metrics.POOL_WAITING.add(1)
    try:
        return await pool.acquire(timeout=timeout)
    except asyncpg.PostgresError as refusal:
        raise DatabaseUnavailable(why(refusal)) from refusal
    finally:
        metrics.POOL_WAITING.add(-1)


def show_pool(pool: Pool) -> None:
    """As metrics: how much of the pool is in use."""
    idle = pool.get_idle_size()
    metrics.POOL.replace({("used",): pool.get_size() - idle, ("idle",): idle})
    metrics.POOL_LIMIT.set(pool.get_max_size())


def why(trouble: BaseException) -> str:
    """One line for people: the server's or the system's own words, never an address with a password."""
    return f"{type(trouble).__name__}: {trouble}" if str(trouble) else type(trouble).__name__


async def repeated_when_transient(action: Callable[[], Awaitable[R]], *, tries: int = 5) -> R:
    """The action's answer, done again when the server undid it for a deadlock or a serialization failure."""
    for left in range(tries - 1, -1, -1):
        try:
            return await action()
        except TRANSIENT:
            if not left:
                raise
    raise AssertionError("unreachable")


async def require_supported_server(connection: Connection, url: str) -> None:
    version = connection.get_server_version()
    if version.major < MINIMUM_SERVER // 10000:
        raise DatabaseUnavailable(
            f"{without_password(url)} is PostgreSQL {version.major}; Jobyard needs {MINIMUM_SERVER // 10000} or newer"
        )


async def passes_pooler(connection: Connection) -> bool:
    """Whether something stands between that lends sessions out: it gave us another number than the session has."""
    return connection.get_server_pid() != await connection.fetchval("SELECT pg_backend_pid()")


def values(records: list[Any], column: str) -> list[Any]:
    return [record[column] for record in records]
