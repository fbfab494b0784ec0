"""Migrations: each once, by any number of processes, never another text, and never in the way of traffic for long."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from jobyard.domain.errors import DatabaseUnavailable
from jobyard.store import database as db
from jobyard.store import migrate as module
from jobyard.store.migrate import MigrationError, is_current, migrate, migrations


@pytest.fixture
async def empty(server: Callable[[str], str]) -> AsyncIterator[str]:
    """The address of a database that nobody has migrated."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    connection = await asyncpg.connect(server("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    yield server(name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def fresh(empty: str) -> AsyncIterator[db.Connection]:
    connection = await db.connect(empty, hot=False, name="test")
    yield connection
    await connection.close()


def next_file(folder: Path, name: str) -> Path:
    """The file of the migration that would come next."""
    return folder / f"{len(list(folder.iterdir())) + 1:04d}_{name}.sql"


def edit(migration: Path) -> None:
    migration.write_text(migration.read_text() + "\n-- edited")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of migrations of a release to come, which starts as a copy of ours."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for migration in migrations():
        (folder / f"{migration.number:04d}_{migration.name}.sql").write_text(migration.sql)
    monkeypatch.setattr(module, "files", lambda _package: tmp_path)
    return folder


async def tables(connection: db.Connection) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'jobyard'")
    return {row["tablename"] for row in rows}


async def test_an_empty_database_gets_every_migration_and_a_current_one_none(fresh: db.Connection):
    assert not await is_current(fresh)
    assert await migrate(fresh) == migrations()
    assert await is_current(fresh)
    before = await tables(fresh)
    assert await migrate(fresh) == []
    assert await tables(fresh) == before > {"job", "ready", "active", "scheduled", "done"}


async def test_four_processes_at_once_migrate_once(empty: str):
    connections = [await db.connect(empty, hot=False, name="test") for _ in range(4)]
    applied = await asyncio.gather(*map(migrate, connections))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]
    for connection in connections:
        await connection.close()


async def test_a_later_release_applies_only_what_is_new(fresh: db.Connection, release: Path):
    await migrate(fresh)
    next_file(release, "more").write_text("CREATE TABLE jobyard.more ()")
    assert not await is_current(fresh)
    assert [migration.name for migration in await migrate(fresh)] == ["more"]
    assert "more" in await tables(fresh)


async def test_a_migration_that_fails_leaves_nothing_of_its_run(fresh: db.Connection, release: Path):
    next_file(release, "more").write_text("CREATE TABLE jobyard.more ()")
    next_file(release, "wrong").write_text("CREATE TABLE jobyard.wrong (); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(fresh)
    assert await tables(fresh) == set()


async def test_a_migration_that_was_edited_after_it_landed_is_refused(fresh: db.Connection, release: Path):
    await migrate(fresh)
    edit(release / "0001_jobs.sql")
    next_file(release, "more").write_text("CREATE TABLE jobyard.more ()")
    with pytest.raises(MigrationError, match="0001_jobs was applied from another text"):
        await migrate(fresh)
    assert "more" not in await tables(fresh)


@pytest.mark.parametrize("name", ["9999_gap.sql", "0001_double.sql"])
async def test_numbers_with_a_gap_or_a_double_are_refused(release: Path, name: str):
    (release / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match="a gap or a double"):
        migrations()


async def test_a_lock_that_is_held_too_long_is_told_with_what_to_do(
    fresh: db.Connection, empty: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.1)
    other = await db.connect(empty, hot=False, name="test")
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", module._ADVISORY_LOCK)
        with pytest.raises(MigrationError, match=r"nothing was changed\. Look for long transactions"):
            await migrate(fresh)
    assert await tables(fresh) == set()
    assert await migrate(fresh) == migrations()
    await other.close()


async def test_a_migration_gives_up_on_a_table_that_a_long_transaction_holds(
    fresh: db.Connection, empty: str, release: Path, monkeypatch: pytest.MonkeyPatch
):
    await migrate(fresh)
    next_file(release, "more").write_text("ALTER TABLE jobyard.job ADD COLUMN more int")
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.1)
    other = await db.connect(empty, hot=False, name="test")
    async with other.transaction():
        await other.execute("SELECT FROM jobyard.job")
        with pytest.raises(MigrationError, match="held a lock"):
            await migrate(fresh)
    await other.close()
    assert not await is_current(fresh)


async def test_the_view_for_people_is_made_where_its_name_is_free(fresh: db.Connection):
    await migrate(fresh)
    assert (
        await fresh.fetch("SELECT id, type, payload, status, created_at, updated_at FROM public.jobs") == []
    )


async def test_a_table_of_the_user_s_own_called_jobs_is_left_alone(fresh: db.Connection):
    await fresh.execute("CREATE TABLE public.jobs (mine int); INSERT INTO public.jobs VALUES (7)")
    await migrate(fresh)
    assert await fresh.fetchval("SELECT mine FROM public.jobs") == 7


async def test_a_server_that_is_too_old_is_refused_without_its_password(
    fresh: db.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(db, "MINIMUM_SERVER", 990000)
    with pytest.raises(DatabaseUnavailable, match="Jobyard needs 99 or newer") as refusal:
        await migrate(fresh, "postgresql://me:secret@host/db")
    assert "secret" not in str(refusal.value)
    assert await tables(fresh) == set()
