from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from contract_server import Yard, problem
from typer.testing import Result

Run = Callable[..., Result]


def asked(yard: Yard) -> dict[str, str]:
    """The query of the last request."""
    return {name: value for name, [value] in parse_qs(yard.seen[-1].query).items()}


def test_jobs_are_a_table_of_eighty_columns_newest_first_with_whole_ids(yard: Yard, run: Run) -> None:
    ids = [yard.add({"type": f"a-type-of-a-long-name-{n}", "queue": "q" * 30}) for n in range(3)]
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "TYPE", "QUEUE", "AGE"]
    assert [line.split()[0] for line in lines[1:]] == ids[::-1]
    assert max(map(len, lines)) <= 80


def test_a_job_that_is_tried_again_is_told_from_one_that_was_never_tried(
    yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = (datetime.now(UTC) + timedelta(minutes=14.9)).isoformat()
    for facts in ({}, {"attempt": 2, "runAt": later}, {"attempt": 1, "runAt": later, "status": "failed"}):
        yard.add({"type": "email", **facts})
    monkeypatch.setenv("COLUMNS", "100")
    header, *rows = (line[36:].split()[:-2] for line in run("list").stdout.splitlines())
    assert header == ["STATUS", "TRIES", "NEXT", "TYPE"]
    assert rows[::-1] == [
        ["pending", "0/5", "email", "default"],
        ["pending", "2/5", "in", "14", "min", "email", "default"],
        ["failed", "1/5", "email", "default"],
    ]


def test_without_a_terminal_there_are_no_colours(yard: Yard, run: Run) -> None:
    yard.add({"type": "email", "status": "failed"})
    assert "\x1b" not in run("list").stdout


def test_every_filter_goes_to_the_server(yard: Yard, run: Run) -> None:
    said = "--status failed --type email --queue bulk --tag vip --metadata order=1=7 --metadata shop=x"
    times = "--created-after 2026-01-01T00:00:00Z --created-before 2026-02-01T00:00:00+01:00"
    assert run("list", *said.split(), *times.split(), "--limit", "7").exit_code == 0
    assert asked(yard) == {
        "status": "failed",
        "type": "email",
        "queue": "bulk",
        "tag": "vip",
        "metadata.order": "1=7",
        "metadata.shop": "x",
        "createdAfter": "2026-01-01T00:00:00+00:00",
        "createdBefore": "2026-02-01T00:00:00+01:00",
        "pageSize": "8",
    }


@pytest.mark.parametrize(("ago", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259_200)])
def test_a_time_may_be_how_long_ago(yard: Yard, run: Run, ago: str, seconds: int) -> None:
    before = datetime.now(UTC)
    run("list", "--created-after", ago)
    since = datetime.fromisoformat(asked(yard)["createdAfter"]) + timedelta(seconds=seconds)
    assert before <= since <= datetime.now(UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--created-after", "2026-01-01T00:00:00"],
        ["--created-before", "yesterday"],
        ["--created-after", "999999999d"],
        ["--metadata", "order"],
        ["--status", "dead"],
        ["--limit", "0"],
        ["--all", "--limit", "5"],
    ],
)
def test_a_filter_that_cannot_be_is_wrong_usage_and_is_not_sent(
    yard: Yard, run: Run, wrong: list[str]
) -> None:
    result = run("list", *wrong)
    assert (result.exit_code, result.stdout, yard.seen) == (2, "", [])
    assert wrong[0] in result.stderr


def test_a_wrong_choice_is_told_in_one_sentence(run: Run) -> None:
    said = " ".join(run("list", "--status", "dead").stderr.split())
    assert "Invalid value for '--status': 'dead' is not one of 'pending'," in said


def test_a_filter_that_the_server_refuses_is_told_with_its_place(yard: Yard, run: Run) -> None:
    yard.instead.append(problem(422, "validation_failed", ("/type", "must be letters")))
    result = run("list", "--type", "a b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "/type: must be letters" in result.stderr


def test_fifty_are_shown_and_that_there_are_more_is_said_beside_the_data(yard: Yard, run: Run) -> None:
    for _ in range(50):
        yard.add({"type": "email"})
    assert run("list").stderr == ""
    yard.add({"type": "email"})
    result = run("list")
    assert len(result.stdout.splitlines()) == 51
    assert "newest 50" in result.stderr
    assert "--all" in result.stderr


def test_all_are_read_over_all_pages(yard: Yard, run: Run) -> None:
    for _ in range(1_001):
        yard.add({"type": "email"})
    result = run("list", "--all")
    assert (len(result.stdout.splitlines()), result.stderr) == (1_002, "")
    assert len(yard.seen) == 2


def test_json_is_a_line_for_each_job_as_the_server_wrote_it(yard: Yard, run: Run) -> None:
    for n in range(3):
        yard.add({"type": "email\x1b", "tags": ["ü"], "somethingNew": n})
    result = run("list", "--json", "--limit", "2")
    jobs = [json.loads(line) for line in result.stdout.splitlines()]
    assert [{**job, "result": None} for job in jobs] == [*yard.jobs.values()][:0:-1]
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_that_no_job_fits_is_no_failure_and_no_data(yard: Yard, run: Run) -> None:
    yard.add({"type": "email"})
    result = run("list", "--status", "failed")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no job fits\n")
    assert run("list", "--status", "failed", "--json").output == ""


def test_names_cannot_drive_the_terminal(yard: Yard, run: Run) -> None:
    yard.add({"type": "a\nb\x1b[2J", "queue": "\u202e"})
    output = run("list").stdout
    assert not {"\x1b", "\u202e"} & set(output)
    assert len(output.splitlines()) == 2


@pytest.mark.parametrize(
    ("key", "advice"), [(None, "set JOBYARD_KEY"), ("wrong", "another key than JOBYARD_KEY")]
)
def test_a_missing_and_a_wrong_key_are_told_apart(
    yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch, key: str | None, advice: str
) -> None:
    if key:
        monkeypatch.setenv("JOBYARD_KEY", key)
    yard.instead.append(problem(401, "unauthenticated"))
    result = run("list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "401 unauthenticated" in result.stderr
    assert advice in result.stderr
    assert key is None or key not in result.stderr.replace(advice, "").split()
