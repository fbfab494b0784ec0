"""Signals: the first drains, the second ends at once; and no process outlives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from processes.program import COMMAND, environment, free_port, program
from worker.yard import Yard, until

ENDS_WITHIN_SECONDS = 9.0


def settings(yard: Yard, folder: Path, port: int) -> dict[str, str]:
    return {"DATABASE_URL": yard.url, "JOBYARD_HOME": str(folder), "JOBYARD_HEALTH_PORT": str(port)}


async def is_ready(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
        except httpx.HTTPError:
            return False


@pytest.mark.parametrize("command", ["worker", "maintain"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_an_idle_process_is_ready_and_ends_well_when_told(
    yard: Yard, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    port = free_port()
    with program(tmp_path, command, **settings(yard, tmp_path, port)) as process:
        await until(lambda: is_ready(port), "it is ready", 30)
        code, seconds = await process.end_after(number)
        assert code == 0, process.said
        assert seconds < 2 * ENDS_WITHIN_SECONDS
        assert "Traceback" not in process.said
    assert await yard.count("worker") == 0


async def test_a_second_signal_ends_it_at_once(yard: Yard, tmp_path: Path) -> None:
    await yard.add("hold")
    port = free_port()
    with program(
        tmp_path,
        "worker",
        "--app",
        "dangerous_jobs",
        JOBYARD_GRACE_SECONDS="60",
        **settings(yard, tmp_path, port),
    ) as process:
        await until(lambda: yard.count("active"), "the job runs", 30)
        process.tell(signal.SIGTERM)
        await until(lambda: "worker.draining" in process.said, "it drains")
        code, seconds = await process.end_after(signal.SIGTERM)
        assert code == 128 + signal.SIGTERM
        assert seconds < 5


@pytest.mark.parametrize("command", ["worker", "maintain"])
@pytest.mark.parametrize("by", ["the end of its input", "a signal"])
async def test_a_supervised_process_ends_well(yard: Yard, tmp_path: Path, command: str, by: str) -> None:
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, command],
        env=environment(JOBYARD_SUPERVISED="1", **settings(yard, tmp_path, port)),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stderr
    try:
        await until(lambda: is_ready(port), "it is ready", 30)
        if by == "a signal":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        await until(lambda: process.poll() is not None, "it ends", 2 * ENDS_WITHIN_SECONDS)
        assert process.returncode == 0
        assert b"Fatal" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stderr.close()


async def test_no_process_of_dev_outlives_a_supervisor_that_was_killed(yard: Yard, tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, "dev", DATABASE_URL=yard.url, JOBYARD_HOME=str(tmp_path), PORT=str(port)) as dev:
        await until(lambda: is_ready(port), "it is ready", 30)
        children = [pid for pid in pids() if parent_of(pid) == dev.pid]
        assert len(children) == 3
        dev.tell(signal.SIGKILL)
        await dev.end()
    await until(lambda: not [pid for pid in children if runs(pid)], "all ended", 2 * ENDS_WITHIN_SECONDS)


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - only the names are wanted


def fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none for no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int | None:
    return int(fields(pid)[1]) if fields(pid) else None


def runs(pid: int) -> bool:
    return fields(pid)[:1] not in ([], ["Z"])
