from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from contract_server import Yard, problem
from typer.testing import Result

Run = Callable[..., Result]
TRACE = "Traceback (most recent call last):\n  File 'shop.py', line 7\nLookupError: no customer 7\nat all\n"
ERROR = {"type": "LookupError", "message": "no customer 7\nat all", "traceback": TRACE}


def attempt(number: int, outcome: str, **more: Any) -> dict[str, Any]:
    times = {
        "startedAt": "2026-11-20T10:00:00.000000Z",
        "endedAt": "2026-11-20T10:00:01.500000Z",
        "retryAt": None,
    }
    return {
        "run": 1,
        "attempt": number,
        "lease": "1",
        "worker": "17",
        **times,
        "outcome": outcome,
        "reason": None,
        "error": None,
        **more,
    }


def event(kind: str, second: float, **data: Any) -> dict[str, Any]:
    return {
        "id": kind,
        "type": f"job.{kind}",
        "time": f"2026-11-20T10:00:{second:09.6f}Z",
        "jobId": "j",
        "data": data,
    }


def test_each_try_is_shown_from_the_first_with_the_first_line_of_its_error(yard: Yard, run: Run) -> None:
    last = attempt(2, "failed", reason="exhausted", error=ERROR)
    yard.rows["attempts"] = [last, attempt(1, "retry", error=ERROR)]
    result = run("attempts", "j")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["#", "RUN", "TRY", "OUTCOME", "STARTED", "TOOK", "WORKER"]
    assert lines[1].split() == ["1", "1", "1", "retry", "2026-11-20", "10:00:00Z", "1.50", "s", "17"]
    assert lines[2] == lines[4] == "  LookupError: no customer 7"
    assert lines[3].split()[:5] == ["2", "1", "2", "failed", "(exhausted)"]
    assert len(lines) == 5
    assert "--traceback" in result.stderr
    assert max(map(len, lines)) <= 80


def test_traceback_shows_the_error_in_full(yard: Yard, run: Run) -> None:
    yard.rows["attempts"] = [attempt(1, "failed", reason="non_retryable", error=ERROR)]
    result = run("attempts", "j", "--traceback")
    for line in TRACE.splitlines():
        assert f"  {line}\n" in result.stdout
    assert "no traceback" not in result.stdout
    assert result.stderr == ""


def test_an_attempt_that_no_exception_ended_says_that_it_has_no_traceback(yard: Yard, run: Run) -> None:
    timeout = {"type": "Timeout", "message": "the attempt ran longer than 5 s"}
    yard.rows["attempts"] = [attempt(2, "completed"), attempt(1, "retry", error=timeout)]
    _, _, *beneath, _ = run("attempts", "j", "--traceback").stdout.splitlines()
    assert beneath == [
        "  Timeout: the attempt ran longer than 5 s",
        "  no traceback: no exception of the handler ended this attempt",
        "",
    ]


def test_a_running_try_has_no_duration_and_no_error(yard: Yard, run: Run) -> None:
    yard.rows["attempts"] = [attempt(1, "running", endedAt=None)]
    result = run("attempts", "j")
    assert result.stdout.splitlines()[1].split() == [
        "1",
        "1",
        "1",
        "running",
        "2026-11-20",
        "10:00:00Z",
        "17",
    ]
    assert result.stderr == ""


def test_attempts_of_the_same_try_are_told_apart_by_their_number(yard: Yard, run: Run) -> None:
    yard.rows["attempts"] = [
        attempt(1, "completed", lease="9"),
        attempt(1, "crash", lease="8"),
        attempt(1, "crash", lease="7"),
    ]
    yard.rows["log"] = [log_line("8", "the second time"), log_line("9", "the third time")]
    _, *attempts = run("attempts", "j").stdout.splitlines()
    assert [row.split()[:4] for row in attempts] == [
        ["1", "1", "1", "crash"],
        ["2", "1", "1", "crash"],
        ["3", "1", "1", "completed"],
    ]
    _, *written = run("log", "j").stdout.splitlines()
    assert [row.split()[2:5] for row in written] == [["2", "1", "1"], ["3", "1", "1"]]


def log_line(lease: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "lease": lease,
        "line": 1,
        "at": "2026-11-20T10:00:00.000000Z",
        "level": "info",
        "text": text,
        **more,
    }


def test_the_log_names_the_try_of_each_line_and_keeps_the_lines_of_a_text(yard: Yard, run: Run) -> None:
    yard.rows["attempts"] = [attempt(2, "running", run=3, lease="8"), attempt(1, "retry", run=3, lease="7")]
    long = "x" * 200
    yard.rows["log"] = [
        log_line("7", "one\n  two"),
        log_line("8", long, level="warning"),
        log_line("9", "\x1b[2J"),
    ]
    result = run("log", "j")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["TIME", "#", "RUN", "TRY", "LEVEL", "TEXT"]
    assert lines[1].split() == ["2026-11-20", "10:00:00Z", "1", "3", "1", "info", "one"]
    assert lines[2] == " " * lines[1].index("one") + "  two"
    assert lines[3].split()[2:] == ["2", "3", "2", "warning", long]
    assert lines[4].split()[2:] == ["info", r"\x1b[2J"]
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_log_as_json_is_a_line_for_each_as_the_server_wrote_it(yard: Yard, run: Run) -> None:
    yard.rows["log"] = [log_line("7", str(n), somethingNew=n) for n in range(5)]
    result = run("log", "j", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == yard.rows["log"]
    assert (result.stderr, len(yard.seen)) == ("", 3)


def test_who_finds_no_line_hears_who_writes_them(run: Run) -> None:
    result = run("log", "j")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "ctx.log(text)" in result.stderr


def test_a_job_that_nobody_took_leads_on_to_the_queues(run: Run) -> None:
    result = run("attempts", "j")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "jobyard queues" in result.stderr


def test_a_job_that_ended_before_anybody_tried_it_has_no_try(yard: Yard, run: Run) -> None:
    yard.rows["events"] = [event("failed", 1, run=1, attempt=0, reason="cancelled"), event("created", 0)]
    assert run("events", "j").stdout.splitlines()[-1].split()[-3:] == ["s", "failed", "cancelled"]


def test_events_are_a_timeline_from_the_creation(yard: Yard, run: Run) -> None:
    yard.rows["events"] = [
        event("failed", 9, run=2, attempt=1, reason="exhausted", error=ERROR),
        event("started", 8, run=2, attempt=1, worker="18"),
        event(
            "retry_scheduled",
            2.25,
            run=1,
            attempt=1,
            cause="retry",
            retryAt="2026-11-20T10:00:04.250000Z",
            error=ERROR,
        ),
        event("started", 1, run=1, attempt=1, worker="17"),
        event("created", 0.5),
    ]
    lines = [line.split(maxsplit=5) for line in run("events", "j").stdout.splitlines()]
    assert lines[0] == ["TIME", "AFTER", "EVENT", "WHAT"]
    assert lines[1][1:] == ["10:00:00Z", "+0", "ms", "created"]
    assert lines[2][2:] == ["+500", "ms", "started", "try 1, worker 17"]
    assert lines[3][2:] == ["+1.75", "s", "retry_scheduled", "try 1, retry, next in 2.00 s"]
    assert lines[4] == ["LookupError:", "no", "customer", "7"]
    assert lines[5][5] == "run 2, try 1, worker 18"
    assert lines[6][4:] == ["failed", "run 2, try 1, exhausted"]


@pytest.mark.parametrize("command", ["attempts", "events"])
def test_json_is_a_line_for_each_from_the_first(yard: Yard, run: Run, command: str) -> None:
    yard.rows[command] = [{"id": str(n), "somethingNew": "\x1b"} for n in range(5)]
    result = run(command, "j", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["4", "3", "2", "1", "0"]
    assert (result.stderr, "\x1b" in result.stdout) == ("", False)


@pytest.mark.parametrize("command", [["attempts"], ["events"], ["log"], ["watch"], ["get"]])
def test_an_unknown_job_is_exit_3_and_leads_on_to_the_list(yard: Yard, run: Run, command: list[str]) -> None:
    yard.instead.append(problem(404, "not_found"))
    result = run(*command, "0199aaaa-0000-7000-8000-000000000000")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "jobyard list" in result.stderr


@pytest.mark.parametrize("command", [["attempts"], ["events"], ["log"], ["watch"], ["get"]])
def test_what_would_be_another_path_is_wrong_usage(yard: Yard, run: Run, command: list[str]) -> None:
    result = run(*command, "../stats")
    assert (result.exit_code, yard.seen) == (2, [])
    assert "is no id" in result.stderr


@pytest.mark.parametrize("command", ["attempts", "events"])
def test_an_error_cannot_drive_the_terminal(yard: Yard, run: Run, command: str) -> None:
    evil = "\x1b[2Jx\u202e\x9b"
    error = {"type": evil, "message": f"{evil}\n{evil}", "traceback": f"1\n{evil}"}
    yard.rows["attempts"] = [attempt(1, evil, worker=evil, error=error)]
    yard.rows["events"] = [event(evil, 1, cause=f"{evil}\n", error=error)]
    options = [["--traceback"], []] if command == "attempts" else [[]]
    for option in options:
        output = run(command, "j", *option).output
        assert not {"\x1b", "\u202e", "\x9b"} & set(output)
        assert r"\x1b[2J" in output


@pytest.mark.parametrize("error", ["only text", {"code": 7}, ["a"], 0])
def test_an_error_of_another_form_is_shown_as_it_is(yard: Yard, run: Run, error: Any) -> None:
    yard.rows["attempts"] = [attempt(1, "failed", error=error)]
    output = run("attempts", "j", "--traceback").stdout
    assert json.loads("\n".join(output.splitlines()[2:])) == error


def test_a_failed_job_leads_on_to_its_attempts(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "payload": {}, "status": "failed", "error": ERROR})
    assert f"jobyard attempts {job_id}\n" in run("get", job_id).stderr
    assert run("get", job_id, "--json").stderr == ""
    fine = yard.add({"type": "email", "payload": {}})
    assert run("get", fine).stderr == ""
