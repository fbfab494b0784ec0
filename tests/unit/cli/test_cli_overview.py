from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from contract_server import Yard
from typer.testing import Result

Run = Callable[..., Result]


def before(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat().replace("+00:00", "Z")


def counts(**more: Any) -> dict[str, Any]:
    return {"pending": 0, "ready": 0, "scheduled": 0, "processing": 0, "suspects": 0, **more}


def numbers(**more: Any) -> dict[str, Any]:
    pace = {
        "at": before(seconds=3),
        "seconds": 60.0,
        "created": 1_200,
        "started": 8,
        "failed": 2,
        "retryScheduled": 6,
    }
    return {
        "sampledAt": before(seconds=3),
        "jobs": counts(ready=12_000, scheduled=3, processing=5, oldestReadyAt=before(minutes=2.5)),
        "workers": {"live": 2, "slots": 20, "idle": 1},
        "lastMinute": pace,
        "history": [],
        **more,
    }


def test_stats_are_a_handful_of_lines(yard: Yard, run: Run) -> None:
    yard.stats = numbers()
    lines = run("stats").stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["jobs", "12,000 ready, 3 scheduled, 5 processing"]
    assert lines[1].split(maxsplit=1) == ["oldest", "ready for 2 min"]
    assert "1,200 created, 8 started, 0 completed, 2 failed, 6 retried" in lines[2]
    assert lines[3].split(maxsplit=1) == ["workers", "2 live, 20 slots, 1 idle"]
    assert lines[4].split()[0::3] == ["counted", "ago"]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("sampled", [None, "2026-11-20T10:00:00.000000Z"])
def test_numbers_that_nobody_renews_are_told_with_what_to_do(
    yard: Yard, run: Run, sampled: str | None
) -> None:
    yard.stats = numbers(sampledAt=sampled, lastMinute=None, jobs=counts())
    output = run("stats").stdout
    assert "jobyard maintain" in output
    assert "none is ready" in output
    yard.stats = numbers()
    assert "jobyard maintain" not in run("stats").stdout


def test_suspects_are_told_where_there_are_any(yard: Yard, run: Run) -> None:
    yard.stats = numbers(jobs=counts(suspects=2))
    assert "2 suspect" in run("stats").stdout
    yard.stats = numbers()
    assert "suspect" not in run("stats").stdout


def test_queues_are_a_row_for_each_type_with_the_age_of_the_oldest(yard: Yard, run: Run) -> None:
    email = {
        "type": "email",
        "workers": 2,
        **counts(ready=1_500, scheduled=3, processing=5, oldestReadyAt=before(seconds=3.5)),
    }
    report = {"type": "report", "workers": 0, **counts(ready=1, oldestReadyAt=before(hours=5))}
    yard.rows["queues"] = [
        {"name": "default", "types": [email, report], **counts()},
        {"name": "q" * 60, "types": [], **counts()},
    ]
    lines = run("queues").stdout.splitlines()
    assert lines[0].split() == ["QUEUE", "TYPE", "WORKERS", "READY", "SCHEDULED", "PROCESSING", "OLDEST"]
    assert lines[1].split()[:6] == ["default", "email", "2", "1,500", "3", "5"]
    assert lines[1].endswith(" s ago")
    assert lines[2].split() == ["default", "report", "0", "1", "0", "0", "5", "h", "ago"]
    assert lines[3].split()[1:] == ["0", "0", "0"]
    assert max(map(len, lines)) <= 80


def test_workers_are_told_with_what_they_run_and_those_that_are_gone(yard: Yard, run: Run) -> None:
    worker = {
        "id": "17",
        "name": "host:1",
        "types": ["email", "http"],
        "concurrency": 10,
        "inFlight": 3,
        "idle": True,
        "alive": True,
        "startedAt": before(hours=3),
        "expiresAt": before(seconds=-9),
    }
    yard.rows["workers"] = [
        worker,
        {**worker, "id": "16", "inFlight": 0},
        {**worker, "id": "15", "alive": False},
    ]
    rows = [line.split() for line in run("workers").stdout.splitlines()]
    assert rows[0] == ["ID", "NAME", "STATE", "BUSY", "TYPES", "STARTED"]
    assert rows[1] == ["17", "host:1", "busy", "3/10", "email,", "http", "3", "h", "ago"]
    assert [row[2] for row in rows[2:]] == ["idle", "gone"]


@pytest.mark.parametrize(
    ("command", "hint"), [("queues", "the first job makes it"), ("workers", "jobyard worker")]
)
def test_nothing_to_show_is_no_failure_and_leads_on(yard: Yard, run: Run, command: str, hint: str) -> None:
    yard.rows.clear()
    result = run(command)
    assert (result.exit_code, result.stdout) == (0, "")
    assert hint in result.stderr
    assert run(command, "--json").output == ""


@pytest.mark.parametrize("command", ["queues", "workers"])
def test_json_of_a_list_is_a_line_for_each_as_the_server_wrote_it(yard: Yard, run: Run, command: str) -> None:
    yard.rows[command] = [{"name": "\x1b[2J", "somethingNew": n} for n in range(3)]
    result = run(command, "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == yard.rows[command]
    assert "\x1b" not in result.stdout


def test_json_of_stats_is_one_document(yard: Yard, run: Run) -> None:
    yard.stats = numbers(somethingNew=1)
    result = run("stats", "--json")
    assert (json.loads(result.stdout), result.stdout.count("\n")) == (yard.stats, 1)


def test_names_cannot_drive_the_terminal(yard: Yard, run: Run) -> None:
    evil = "a\nb\x1b[2J\u202e"
    yard.rows["queues"] = [{"name": evil, "types": [{"type": evil, **counts()}], **counts()}]
    yard.rows["workers"] = [{"id": evil, "name": evil, "types": [evil], "alive": True}]
    for command in ("queues", "workers"):
        output = run(command).stdout
        assert not {"\x1b", "\u202e"} & set(output)
        assert len(output.splitlines()) == 2
