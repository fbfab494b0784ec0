"""The database that is examined: its addresses, and a connection to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from jobyard.config import Settings, without_password
from jobyard.process import FAILED, StartError
from jobyard.store.database import GONE, Connection, connect, why
from jobyard.store.embedded import EmbeddedPostgres


@dataclass(frozen=True, slots=True)
class Patient:
    """`url`: what the API uses. `direct_url`: what workers, maintainers and listeners use."""

    settings: Settings
    connection: Connection
    url: str
    direct_url: str


@asynccontextmanager
async def reached(settings: Settings) -> AsyncGenerator[Patient]:
    """The database of DATABASE_URL or, without one, that of `jobyard dev` on this machine. Raises StartError."""
    own = settings.database_url is None
    url = settings.database_url or EmbeddedPostgres(settings.home).url("jobyard")
    direct_url = settings.direct_url or url
    try:
        connection = await connect(direct_url, hot=False, name="jobyard doctor")
    except (*GONE, asyncpg.PostgresError, ValueError) as trouble:
        raise StartError(_unreachable(direct_url, settings.home if own else None, why(trouble))) from trouble
    try:
        yield Patient(settings, connection, url, direct_url)
    finally:
        connection.terminate()


async def on_patient(settings: Settings, act: Callable[[Patient], Awaitable[int]]) -> int:
    """The exit code of `act`, or that of a database that cannot be reached, told in one sentence."""
    try:
        async with reached(settings) as patient:
            return await act(patient)
    except StartError as unreachable:
        sys.stderr.write(f"jobyard: {unreachable}\n")
        return FAILED


def _unreachable(url: str, home: Path | None, trouble: str) -> str:
    if home:
        return (
            f"DATABASE_URL is not set, and no PostgreSQL of `jobyard dev` runs in {home}; set DATABASE_URL to the "
            "database to look at, set JOBYARD_HOME to the folder that `jobyard dev` was started with, or start it"
        )
    return f"cannot reach PostgreSQL at {without_password(url)} ({trouble}); check the address and that the server runs"
