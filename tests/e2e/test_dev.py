"""`jobyard dev` keeps all of it running."""

from __future__ import annotations

import json
import os
import signal

import httpx
from server_process import Running, eventually, running_dev

from processes.program import free_port


def create(running: Running, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(
        f"{running.url}/api/jobs",
        json={"type": "email", "payload": {"to": "user@example.com"}},
        headers=headers,
        trust_env=False,
        timeout=30,
    )


def test_a_database_server_that_is_killed_comes_back_with_every_job_that_was_accepted() -> None:
    with running_dev() as running:
        accepted = [create(running).json()["id"] for _ in range(20)]
        postmaster = int((running.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)

        def works_again() -> bool:
            answer = create(running, {"Prefer": "wait=5"})
            assert answer.status_code in (200, 202, 503), answer.text
            return answer.status_code == 200 and answer.json()["status"] == "completed"

        eventually(works_again, "a job is run from end to end again", 60)

        def all_completed() -> bool:
            jobs = [httpx.get(f"{running.url}/api/jobs/{job}", trust_env=False).json() for job in accepted]
            return all(job["status"] == "completed" for job in jobs)

        eventually(all_completed, "every job accepted before the kill is completed", 30)


def test_ctrl_c_stops_all_processes_and_the_data_is_there_at_the_next_start() -> None:
    # One health port for several processes must not keep any of them from starting: the worker has it.
    health_port = free_port()
    with running_dev(JOBYARD_HEALTH_PORT=str(health_port)) as running:
        done = create(running, {"Prefer": "wait=10"}).json()
        assert done["status"] == "completed"
        metrics = httpx.get(f"http://127.0.0.1:{health_port}/metrics", trust_env=False).text
        assert "\njobyard_worker_slots 16" in metrics
        worker = running.pid_of("worker")
        assert worker is not None
        assert running.stop() == 0
        assert "starting it again" not in running.output.read_text()
        for role in ("api", "worker", "maintain"):
            assert running.pid_of(role) is None
        assert not (running.home / "postgres" / "data" / "postmaster.pid").exists()
        with running_dev(JOBYARD_HOME=str(running.home)) as again:
            found = json.loads(again.cli("get", done["id"], "--json").stdout)
            assert found["status"] == "completed"
            mail = running.home / "outbox" / f"{done['id']}.eml"
            assert "user@example.com" in mail.read_text()
