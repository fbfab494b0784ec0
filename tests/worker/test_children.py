"""Child processes as a worker's runner uses them: every way to leave one, its time limit, and what stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobyard.config import Settings
from jobyard.domain.lifecycle import SOLITARY, SUSPECT, Cause, Change, Status
from jobyard.main import child_options
from jobyard.store.dispatch import Claimed
from jobyard.worker.children import ChildOptions
from jobyard.worker.handlers import Handlers
from jobyard.worker.slots import Ended
from worker.processes import noted_pids, runs, until_noted
from worker.yard import Bench, benches, until

HERE = str(Path(__file__).parent)
OPTIONS = replace(child_options(Settings(app="child_jobs")), folder=HERE)
TYPES = ("do", "do async", "block", "block async", "stubborn", "helped", "about", "email")
ANSWERED_HERE = "answered in the worker's own process"

Make = Callable[..., Bench]
both_kinds = pytest.mark.parametrize("kind", ["do", "do async"])
both_blockers = pytest.mark.parametrize("blocker", ["block", "block async"])


def not_here() -> str:
    """Stands for a handler whose real function only the child has."""
    return ANSWERED_HERE


def process_handlers() -> Handlers:
    bound = Handlers()
    for type in TYPES:
        bound.add(type, not_here, process=True)
    return bound


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make a runner whose handlers stand in `child_jobs`; options: those of its children."""
    async with benches() as make:

        def made(concurrency: int = 4, options: ChildOptions = OPTIONS, **environment: str) -> Bench:
            options = replace(options, environment=dict(options.environment) | environment)
            return make(process_handlers(), concurrency, options)

        yield made


def start(bench: Bench, type: str, payload: Any = None, lease: int = 1, **columns: Any) -> Claimed:
    return bench.start(type=type, payload=json.dumps(payload), lease=lease, **columns)


async def ending_of(bench: Bench, type: str, payload: Any = None, **columns: Any) -> Change:
    """How one attempt ended; its slot is free again."""
    bench.endings.clear()
    change = await bench.change_of(start(bench, type, payload, **columns))
    assert not bench.runner.slots.running
    return change


async def result_of(bench: Bench, type: str, payload: Any = None, **columns: Any) -> Any:
    change = await ending_of(bench, type, payload, **columns)
    assert change.status is Status.COMPLETED, change
    return json.loads(change.result or "null")


@both_kinds
async def test_a_process_handler_runs_in_the_main_thread_of_another_process(make: Make, kind: str) -> None:
    bench = make()
    pid = await result_of(bench, kind, ["pid", None])
    assert pid != os.getpid()
    assert await result_of(bench, kind, ["where", None]) is True
    assert await result_of(bench, kind, ["echo", {"a": [1, "ü", None]}]) == {"a": [1, "ü", None]}
    assert await result_of(bench, kind, ["pid", None]) == pid, "a child is used again"


async def test_a_built_in_handler_runs_in_a_child_too(make: Make, tmp_path: Path) -> None:
    bench = make(JOBYARD_HOME=str(tmp_path))
    result = await result_of(bench, "email", {"to": "ada@example.com"})
    assert Path(result["outbox"]).parent == tmp_path / "outbox"


async def test_a_child_knows_of_the_attempt_what_a_handler_may_know(make: Make) -> None:
    bench = make()
    bench.endings.clear()
    attempt = start(bench, "about", attempt=3, tags='["a","b"]')
    change = await bench.change_of(attempt)
    assert json.loads(change.result or "") == {
        "job": str(attempt.job),
        "attempt": 3,
        "tags": ["a", "b"],
        "created": attempt.created_at.isoformat(),
    }


@both_kinds
async def test_whatever_is_raised_in_a_child_fails_the_attempt_and_the_child_lives_on(
    make: Make, kind: str
) -> None:
    bench = make()
    pid = await result_of(bench, kind, ["pid", None])
    for name in (
        "SystemExit",
        "KeyboardInterrupt",
        "CancelledError",
        "GeneratorExit",
        "Rude",
        "ValueError",
        "StopIteration",
    ):
        change = await ending_of(bench, kind, ["raise", name])
        assert (change.status, change.cause) == (Status.PENDING, Cause.RETRY)
        # A coroutine cannot raise StopIteration: Python itself makes it a RuntimeError.
        expected = "RuntimeError" if (name, kind) == ("StopIteration", "do async") else name
        assert change.error is not None
        assert change.error["type"] == expected
        assert "child_jobs.py" in change.error["traceback"]
    assert await result_of(bench, kind, ["pid", None]) == pid


async def test_what_a_handler_returns_in_a_child_means_what_it_means_in_the_worker(make: Make) -> None:
    bench = make()
    fail = await ending_of(bench, "do", ["value", "fail"])
    assert (fail.cause, fail.error) == (Cause.NON_RETRYABLE, {"type": "Never", "message": "never"})
    retry = await ending_of(bench, "do", ["value", "retry"])
    assert (retry.cause, retry.run_in) == (Cause.RETRY, 30)
    unkeepable = await ending_of(bench, "do", ["unkeepable", None])
    assert unkeepable.error is not None
    assert unkeepable.error["type"] == "InvalidResult"
    misfit = await ending_of(bench, "do", "no list")
    assert misfit.error is not None
    assert misfit.error["type"] == "InvalidPayload"
    large = "x" * 900_000
    assert await result_of(bench, "do", ["echo", large]) == large


@both_kinds
async def test_what_one_job_sets_in_its_context_never_shows_in_the_next(make: Make, kind: str) -> None:
    bench = make()
    assert [await result_of(bench, kind, ["context", None]) for _ in range(2)] == ["none", "none"]


async def test_a_handler_in_a_child_reads_an_empty_standard_input(make: Make) -> None:
    assert await result_of(make(), "do", ["read", None]) == ""


@both_kinds
@pytest.mark.parametrize(
    ("act", "how"),
    [
        (["signal", "SIGKILL"], "was killed by SIGKILL"),
        (["segfault", None], "was killed by SIGSEGV"),
        (["exit", 0], "ended with exit code 0"),
        (["exit", 3], "ended with exit code 3"),
        (["babble", None], "said what its worker does not understand (a message of 4294967295 bytes)"),
    ],
    ids=["SIGKILL", "segfault", "exit 0", "exit 3", "babble"],
)
async def test_a_crash_is_charged_to_the_one_job_that_ran_in_the_child(
    make: Make, kind: str, act: list[Any], how: str
) -> None:
    bench = make()
    change = await ending_of(bench, kind, act, attempt=2)
    assert (change.status, change.cause, change.attempt, change.crashes, change.suspect) == (
        Status.PENDING,
        Cause.CRASH,
        1,
        1,
        SUSPECT,
    )
    assert change.error == {
        "type": "Crash",
        "message": f"the process running this job {how} (crash 1 of 3)",
    }
    assert 0 <= (change.run_in or 0) <= 2
    assert await result_of(bench, kind, ["echo", "next"]) == "next", "the child is replaced"


async def test_the_third_crash_fails_the_job_and_a_solitary_one_stays_solitary(make: Make) -> None:
    bench = make()
    again = await ending_of(bench, "do", ["exit", 1], crashes=1, suspect=SOLITARY)
    assert (again.cause, again.crashes, again.suspect) == (Cause.CRASH, 2, SOLITARY)
    last = await ending_of(bench, "do", ["exit", 1], crashes=2, suspect=SUSPECT)
    assert (last.status, last.cause, last.crashes) == (Status.FAILED, Cause.CRASHED, 3)


async def test_a_crash_leaves_the_other_children_and_their_jobs_running(make: Make, tmp_path: Path) -> None:
    bench, notes = make(), tmp_path / "notes"
    neighbour = start(bench, "block", str(notes), lease=7)
    (pid,) = await until_noted(notes)
    crash = await bench.change_of(start(bench, "do", ["signal", "SIGKILL"], lease=8))
    assert crash.cause is Cause.CRASH
    assert list(bench.runner.slots.running) == [neighbour.lease]
    assert runs(pid)


@both_blockers
async def test_a_blocked_handler_is_stopped_at_its_time_limit_and_may_clean_up(
    make: Make, tmp_path: Path, blocker: str
) -> None:
    bench, notes = make(), tmp_path / "notes"
    change = await ending_of(bench, blocker, str(notes), timeout_seconds=0.2)
    assert change.error == {"type": "Timeout", "message": "the attempt ran longer than 0.2 s"}
    assert (change.cause, change.crashes, change.suspect) == (Cause.RETRY, 0, 0)
    assert "cleaned up" in notes.read_text()
    (pid,) = noted_pids(notes)
    await until(lambda: not runs(pid), "a child that was stopped is not used again")


async def test_a_handler_that_does_not_let_go_is_killed_and_has_timed_out(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.runner.CANCEL_PATIENCE_SECONDS", 0.2)
    bench, notes = make(concurrency=1), tmp_path / "notes"
    change = await ending_of(bench, "stubborn", str(notes), timeout_seconds=0.2, attempt=5)
    assert (change.status, change.cause, change.crashes) == (Status.FAILED, Cause.TIMEOUT, 0)
    (pid,) = noted_pids(notes)
    await until(lambda: not runs(pid), "it is killed")
    assert await result_of(bench, "do", ["echo", "next"]) == "next"


async def test_a_program_that_a_killed_handler_waits_for_is_killed_with_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.runner.CANCEL_PATIENCE_SECONDS", 0.2)
    bench, notes = make(), tmp_path / "notes"
    attempt = start(bench, "helped", str(notes))
    child, program = await until_noted(notes, 2)
    bench.runner.end_all(Ended.BY_TIMEOUT)
    await bench.change_of(attempt)
    await until(lambda: not (runs(child) or runs(program)), "both are gone")


async def test_four_blocked_handlers_on_four_slots_time_out_again_and_again_and_others_go_on(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.runner.CANCEL_PATIENCE_SECONDS", 0.05)
    bench, notes = make(concurrency=4), tmp_path / "notes"
    blocked = [start(bench, "stubborn", str(notes), lease=n, timeout_seconds=0.05) for n in range(1, 13)]
    after = start(bench, "do", ["echo", "went on"], lease=100)
    assert [(await bench.change_of(one)).cause for one in blocked] == [Cause.RETRY] * 12
    assert (await bench.change_of(after)).result == '"went on"'
    assert not bench.runner.slots.running
    assert len(bench.endings) == 13
    assert not bench.runner.stuck_threads
    assert not bench.runner.handlers_at_work
    await until(lambda: not any(map(runs, noted_pids(notes))), "none is left behind")


async def test_the_time_limit_begins_with_the_handler_and_not_with_the_start_of_its_process(
    make: Make,
) -> None:
    bench = make(CHILD_JOBS_IMPORT_SECONDS="0.6")
    assert await result_of(bench, "do", ["echo", "in time"], timeout_seconds=0.5) == "in time"


@both_blockers
async def test_a_drain_stops_the_handler_and_hands_the_attempt_back_unburnt(
    make: Make, tmp_path: Path, blocker: str
) -> None:
    bench, notes = make(), tmp_path / "notes"
    attempt = start(bench, blocker, str(notes), attempt=3)
    await until_noted(notes)
    bench.runner.end_all(Ended.BY_RELEASE)
    change = await bench.change_of(attempt)
    assert (change.status, change.cause, change.attempt) == (Status.PENDING, Cause.RELEASE, 2)
    assert "cleaned up" in notes.read_text()


async def test_a_drain_while_a_child_starts_hands_the_attempt_back(make: Make) -> None:
    bench = make(CHILD_JOBS_IMPORT_SECONDS="60")
    attempt = start(bench, "do", ["echo", 1])
    await asyncio.sleep(0)
    bench.runner.end_all(Ended.BY_RELEASE)
    assert (await bench.change_of(attempt)).cause is Cause.RELEASE


async def test_a_lost_lease_kills_the_child_at_once_and_writes_nothing(make: Make, tmp_path: Path) -> None:
    bench, notes = make(), tmp_path / "notes"
    start(bench, "block", str(notes))
    (pid,) = await until_noted(notes)
    bench.runner.end_all(Ended.BY_LEASE_LOSS)
    await until(lambda: not bench.runner.slots.running, "the slot is free")
    assert not runs(pid)
    assert bench.endings == []
    assert "cleaned up" not in notes.read_text()


async def test_a_signal_that_is_not_the_workers_own_does_not_stop_a_handler(
    make: Make, tmp_path: Path
) -> None:
    bench, notes = make(), tmp_path / "notes"
    attempt = start(bench, "block", str(notes), timeout_seconds=1.0)
    (pid,) = await until_noted(notes)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert (await bench.change_of(attempt)).error == {
        "type": "Timeout",
        "message": "the attempt ran longer than 1 s",
    }


async def test_a_child_that_cannot_start_fails_the_attempt_with_the_reason_and_the_next_start_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr("jobyard.worker.children.backoff", lambda failures: waits.append(failures) or 0.0)
    bench = make(CHILD_JOBS_BROKEN="1")
    for _ in range(3):
        change = await ending_of(bench, "do", ["echo", 1])
        assert change.cause is Cause.RETRY
        assert change.error is not None
        assert change.error["type"] == "CannotStart"
        assert change.error["message"].startswith(
            "the process for this job cannot start: JOBYARD_APP: importing 'child_jobs' failed: "
            "RuntimeError: not today"
        )
    assert waits == [1, 2]


async def test_a_program_that_is_no_child_fails_the_attempt_too(make: Make) -> None:
    for command, why in (
        (["false"], "ended with exit code 1 before it was ready"),
        (["/no/such"], "No such"),
    ):
        bench = make(options=replace(OPTIONS, command=command))
        change = await ending_of(bench, "do", ["echo", 1])
        assert change.error is not None
        assert change.error["type"] == "CannotStart"
        assert why in change.error["message"]


async def test_a_child_is_replaced_after_its_share_of_jobs(make: Make) -> None:
    bench = make(options=replace(OPTIONS, jobs=2))
    pids = [await result_of(bench, "do", ["pid", None]) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    await until(lambda: not runs(pids[0]), "the first has ended")


async def test_a_child_that_nobody_needs_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobyard.worker.children.IDLE_SECONDS", 0.05)
    bench = make()
    pid = await result_of(bench, "do", ["pid", None])
    await until(lambda: not runs(pid), "it has ended")
    assert await result_of(bench, "do", ["echo", "next"]) == "next"


async def test_a_child_that_dies_before_it_begins_a_job_costs_that_job_nothing(make: Make) -> None:
    bench = make()
    pid = await result_of(bench, "do", ["pid", None])
    os.kill(pid, signal.SIGSTOP)  # it waits for work, and will never begin what it is given
    bench.endings.clear()
    attempt = start(bench, "do", ["pid", None])
    await until(lambda: bench.runner.slots.running[attempt.lease].begun, "it is given to the child")
    os.kill(pid, signal.SIGKILL)
    change = await bench.change_of(attempt)
    assert (change.status, change.crashes) == (Status.COMPLETED, 0)
    assert change.result != str(pid)


@pytest.mark.parametrize("level", [SUSPECT, SOLITARY])
async def test_a_suspect_of_an_ordinary_handler_runs_in_a_child_and_others_in_the_worker(level: int) -> None:
    ordinary = Handlers()
    ordinary.add("do", not_here)
    async with benches() as make:
        bench = make(ordinary, 4, OPTIONS)
        trusted = await bench.change_of(start(bench, "do", ["pid", None], lease=1))
        assert json.loads(trusted.result or "") == ANSWERED_HERE
        suspect = await bench.change_of(start(bench, "do", ["pid", None], lease=2, suspect=level))
        assert json.loads(suspect.result or "") != os.getpid()
        assert suspect.suspect == 0, "suspicion ends with an attempt that ends by itself"


async def test_as_many_suspects_run_at_a_time_as_there_are_slots(make: Make, tmp_path: Path) -> None:
    bench, notes = make(concurrency=3), tmp_path / "notes"
    for lease in range(1, 5):
        start(bench, "block", str(notes), lease=lease, suspect=SUSPECT)
    pids = await until_noted(notes, 3)
    assert len(set(pids)) == 3
    assert len(bench.runner.slots.waiting) == 1


async def test_closing_a_runner_leaves_no_child_behind(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with benches() as make:
        bench = make(process_handlers(), 4, OPTIONS)
        idle = await result_of(bench, "do", ["pid", None])
        start(bench, "stubborn", str(notes), lease=2)
        start(bench, "block", str(notes), lease=3)
        busy = await until_noted(notes, 2)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert not any(map(runs, [idle, *busy]))


async def test_an_attempt_whose_turn_comes_after_the_close_gets_no_child(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with benches() as make:
        bench = make(process_handlers(), 1, OPTIONS)
        start(bench, "block", str(notes), lease=1)
        waiting = start(bench, "do", ["pid", None], lease=2)
        await until_noted(notes, 1)
        await bench.runner.close()
        change = await bench.change_of(waiting)
    assert change.error == {
        "type": "CannotStart",
        "message": "the process for this job cannot start: the worker ends",
    }
