"""`jobyard watch` without a terminal, and on one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from contract_server import Cut, Yard, busy, problem
from pseudo_terminal import JOBYARD, on_terminal
from typer.testing import Result

Run = Callable[..., Result]
EVIL = "\x1b]0;title\x07\n"
ERROR = {"type": "LookupError", "message": "no customer 7\nat all"}


@pytest.fixture
def at_the_yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_URL", yard.url)


def test_each_change_of_a_job_is_a_line_and_its_end_is_the_exit_code(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email"})
    yard.changes.extend(
        [
            {"status": "processing", "attempt": 1},
            {"progress": {"percent": 40.0, "message": "step 4"}, "updatedAt": "2026-11-24T10:00:01.000000Z"},
            {"status": "failed", "reason": "exhausted", "error": ERROR, "run": 2},
        ]
    )
    result = run("watch", job_id)
    assert result.exit_code == 1
    assert [line.split(maxsplit=3)[2:] for line in result.stdout.splitlines()] == [
        [job_id, "pending     0 of 5 tries used"],
        [job_id, "processing  try 1 of 5"],
        [job_id, "processing  try 1 of 5  40 %, step 4"],
        [job_id, "failed      run 2, try 1 of 5, exhausted  LookupError: no customer 7"],
    ]
    assert f"jobyard attempts {job_id}\n" in result.stderr


def test_a_job_that_completes_is_exit_0(yard: Yard, run: Run) -> None:
    result = run("watch", yard.add({"type": "email"}))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "completed" in result.stdout


def test_a_job_that_nobody_could_run_is_told(yard: Yard, run: Run) -> None:
    nobody = "no worker runs type 'repot'"
    job_id = yard.add({"type": "repot"})
    assert nobody in run("watch", job_id).stderr
    yard.jobs[job_id]["status"] = "pending"
    assert nobody in run("get", job_id).stderr
    assert nobody not in run("get", job_id, "--json").stderr, "programs look at stdout alone"
    yard.rows["workers"][0]["types"] = ["repot"]
    assert nobody not in run("get", job_id).stderr
    yard.rows["workers"][0]["alive"] = False
    assert nobody in run("get", job_id).stderr


def test_json_is_the_whole_job_at_each_change(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "payload": EVIL, "status": "processing"})
    yard.changes.append({"status": "failed"})
    result = run("watch", job_id, "--json")
    jobs = [json.loads(line) for line in result.stdout.splitlines()]
    assert [job["status"] for job in jobs] == ["processing", "failed"]
    assert jobs[1] == yard.jobs[job_id]
    assert (result.exit_code, result.stderr) == (1, "")


def test_when_the_next_try_is_due_is_told(yard: Yard, run: Run) -> None:
    later = datetime.fromtimestamp(time.time() + 90.5, UTC).isoformat()
    job_id = yard.add({"type": "email", "attempt": 2, "runAt": later})
    assert "2 of 5 tries used, next in 1 min" in run("watch", job_id).stdout


def test_a_server_that_goes_away_is_waited_for_and_both_are_said_once(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "status": "completed"})
    yard.instead.extend([busy(), Cut(), busy()])
    result = run("watch", job_id)
    assert result.exit_code == 0
    gone, back = result.stderr.splitlines()
    assert "waiting for it to come back" in gone
    assert back == "the server is back"


def test_a_refusal_in_the_middle_ends_it(yard: Yard, run: Run) -> None:
    yard.instead.append(problem(401, "unauthenticated"))
    assert run("watch").exit_code == 1


def test_an_id_goes_without_filters(yard: Yard, run: Run) -> None:
    result = run("watch", "x", "--type", "email")
    assert (result.exit_code, yard.seen) == (2, [])


@contextmanager
def watching(*arguments: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*JOBYARD, "watch", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.usefixtures("at_the_yard")
def test_changes_of_all_that_fit_are_lines_until_ctrl_c(yard: Yard) -> None:
    first, second = (yard.add({"type": "email"}) for _ in range(2))
    yard.add({"type": "other"})
    with watching("--type", "email", "--json") as process:
        assert [json.loads(line_of(process))["id"] for _ in range(2)] == [first, second]
        yard.jobs[first]["status"] = "processing"
        third = yard.add({"type": "email"})
        found = [json.loads(line_of(process)) for _ in range(2)]
        assert {(job["id"], job["status"]) for job in found} == {(first, "processing"), (third, "pending")}
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=30)
    assert (process.returncode, complained) == (130, "")


@pytest.mark.usefixtures("at_the_yard")
def test_a_reader_that_goes_away_ends_it_quietly(yard: Yard) -> None:
    job_id = yard.add({"type": "email"})
    with watching() as process:
        assert job_id in line_of(process)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        yard.add({"type": "email"})
        assert process.stderr.read() == ""
        assert process.wait(30) == 1


@pytest.mark.usefixtures("at_the_yard")
def test_a_job_is_shown_live_until_it_ends(yard: Yard) -> None:
    job_id = yard.add({"type": f"email{EVIL}", "status": "processing", "attempt": 1})
    yard.changes.extend([{}] * 100)
    with on_terminal("watch", job_id) as terminal:
        terminal.until(job_id, "processing  try 1 of 5, for")
        yard.jobs[job_id] |= {"progress": EVIL, "attempt": 2}
        terminal.until("try 2 of 5", "progress")
        yard.instead.append(busy("1"))
        terminal.until("503 overloaded")
        yard.jobs[job_id] |= {
            "status": "failed",
            "reason": "exhausted",
            "error": {"type": EVIL, "message": "7"},
        }
        assert terminal.end() == 1
    assert "failed      try 2 of 5, exhausted" in terminal.said
    assert f"jobyard attempts {job_id}" in terminal.said
    assert "\x1b[31m" in terminal.written
    assert "\x1b]" not in terminal.written


@pytest.mark.usefixtures("at_the_yard")
def test_no_color_is_respected(yard: Yard) -> None:
    job_id = yard.add({"type": "email", "status": "failed"})
    with on_terminal("watch", job_id, NO_COLOR="1") as terminal:
        assert terminal.end() == 1
    assert "failed" in terminal.said
    assert "\x1b[31m" not in terminal.written


def full_yard(yard: Yard) -> str:
    counts = {"ready": 7, "scheduled": 0, "processing": 0}
    yard.stats = {"jobs": counts, "workers": {"live": 3}, "sampledAt": None}
    kinds = [{"type": f"kind-{n}{EVIL}", "workers": 0, **counts} for n in range(30)]
    yard.rows["queues"] = [{"name": "bulk", "types": kinds, **counts}]
    for n in range(50):
        yard.add({"type": f"kind-{n}"})
    return yard.add({"type": f"newest{EVIL}"})


@pytest.mark.usefixtures("at_the_yard")
def test_the_yard_is_a_live_screen_that_fits_any_size_until_ctrl_c(yard: Yard) -> None:
    newest = full_yard(yard)
    with on_terminal("watch", rows=24, columns=80) as terminal:
        terminal.until("7 ready", "3 live", "kind-0", "more: jobyard queues", newest, "Ctrl-C ends")
        yard.jobs[newest]["status"] = "completed"
        terminal.until("completed")
        terminal.resize(12, 60)
        terminal.until("Ctrl-C ends")
        yard.instead.append(busy("1"))
        terminal.until("503 overloaded")
        terminal.until("Ctrl-C ends")
        assert terminal.interrupt() == 130
    screens = terminal.said.split("jobs  ")
    assert max(len(line) for line in screens[1].splitlines()) <= 80
    assert len(screens[1].splitlines()) == 24
    assert len(screens[-1].splitlines()) == 12
    assert "\x1b]" not in terminal.written
    assert "\x1b[?1049l" in terminal.written, "the screen that was there before is back"


@pytest.mark.usefixtures("at_the_yard")
def test_a_terminal_that_cannot_be_drawn_on_gets_lines(yard: Yard) -> None:
    job_id = yard.add({"type": "email", "status": "completed"})
    with on_terminal("watch", job_id, TERM="dumb") as terminal:
        assert terminal.end() == 0
    assert terminal.written.startswith(f"2026-11-20 10:00:00Z  {job_id}")
    assert "\x1b" not in terminal.written


def test_no_jobyard_at_the_address_is_no_reason_to_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_URL", "http://127.0.0.1:9")
    assert run("watch").exit_code == 4
