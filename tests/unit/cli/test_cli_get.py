from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from contract_server import Yard, problem
from typer.testing import Result

Run = Callable[..., Result]
UNKNOWN = "0199aaaa-0000-7000-8000-000000000000"


def test_a_job_is_drawn_within_eighty_columns(yard: Yard, run: Run) -> None:
    payload = {"to": "user@example.com", "text": "x" * 500}
    job_id = yard.add({"type": "email", "payload": payload, "tags": ["a", "b"], "metadata": {"order": "17"}})
    result = run("get", job_id)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for part in (job_id, "email", "pending", "createdAt", '["a","b"]', '"to": "user@example.com"'):
        assert part in result.stdout.replace("\n", "")
    assert "cancelRequested" not in result.stdout
    assert "result" not in result.stdout


def test_an_error_is_shown_as_its_message_and_traceback(yard: Yard, run: Run) -> None:
    error = {"type": "SmtpError", "message": "550 no such user", "traceback": "Traceback:\n  line 1\n"}
    result = run("get", yard.add({"type": "email", "payload": {}, "status": "failed", "error": error}))
    assert "SmtpError: 550 no such user" in result.stdout
    assert "  line 1" in result.stdout
    assert "--json shows all" not in result.stdout
    assert r"\n" not in result.stdout


def test_a_long_payload_is_shortened_and_json_shows_all_of_it(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "payload": list(range(10_000))})
    shown = run("get", job_id).stdout
    assert "--json shows all" in shown
    assert len(shown.splitlines()) < 80
    assert json.loads(run("get", job_id, "--json").stdout)["payload"] == list(range(10_000))


def test_a_job_cannot_drive_or_style_the_terminal(yard: Yard, run: Run) -> None:
    evil = "[bold red]x[/] \x1b[2J\x9b2J\u202e\x7f"
    error = {"type": evil, "message": evil, "traceback": evil}
    job_id = yard.add({"type": evil, "payload": {evil: evil}, "queue": evil, "error": error})
    for output in (run("get", job_id).stdout, run("get", job_id, "--json").stdout):
        assert not {"\x1b", "\x9b", "\u202e", "\x7f"} & set(output)
        assert "[bold red]" in output
    facts = [line.split() for line in run("get", job_id).stdout.splitlines()]
    assert [words[2:4] for words in facts if words[1:2] == ["queue"]] == [["[bold", "red]x[/]"]]


def test_json_is_one_line_that_says_the_same(yard: Yard, run: Run) -> None:
    payload = {"a": "\x1b\x9b\u202e\x7f \U000e0001 Grüße 🙂", "b": "1\n2"}
    job_id = yard.add({"type": "email", "payload": payload})
    result = run("get", job_id, "--json")
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == yard.jobs[job_id]
    assert "Grüße 🙂" in result.stdout


@pytest.mark.parametrize(("ending", "code"), [("completed", 0), ("failed", 1), ("processing", 1)])
def test_who_waits_learns_how_it_ended(yard: Yard, run: Run, ending: str, code: int) -> None:
    yard.finishes_as = ending
    result = run("get", yard.add({"type": "email", "payload": {}}), "--wait", "0.1")
    assert result.exit_code == code
    assert ending in result.stdout
    assert ("still processing after 0.1 s" in result.stderr) == (ending == "processing")


def test_a_failed_job_is_no_failure_of_looking_at_it(yard: Yard, run: Run) -> None:
    assert run("get", yard.add({"type": "email", "payload": {}, "status": "failed"})).exit_code == 0


@pytest.mark.parametrize("job_id", [UNKNOWN, "not-a-uuid"])
def test_an_unknown_job_is_exit_3(run: Run, job_id: str) -> None:
    result = run("get", job_id)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "404 not_found" in result.stderr


@pytest.mark.parametrize("job_id", ["", "..", "../jobs", "x/attempts"])
def test_what_would_be_another_path_is_a_usage_error(run: Run, job_id: str) -> None:
    assert run("get", job_id).exit_code == 2


def test_a_server_error_is_exit_1(yard: Yard, run: Run) -> None:
    yard.instead.append(problem(503, "database_unavailable"))
    result = run("get", UNKNOWN)
    assert result.exit_code == 1
    assert "503 database_unavailable" in result.stderr


def test_progress_is_told_in_words(yard: Yard, run: Run) -> None:
    told = {"percent": 76.85714285714286, "message": "step 538", "at": "2026-11-20T10:00:00Z"}
    job_id = yard.add({"type": "email", "status": "processing", "progress": told})
    assert ["progress", "77 %, step 538"] in [
        line.strip("│ ").split(maxsplit=1) for line in run("get", job_id).stdout.splitlines()
    ]
    yard.jobs[job_id]["progress"] = {"message": "half way"}
    assert "half way" in run("get", job_id).stdout


def test_progress_is_told_on_the_timeline(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email"})
    yard.rows["events"] = [
        {
            "id": "1",
            "type": "job.progress",
            "time": "2026-11-20T10:00:00Z",
            "jobId": job_id,
            "data": {"attempt": 1, "percent": 50},
        }
    ]
    assert "try 1, 50 %" in run("events", job_id).stdout
