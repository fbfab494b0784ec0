from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from contract_server import Yard, busy, problem
from typer.testing import Result

Run = Callable[..., Result]


def test_a_job_is_created_with_every_option(yard: Yard, run: Run) -> None:
    options = ["--queue", "q", "--priority", "9", "--delay", "1.5", "--timeout", "60", "--max-attempts", "3"]
    options += ["--tag", "a", "--tag", "b", "--metadata", "order=17", "--metadata", "x=y=z"]
    result = run("create", "email", '{"to":"user@example.com"}', *options)
    [(job_id, job)] = yard.jobs.items()
    assert (result.exit_code, result.stdout) == (0, f"{job_id} pending\n")
    assert json.loads(yard.seen[0].body) == {
        "type": "email",
        "payload": {"to": "user@example.com"},
        "queue": "q",
        "priority": 9,
        "delaySeconds": 1.5,
        "timeoutSeconds": 60,
        "maxAttempts": 3,
        "tags": ["a", "b"],
        "metadata": {"order": "17", "x": "y=z"},
    }
    assert job["type"] == "email"


def test_run_at_goes_as_it_was_written(yard: Yard, run: Run) -> None:
    assert run("create", "email", "--run-at", "2030-01-01T08:00:00+02:00").exit_code == 0
    assert json.loads(yard.seen[0].body) == {
        "type": "email",
        "payload": {},
        "runAt": "2030-01-01T08:00:00+02:00",
    }


def test_json_output_is_one_line_of_json(yard: Yard, run: Run) -> None:
    result = run("create", "email", "{}", "--json")
    [job_id] = yard.jobs
    assert json.loads(result.stdout) == {"id": job_id, "status": "pending"}
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "text", ['{"price": 1.10, "big": 123456789012345678901234567890}', '"Grüße"', "null"]
)
def test_the_payload_arrives_as_it_was_written(yard: Yard, run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "payload.json").write_text(text + "\n")
    assert run("create", "email", text).exit_code == 0
    assert run("create", "email", "-", stdin=text).exit_code == 0
    assert run("create", "email", f"@{tmp_path}/payload.json").exit_code == 0
    assert [text.encode() in request.body for request in yard.seen] == [True, True, True]


@pytest.mark.parametrize(
    "payload", ["{", "", '{"a": NaN}', "[" * 20_000, b'{"a":"\xff"}'.decode(errors="surrogateescape")]
)
def test_a_payload_that_is_not_json_is_a_usage_error(yard: Yard, run: Run, payload: str) -> None:
    result = run("create", "email", payload)
    assert result.exit_code == 2
    assert "not JSON" in result.stderr
    assert yard.seen == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "TYPE"),
        (["email", "@nowhere.json"], "nowhere.json"),
        (["email", "--metadata", "novalue"], "KEY=VALUE"),
        (["email", "--run-id", "x"], "--file"),
        (["email", "--file", "x"], "--file"),
        (["--file", "x", "--max-attempts", "3"], "--max-attempts"),
        (["--file", "x", "--wait", "3"], "--wait"),
        (["--file", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--file", "-", "--run-id", "é"], "--run-id"),
        (["email", "--idempotency-key", "é"], "printable ASCII"),
    ],
)
def test_arguments_that_do_not_fit_are_a_usage_error(
    yard: Yard, run: Run, arguments: list[str], said: str
) -> None:
    result = run("create", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert yard.seen == []


def test_a_refusal_is_told_with_its_pointers_and_exit_1(yard: Yard, run: Run) -> None:
    yard.instead.append(problem(422, "validation_failed", ("/priority", "must be 0 to 9")))
    result = run("create", "email", "--priority", "12")
    assert result.exit_code == 1
    assert "422 validation_failed" in result.stderr
    assert "/priority: must be 0 to 9" in result.stderr
    assert result.stdout == ""


def test_a_server_that_is_busy_is_asked_again_only_with_an_idempotency_key(yard: Yard, run: Run) -> None:
    yard.instead.append(busy())
    assert run("create", "email").exit_code == 1
    yard.instead.append(busy())
    result = run("create", "email", "--idempotency-key", "k")
    assert result.exit_code == 0
    assert "trying again" in result.stderr
    assert len(yard.jobs) == 1


@pytest.mark.parametrize(("ending", "code"), [("completed", 0), ("failed", 1), ("pending", 1)])
def test_who_waits_learns_how_it_ended(yard: Yard, run: Run, ending: str, code: int) -> None:
    yard.finishes_as = ending
    result = run("create", "email", "--wait", "0.2", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["status"] == ending
    assert ("still pending" in result.stderr) == (ending == "pending")


def test_text_from_the_server_cannot_drive_the_terminal(yard: Yard, run: Run) -> None:
    yard.instead.append(problem(422, "validation_failed", ("/\x1b]0;owned\x07", "\x9b2J\u202e\nforged line")))
    result = run("create", "email")
    assert r"/\x1b]0;owned\x07: \x9b2J\u202e\nforged line" in result.stderr
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.output)
