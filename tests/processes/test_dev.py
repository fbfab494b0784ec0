"""`jobyard dev`: everything on this machine, from one command."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import httpx

from processes.program import Program, free_port, program, run
from processes.test_ends import parent_of, pids, runs
from worker.yard import until

ENDS_WITHIN_SECONDS = 9.0


def role_pids(dev: Program) -> dict[str, int]:
    """The supervisor's children by role."""
    children = (pid for pid in pids() if parent_of(pid) == dev.pid and runs(pid))
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
    # Of one that has just ended nothing is left to read.
    return {line[3].decode(): pid for pid, line in lines.items() if len(line) > 3}


def left_in(home: Path) -> list[int]:
    """Processes that hold files of this home open, or were started for it."""
    return [pid for pid in pids() if runs(pid) and pid != os.getpid() and _is_of(pid, home)]


def _is_of(pid: int, home: Path) -> bool:
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        return bytes(home) in told
    except OSError:
        return False


async def answers(url: str, path: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(url + path)).is_success
        except httpx.HTTPError:
            return False


async def completed(url: str, type: str, payload: object) -> None:
    """Create a job over HTTP and see it completed."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        created = await client.post("/api/jobs", json={"type": type, "payload": payload})
        assert created.status_code == 202, created.text
        job = created.json()["id"]

        async def is_completed() -> bool:
            return (await client.get(f"/api/jobs/{job}")).json()["status"] == "completed"

        await until(is_completed, "the job is completed", 30)


async def test_it_starts_all_tells_how_to_use_it_starts_again_what_dies_and_leaves_nothing_but_the_data(
    home: Path, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    # Options of the command line reach the processes that it starts.
    options = ("--port", str(port), "--app", "dangerous_jobs", "--concurrency", "3")
    # The same port for health checks, as in the container image, is the API's.
    settings = {"JOBYARD_HEALTH_PORT": str(port), "JOBYARD_LEASE_SECONDS": "2"}
    with program(tmp_path, "dev", *options, JOBYARD_HOME=str(home), **settings) as dev:
        await until(lambda: "Jobyard is ready" in dev.said or dev.over, "it greets", 60)
        assert not dev.over, dev.said
        assert await answers(url, "/readyz")
        assert f"curl -X POST {url}/api/jobs" in dev.said
        assert str(home / "postgres") in dev.said
        assert "Ctrl-C (the data stays)" in dev.said
        assert sorted(role_pids(dev)) == ["api", "maintain", "worker"]
        await completed(url, "neighbour", {})

        second = run("dev", "--port", str(port), JOBYARD_HOME=str(home))
        assert second.returncode == 1
        assert f"Jobyard runs already at {url}" in second.stderr
        assert len(second.stderr.splitlines()) == 1

        killed = role_pids(dev)["worker"]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: role_pids(dev).get("worker", killed) != killed, "another worker runs")
        await completed(url, "neighbour", {})

        assert left_in(home)
        code, seconds = await dev.end_after(signal.SIGINT)
        assert code == 0, dev.said
        assert seconds < 2 * ENDS_WITHIN_SECONDS
        assert "Traceback" not in dev.said
    assert left_in(home) == []
    assert (home / "postgres" / "data" / "PG_VERSION").exists()


async def test_a_port_that_another_program_holds_is_told(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run("dev", PORT=str(port), JOBYARD_HOME=str(home))
    assert ended.returncode == 1
    [said] = ended.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "set PORT to a free one" in said
    assert not (home / "postgres").exists()


async def test_ctrl_c_while_it_starts_ends_it_too(home: Path, tmp_path: Path) -> None:
    with program(tmp_path, "dev", PORT=str(free_port()), JOBYARD_HOME=str(home)) as dev:
        await until(lambda: (home / "postgres").exists(), "it has begun", 30)
        code, _ = await dev.end_after(signal.SIGINT)
        assert code == 0, dev.said
        assert "Traceback" not in dev.said
    assert left_in(home) == []


def test_a_process_that_never_starts_well_ends_the_whole_with_its_reason(home: Path, database: str) -> None:
    ended = run(
        "dev",
        "--app",
        "no_such_module",
        seconds=60,
        PORT=str(free_port()),
        JOBYARD_HOME=str(home),
        DATABASE_URL=database,
    )
    assert ended.returncode == 1
    assert "there is no module 'no_such_module'" in ended.stderr
    assert "the worker process ended before it had started" in ended.stderr.splitlines()[-1]
    assert ended.stderr.count("there is no module") == 1, "it is not tried again"
    assert left_in(home) == []
