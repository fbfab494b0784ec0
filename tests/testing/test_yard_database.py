"""A yard has a database of its own, and harms no other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from jobyard.testing import Yard, YardError

Server = Callable[[str], str]


def sql(url: str, statement: str) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(ask())


def name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def exists(server: Server, name: str) -> bool:
    return sql(server("postgres"), f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == 1


@pytest.fixture
def given(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """JOBYARD_TEST_DATABASE_URL: a database with tables of ours, as if it were a user's own."""
    monkeypatch.setenv("JOBYARD_TEST_DATABASE_URL", database)
    return database


def test_the_database_that_is_named_is_never_written_to(given: str) -> None:
    sql(given, "INSERT INTO jobyard.lane (tenant, priority, suspect, queue, type) VALUES (1, 5, 0, 'q', 't')")
    with Yard() as yard:
        yard.create("email", {"to": "ada@example.com"})
        yard.reset()
    assert sql(given, "SELECT count(*) FROM jobyard.job") == 0
    assert sql(given, "SELECT count(*) FROM jobyard.lane") == 1
    assert sql(given, "SELECT to_regnamespace('jobyard_testing')") is None


def test_a_yard_leaves_no_database_behind(given: str, server: Server) -> None:
    with Yard() as yard:
        name = name_of(yard.database_url)
        assert exists(server, name)
    assert not exists(server, name)


def test_what_a_killed_run_left_is_dropped_by_the_next(given: str, server: Server) -> None:
    run = (
        "from jobyard.testing import Yard\nwith Yard() as yard: print(yard.database_url, flush=True); input()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    name = name_of(next(line for line in running.stdout if "://" in line).strip())
    with Yard():
        assert exists(server, name), "it lives: nobody else may drop it"
    running.kill()
    running.communicate()
    assert exists(server, name)
    with Yard():
        assert not exists(server, name)


def test_a_database_that_only_looks_like_ours_is_left_alone(given: str, server: Server) -> None:
    sql(given, "CREATE DATABASE jobyard_testing_of_somebody")
    try:
        with Yard():
            pass
        assert exists(server, "jobyard_testing_of_somebody")
    finally:
        sql(given, "DROP DATABASE jobyard_testing_of_somebody")


@contextmanager
def user_without_rights(given: str, name: str, rights: str = "") -> Iterator[str]:
    """Its address of the given database."""
    sql(given, f"CREATE ROLE {name} LOGIN PASSWORD 'of {name}' {rights}")
    try:
        parts = urlsplit(given)
        netloc = f"{name}:of%20{name}@{parts.netloc.rpartition('@')[2]}"
        yield urlunsplit(parts._replace(netloc=netloc))
    finally:
        sql(given, f"DROP ROLE {name}")


def test_a_user_who_may_make_no_database_is_told_how_to_allow_it(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with user_without_rights(given, "jobyard_guest") as url:
        monkeypatch.setenv("JOBYARD_TEST_DATABASE_URL", url)
        with pytest.raises(YardError, match="run `ALTER ROLE jobyard_guest CREATEDB` as a superuser"):
            Yard().open()


def test_the_right_to_make_databases_is_enough_and_a_search_path_of_the_user_stops_no_clock(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with user_without_rights(given, "jobyard_maker", "CREATEDB") as url:
        sql(given, "ALTER ROLE jobyard_maker SET search_path = public")
        monkeypatch.setenv("JOBYARD_TEST_DATABASE_URL", url)
        with Yard() as yard:
            before = yard.now()
            yard.travel(3600)
            assert (yard.now() - before).total_seconds() >= 3600


def test_a_server_that_is_not_there_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_TEST_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/db")
    with pytest.raises(YardError, match=r"cannot reach PostgreSQL at postgresql://me:\*\*\*@127.0.0.1:1/db"):
        Yard().open()


def test_a_module_that_is_not_there_is_told_and_nothing_stays_open(given: str) -> None:
    before = threading.active_count()
    with pytest.raises(YardError, match="there is no module 'no_such_module'"):
        Yard(app="no_such_module").open()
    assert threading.active_count() == before


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that the user PostgreSQL runs as can reach, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="jobyard-testing-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_without_an_address_an_embedded_postgres_apart_from_that_of_dev_is_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOBYARD_TEST_DATABASE_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/production")
    monkeypatch.setenv("JOBYARD_HOME", str(home))
    with Yard() as yard:
        yard.create("email", {"to": "ada@example.com"})
        assert [job.status for job in yard.run_until_idle()] == ["completed"]
    assert [entry.name for entry in home.iterdir()] == ["testing"]
