"""The embedded PostgreSQL under kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from embedded_help import (
    FAST,
    IS_ROOT,
    SERVER_UID,
    fetch,
    is_alive,
    kill_if_there,
    pids_of_server,
    postmasters_of,
    until,
    value,
)

from jobyard.store.embedded import EmbeddedPostgres, EmbeddedPostgresError

WRITERS = 6


class Writers:
    """Insert row after row over several connections, and note each row that the server has acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.busy = asyncio.Event()

    async def write_until_cut_off(self, address: str, writer: int) -> None:
        connection = await asyncpg.connect(address)
        try:
            for number in range(writer, 1_000_000, WRITERS):
                await connection.execute("INSERT INTO written VALUES ($1)", number)
                self.acknowledged.append(number)
                if len(self.acknowledged) == 500:
                    self.busy.set()
        # InternalClientError is asyncpg's word for a connection that was cut between two statements.
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            connection.terminate()


def kill_postmaster(data: Path) -> None:
    os.kill(postmasters_of(data)[0], signal.SIGKILL)


def kill_every_process(data: Path) -> None:
    for pid in pids_of_server(data):
        kill_if_there(pid)


@pytest.mark.parametrize("kill", [kill_postmaster, kill_every_process])
async def test_a_killed_server_loses_no_acknowledged_row(
    used_home: Path, kill: Callable[[Path], None]
) -> None:
    writers = Writers()
    with EmbeddedPostgres(used_home) as postgres:
        await fetch(postgres.url("jobyard"), "CREATE TABLE IF NOT EXISTS written (number bigint)")
        await fetch(postgres.url("jobyard"), "TRUNCATE written")
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for writer in range(WRITERS):
                tasks.create_task(writers.write_until_cut_off(postgres.url("jobyard"), writer))
            await writers.busy.wait()
            kill(postgres.data)
        with EmbeddedPostgres(used_home) as later:
            kept = {row["number"] for row in await fetch(later.url("jobyard"), "SELECT number FROM written")}
    assert set(writers.acknowledged) <= kept
    # Beyond them only what was on its way from each writer when the server died.
    assert len(kept) <= len(writers.acknowledged) + WRITERS


async def test_a_user_revives_the_server_that_died_under_it(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        before = postgres.pid
        kill_postmaster(postgres.data)
        address = postgres.start()
        assert postgres.pid != before
        assert await value(address, "SELECT 1") == 1
    assert postmasters_of(postgres.data) == []


def test_the_last_user_of_a_dead_server_leaves_without_complaint(used_home: Path) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        processes = pids_of_server(postgres.data)
        kill_postmaster(postgres.data)
    assert [pid for pid in processes if is_alive(pid)] == []


@pytest.fixture
def other_program() -> Iterator[int]:
    """The process id of a program of the server's user that is no PostgreSQL."""
    user: dict[str, Any] = {"user": SERVER_UID} if IS_ROOT else {}
    with subprocess.Popen(["sleep", "600"], cwd="/", **user) as program:
        yield program.pid
        program.kill()


async def test_a_dead_servers_process_id_that_another_program_has_now_is_not_believed(
    used_home: Path, other_program: int
) -> None:
    with EmbeddedPostgres(used_home, settings=FAST) as postgres:
        dead = postgres.pid
        assert dead is not None
        written = [postgres.data / "postmaster.pid", postgres.socket_folder / ".s.PGSQL.5432.lock"]
        kill_every_process(postgres.data)
        until(lambda: not is_alive(dead), "the server is dead")
        for file in written:
            file.write_text(file.read_text().replace(str(dead), str(other_program), 1))
        with EmbeddedPostgres(used_home, settings=FAST) as later:
            assert postmasters_of(later.data) == [later.pid]
            assert await value(later.url("jobyard"), "SELECT 1") == 1
    assert is_alive(other_program)


def test_a_server_whose_process_is_out_of_sight_is_not_stopped_by_its_number(
    used_home: Path, other_program: int
) -> None:
    """Two containers on one home see each other's locks and socket, and not each other's processes."""
    postgres = EmbeddedPostgres(used_home, settings=FAST)
    postgres.start()
    written = postgres.data / "postmaster.pid"
    truth = written.read_text()
    written.write_text(truth.replace(str(postgres.pid), str(other_program), 1))
    with pytest.raises(EmbeddedPostgresError, match="in another container"):
        postgres.stop()
    assert is_alive(other_program)
    written.write_text(truth)
    with EmbeddedPostgres(used_home) as later:
        assert postmasters_of(later.data) == [later.pid]
    assert postmasters_of(postgres.data) == []
