"""Schema migrations: numbered SQL files, each applied once, under a lock, and never edited after it has landed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from jobyard.store.database import Connection, require_supported_server

LOCK_TIMEOUT_SECONDS = 10
"""A migration gives up rather than queue behind a long transaction with all traffic queueing behind it."""

_ADVISORY_LOCK = 0x6A6F6279617264
_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")

_HISTORY = """
CREATE SCHEMA IF NOT EXISTS jobyard;
CREATE TABLE IF NOT EXISTS jobyard.migration (
    number int PRIMARY KEY, name text NOT NULL, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
"""


class MigrationError(Exception):
    """The schema could not be brought up to date; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All there are, in order; their numbers run from 1 without a gap."""
    found: list[Migration] = []
    for entry in files("jobyard.store").joinpath("migrations").iterdir():
        if match := _FILE.match(entry.name):
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError("the numbers of the migration files have a gap or a double")
    return found


async def migrate(connection: Connection, url: str = "") -> list[Migration]:
    """Apply what is missing and return it. Safe to call from any number of processes at once."""
    await require_supported_server(connection, url)
    try:
        # Held by the transaction, so that it also works through a transaction pooler and cannot outlive a crash.
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
            await connection.execute(_HISTORY)
            missing = await _missing(connection)
            for migration in missing:
                await _apply(connection, migration)
            return missing
    except asyncpg.LockNotAvailableError as held:
        raise MigrationError(
            f"another session held a lock on the tables for more than {LOCK_TIMEOUT_SECONDS} s; nothing was changed. "
            "Look for long transactions in pg_stat_activity, then run the migration again."
        ) from held


async def is_current(connection: Connection) -> bool:
    """Whether the database has every migration of this release."""
    if await connection.fetchval("SELECT to_regclass('jobyard.migration')") is None:
        return False
    applied = await connection.fetchval("SELECT max(number) FROM jobyard.migration")
    return (applied or 0) >= len(migrations())


async def history(connection: Connection) -> tuple[int, list[Migration]]:
    """How many migrations the database has, and which of this release's it has not. Raises MigrationError where one
    was applied from another text."""
    if await connection.fetchval("SELECT to_regclass('jobyard.migration')") is None:
        return 0, migrations()
    applied = await connection.fetchval("SELECT count(*) FROM jobyard.migration")
    return applied, await _missing(connection)


async def _missing(connection: Connection) -> list[Migration]:
    applied = {
        row["number"]: row["digest"] for row in await connection.fetch("SELECT * FROM jobyard.migration")
    }
    known = migrations()
    for migration in known:
        if applied.get(migration.number, migration.digest) != migration.digest:
            raise MigrationError(
                f"migration {migration.number:04d}_{migration.name} was applied from another text than this release "
                "has; restore the release that made this database, or a database that this release made"
            )
    return [migration for migration in known if migration.number not in applied]


async def _apply(connection: Connection, migration: Migration) -> None:
    await connection.execute(migration.sql)
    await connection.execute(
        "INSERT INTO jobyard.migration (number, name, digest) VALUES ($1, $2, $3)",
        migration.number,
        migration.name,
        migration.digest,
    )
