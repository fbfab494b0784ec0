"""The life of the embedded PostgreSQL: first start, joining, sharing, leaving."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from embedded_help import (
    FAST,
    SERVER_UID,
    Member,
    fetch,
    is_alive,
    kill_server,
    output_of,
    pids_of_server,
    postmasters_of,
    until,
    value,
)

from jobyard.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from jobyard.store.embedded import server as embedded
from jobyard.store.embedded.lock import held_alone, is_held
from jobyard.store.embedded.programs import find_programs

LOCKS = ("start.lock", "users.lock", "server.lock")


async def test_a_first_start_makes_a_durable_utf8_database_and_says_what_takes_long(home: Path) -> None:
    said: list[str] = []
    above = [(path.stat().st_mode, path.stat().st_uid) for path in home.parents]
    with EmbeddedPostgres(home, say=said.append) as postgres:
        (database,) = await fetch(
            postgres.url("jobyard"),
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text FROM pg_database "
            "WHERE datname = current_database()",
        )
        settings = dict(await fetch(postgres.url("jobyard"), "SELECT name, setting FROM pg_settings"))
    assert tuple(database) == ("UTF8", "C", "C", "c")
    assert settings["listen_addresses"] == ""
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on",) * 3
    assert (settings["wal_level"], settings["max_connections"]) == ("replica", "200")
    assert settings["server_version"].split()[0] == postgres.version
    assert [sentence for sentence in said if str(postgres.data) in sentence]
    assert [(path.stat().st_mode, path.stat().st_uid) for path in home.parents] == above


async def test_the_address_opens_the_database_for_asyncpg_and_psql_alike(used_home: Path) -> None:
    who = "SELECT current_database() || ' of ' || current_user"
    postgres = EmbeddedPostgres(used_home, settings=FAST)
    address = postgres.start()
    try:
        by_asyncpg = await value(address, who)
        by_psql = output_of([find_programs().path("psql"), address, "-XAtc", who])
    finally:
        postgres.stop()
    assert by_asyncpg == by_psql.strip() == "jobyard of jobyard"


async def test_a_later_user_joins_the_server_that_runs(used_home: Path) -> None:
    born = "SELECT pg_postmaster_start_time()"
    with EmbeddedPostgres(used_home, settings=FAST) as first, EmbeddedPostgres(used_home) as second:
        assert second.pid == first.pid
        assert await value(first.url("jobyard"), born) == await value(second.url("jobyard"), born)


def test_starting_twice_is_being_one_user(used_home: Path) -> None:
    postgres = EmbeddedPostgres(used_home, settings=FAST)
    assert postgres.start() == postgres.start()
    postgres.stop()
    assert postmasters_of(postgres.data) == []


def test_who_never_started_has_nothing_to_stop(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        EmbeddedPostgres(used_home).stop()
        assert postmasters_of(postgres.data) == [postgres.pid]


async def test_the_data_outlives_the_server(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        await fetch(postgres.url("jobyard"), "CREATE TABLE kept AS SELECT 7 AS number")
        before = postgres.pid
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        assert postgres.pid != before
        assert await value(postgres.url("jobyard"), "SELECT number FROM kept") == 7


async def test_a_dropped_database_is_made_anew(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        await fetch(postgres.url("postgres"), "DROP DATABASE jobyard")
        with EmbeddedPostgres(used_home) as later:
            assert await value(later.url("jobyard"), "SELECT current_database()") == "jobyard"


def test_stop_leaves_no_process_no_socket_and_no_lock(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        processes = pids_of_server(postgres.data)
        assert len(processes) > 3
        assert list(postgres.socket_folder.iterdir())
    assert [pid for pid in processes if is_alive(pid)] == []
    assert list(postgres.socket_folder.iterdir()) == []
    assert [name for name in LOCKS if is_held(postgres.folder / name)] == []
    assert postgres.pid is None


async def test_stop_does_not_wait_for_connections_left_open(used_home: Path) -> None:
    postgres = EmbeddedPostgres(used_home, settings=FAST)
    forgotten = await asyncpg.connect(postgres.start())
    postgres.stop()
    assert postmasters_of(postgres.data) == []
    forgotten.terminate()


async def test_eight_processes_that_start_at_once_share_one_server_until_the_last_leaves(
    used_home: Path, new_member: Callable[..., Member]
) -> None:
    members = [new_member(used_home) for _ in range(8)]
    postmasters = {int(member.hears()) for member in members}
    shared = EmbeddedPostgres(used_home)
    assert len(postmasters) == 1
    for member in members[:7]:
        member.stop()
    assert await value(shared.url("jobyard"), "SELECT 1") == 1
    members[7].stop()
    assert postmasters_of(shared.data) == []


async def test_a_server_outlives_its_killed_starter_and_the_next_start_joins_it(
    used_home: Path, new_member: Callable[..., Member]
) -> None:
    starter = new_member(used_home)
    started = int(starter.hears())
    assert os.getsid(started) != os.getsid(starter.process.pid)
    starter.kill()
    with EmbeddedPostgres(used_home) as postgres:
        assert postgres.pid == started
        assert await value(postgres.url("jobyard"), "SELECT 1") == 1
    # The killed starter is no user any more, so this was the last one.
    assert not is_alive(started)


def test_a_database_half_made_by_a_killed_start_is_swept(
    home: Path, new_member: Callable[..., Member]
) -> None:
    starter = new_member(home)
    half_made = home / "postgres" / "data.half-made"
    until((half_made / "base").exists, "initdb is under way")
    starter.kill()
    assert not (home / "postgres" / "data").exists()
    with EmbeddedPostgres(home, settings=FAST) as postgres:
        assert not half_made.exists()
        assert postmasters_of(postgres.data) == [postgres.pid]


def test_a_database_that_cannot_be_made_leaves_nothing_and_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = home / "bin"
    programs.mkdir()
    (programs / "postgres").symlink_to(find_programs().path("postgres"))
    (programs / "initdb").write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    monkeypatch.setenv("PG_BIN", str(programs))
    postgres = EmbeddedPostgres(home)
    with pytest.raises(EmbeddedPostgresError, match="the disk is full"):
        postgres.start()
    assert [path.name for path in postgres.folder.iterdir() if path.name.startswith("data")] == []
    assert [name for name in LOCKS if is_held(postgres.folder / name)] == []


def test_a_server_that_cannot_start_shows_the_end_of_its_log_and_can_be_started_once_mended(
    used_home: Path,
) -> None:
    with pytest.raises(EmbeddedPostgresError, match="max_connections") as failure:
        EmbeddedPostgres(used_home, settings={"max_connections": "-1"}).start()
    mended = EmbeddedPostgres(used_home, settings=FAST)
    assert str(mended.log) in str(failure.value)
    assert [name for name in LOCKS if is_held(mended.folder / name)] == []
    with mended:
        assert postmasters_of(mended.data) == [mended.pid]


@pytest.mark.parametrize("name", ["n" * 120, "a, b 100% 'ü'"], ids=["long", "strange"])
async def test_a_home_whose_path_no_socket_can_carry_gets_a_short_socket_folder(
    home: Path, used_home: Path, name: str
) -> None:
    (home / name).mkdir()
    move_data(used_home, home / name)
    try:
        with EmbeddedPostgres(home / name, settings=FAST) as postgres:
            assert len(os.fsencode(postgres.socket_folder)) < 80
            assert postgres.socket_folder.stat().st_mode & 0o777 == 0o700
            assert postgres.socket_folder.stat().st_uid == SERVER_UID
            assert await value(postgres.url("jobyard"), "SHOW data_directory") == str(postgres.data)
        assert not postgres.socket_folder.exists()
    finally:
        move_data(home / name, used_home)


def move_data(of: Path, to: Path) -> None:
    kill_server(of)
    (of / "postgres").rename(to / "postgres")


def test_a_short_socket_folder_that_others_can_enter_is_not_used(home: Path) -> None:
    postgres = EmbeddedPostgres(home / ("n" * 120))
    postgres.socket_folder.mkdir()
    postgres.socket_folder.chmod(0o777)
    try:
        with pytest.raises(EmbeddedPostgresError, match=str(postgres.socket_folder)):
            postgres.start()
    finally:
        postgres.socket_folder.rmdir()


def test_a_log_that_has_grown_too_long_keeps_its_newest_part(used_home: Path) -> None:
    postgres = EmbeddedPostgres(used_home, settings=FAST)
    with postgres.log.open("wb") as log:
        log.write(b"old line\n" * 1_000_000 + b"newest line\n")
    with postgres:
        assert postgres.log.stat().st_size < 2 << 20
        kept = postgres.log.read_text()
    assert kept.startswith("old line\n")
    assert "newest line\n" in kept
    assert "ready to accept connections" in kept


def test_a_server_that_never_gets_ready_is_reported_after_a_while(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LONG_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(embedded, "PATIENCE_SECONDS", 0.2)
    said: list[str] = []
    postgres = EmbeddedPostgres(used_home, say=said.append)
    with (
        held_alone(postgres.folder / "server.lock"),
        pytest.raises(EmbeddedPostgresError, match="not ready after"),
    ):
        postgres.start()
    assert said == [f"Waiting for PostgreSQL; what it does stands in {postgres.log}."]
    assert not is_held(postgres.folder / "users.lock")


async def test_a_database_that_lets_nobody_in_is_reported(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        await fetch(postgres.url("postgres"), "ALTER DATABASE jobyard ALLOW_CONNECTIONS false")
        try:
            with pytest.raises(EmbeddedPostgresError, match="SQLSTATE 55000"):
                EmbeddedPostgres(used_home).start()
        finally:
            await fetch(postgres.url("postgres"), "ALTER DATABASE jobyard ALLOW_CONNECTIONS true")


def test_a_home_that_cannot_be_is_reported_with_its_place(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(
        EmbeddedPostgresError, match=f"The PostgreSQL in {home}/file/postgres could not be started"
    ):
        EmbeddedPostgres(home / "file").start()
