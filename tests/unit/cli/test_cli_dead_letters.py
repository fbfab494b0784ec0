from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from contract_server import Yard, busy, problem
from pseudo_terminal import on_terminal
from typer.testing import Result

Run = Callable[..., Result]
ERROR = {"type": "LookupError", "message": "no customer 7\nat all"}
STRANGER = "0199aaaa-0000-7000-8000-000000000000"
FILTERS = (
    "--type email --queue bulk --reason timeout --error customer --failed-before 2026-02-01T00:00:00+01:00"
)
TIMES = "--failed-after 2026-01-01T00:00:00Z"
ON_THE_WAY = {
    "type": "email",
    "queue": "bulk",
    "reason": "timeout",
    "error": "customer",
    "failedAfter": "2026-01-01T00:00:00",
    "failedBefore": "2026-02-01T00:00:00+01:00",
}


def run_on(run: Run, *arguments: str) -> Result:
    return run("dead-letters", *arguments)


def bodies(yard: Yard) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in yard.seen if request.body]


# list


def test_dead_letters_are_a_table_newest_first_with_the_reason_and_its_error(yard: Yard, run: Run) -> None:
    [old] = yard.add_dead(error=ERROR)
    [new] = yard.add_dead(reason="non_retryable", run=2, error=ERROR)
    lines = run_on(run, "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "REASON", "RUN", "TYPE", "FAILED"]
    assert lines[1].split()[:4] == [new, "non_retryable", "2", "email"]
    assert lines[3].split()[:3] == [old, "exhausted", "email"]
    assert lines[2] == lines[4] == "  LookupError: no customer 7"
    assert max(map(len, lines)) <= 80


def test_every_filter_of_the_list_goes_to_the_server(yard: Yard, run: Run) -> None:
    assert run_on(run, "list", *FILTERS.split(), *TIMES.split()).exit_code == 0
    asked = {name: value.removesuffix("+00:00") for name, [value] in parse_qs(yard.seen[0].query).items()}
    assert asked == {**ON_THE_WAY, "pageSize": "51"}


def test_fifty_dead_letters_are_shown_and_all_are_read_over_all_pages(yard: Yard, run: Run) -> None:
    yard.add_dead(1_001)
    few = run_on(run, "list", "--json")
    assert len(few.stdout.splitlines()) == 50
    assert "--all" in run_on(run, "list").stderr
    assert len(run_on(run, "list", "--all", "--json").stdout.splitlines()) == 1_001


def test_that_there_is_no_dead_letter_is_no_failure(run: Run) -> None:
    result = run_on(run, "list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no dead letter fits\n")


# redrive


def test_redrive_goes_on_until_all_that_fit_are_done(yard: Yard, run: Run) -> None:
    yard.add_dead(1_001)
    [other] = yard.add_dead(type="http")
    result = run_on(run, "redrive", "--type", "email", "--rate", "100")
    assert (result.exit_code, result.stdout) == (0, "1,001 redriven, spread over 10.00 s\n")
    assert [job_id for job_id, job in yard.jobs.items() if job["deadLetter"]] == [other]
    assert [body["rate"] for body in bodies(yard)] == [100, 100]


@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_every_filter_of_a_deed_goes_to_the_server(yard: Yard, run: Run, verb: str) -> None:
    run_on(run, verb, *FILTERS.split(), *TIMES.split(), "--dry-run", "--limit", "7")
    [body] = bodies(yard)
    body["filter"]["failedAfter"] = body["filter"]["failedAfter"].removesuffix("Z")
    assert body == {"filter": ON_THE_WAY, "dryRun": True, "limit": 7, "pageToken": None}


@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_a_preview_says_how_many_shows_the_oldest_and_changes_nothing(
    yard: Yard, run: Run, verb: str
) -> None:
    ids = yard.add_dead(12, error=ERROR)
    result = run_on(run, verb, "--dry-run")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1:2]] == ids[:10]
    assert lines[-1] == {"redrive": "12 would be redriven", "purge": "12 would be deleted"}[verb]
    assert "oldest 10" in result.stderr
    assert all(job["deadLetter"] for job in yard.jobs.values())


def test_a_job_that_vanished_meanwhile_is_no_reason_to_break_the_preview_off(yard: Yard, run: Run) -> None:
    _, still_there = yard.add_dead(2)
    yard.instead.extend([None, problem(404, "not_found")])
    result = run_on(run, "redrive", "--dry-run")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", still_there, "2"]


@pytest.mark.parametrize("verb", ["redrive", "purge"])
def test_to_mean_every_dead_letter_takes_a_word_of_its_own(yard: Yard, run: Run, verb: str) -> None:
    yard.add_dead(2)
    forgotten = run_on(run, verb)
    assert (forgotten.exit_code, yard.seen) == (2, [])
    assert "--all" in forgotten.stderr
    assert run_on(run, verb, "--all", "--type", "email").exit_code == 2
    meant = run_on(run, verb, "--all", *(["--yes"] if verb == "purge" else []))
    assert (meant.exit_code, meant.stdout[:2]) == (0, "2 ")


def test_who_names_jobs_hears_which_are_no_dead_letters(yard: Yard, run: Run) -> None:
    [job_id] = yard.add_dead()
    result = run_on(run, "redrive", job_id, STRANGER)
    assert (result.exit_code, result.stdout) == (1, "1 redriven\n")
    assert result.stderr == f"no dead letter, or none that fits the filters: {STRANGER}\n"
    assert bodies(yard)[0]["filter"] == {"jobs": [job_id, STRANGER]}


def test_no_more_are_redriven_than_the_limit(yard: Yard, run: Run) -> None:
    ids = yard.add_dead(3)
    assert run_on(run, "redrive", "--all", "--limit", "2").stdout == "2 redriven\n"
    assert [yard.jobs[job_id]["deadLetter"] for job_id in ids] == [False, False, True]


def test_json_is_a_line_a_page_as_the_server_wrote_it(yard: Yard, run: Run) -> None:
    ids = yard.add_dead(1_001)
    for options in (["--dry-run"], []):
        result = run_on(run, "redrive", "--type", "email", "--json", *options)
        pages = [json.loads(line) for line in result.stdout.splitlines()]
        assert [job for page in pages for job in page["jobs"]] == ids
        assert [page["dryRun"] for page in pages] == [bool(options)] * 2
        assert result.stderr == ""


def test_a_failure_on_the_way_tells_how_far_it_got_and_how_to_go_on(yard: Yard, run: Run) -> None:
    yard.add_dead(1_500)
    yard.instead.extend([None, busy()])
    result = run_on(run, "redrive", "--all", "--limit", "1200")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "stopped after 1,000 redriven; go on with the same command and --limit 200\n" in result.stderr


def test_a_failure_at_the_beginning_says_nothing_of_going_on(yard: Yard, run: Run) -> None:
    yard.instead.append(busy())
    result = run_on(run, "redrive", "--all")
    assert (result.exit_code, "stopped" in result.stderr) == (1, False)


@pytest.mark.parametrize("rate", ["0", "10001", "nan"])
def test_a_rate_that_cannot_be_is_wrong_usage(yard: Yard, run: Run, rate: str) -> None:
    assert run_on(run, "redrive", "--all", "--rate", rate).exit_code == 2
    assert yard.seen == []


# purge


@pytest.mark.parametrize("options", [["--all"], ["--type", "email"], ["--all", "--json"]])
def test_where_nobody_can_be_asked_nothing_is_deleted_without_yes(
    yard: Yard, run: Run, options: list[str]
) -> None:
    yard.add_dead(2)
    refused = run_on(run, "purge", *options)
    assert (refused.exit_code, refused.stdout, yard.seen) == (2, "", [])
    assert "--yes" in refused.stderr
    assert run_on(run, "purge", *options, "--yes").exit_code == 0
    assert yard.jobs == {}


@pytest.fixture
def at_the_yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_URL", yard.url)


@pytest.mark.usefixtures("at_the_yard")
def test_on_a_terminal_purge_asks_for_words_and_deletes_what_was_shown(yard: Yard) -> None:
    shown = yard.add_dead(1_001)
    with on_terminal("dead-letters", "purge", "--all") as terminal:
        terminal.until("1,001 will be deleted", "cannot be undone", "type 'purge 1001' to go on: ")
        assert shown[0] in terminal.said
        [later] = yard.add_dead()
        terminal.type("purge 1001\n")
        assert terminal.end() == 0
    assert "1,001 deleted" in terminal.said
    assert [*yard.jobs] == [later]


@pytest.mark.usefixtures("at_the_yard")
@pytest.mark.parametrize("answer", ["\n", "y\n", "purge\n", "purge 3\n", "\x04"])
def test_any_other_answer_deletes_nothing(yard: Yard, answer: str) -> None:
    yard.add_dead(2)
    with on_terminal("dead-letters", "purge", "--type", "email") as terminal:
        terminal.until("to go on: ")
        terminal.type(answer)
        assert terminal.end() == 1
    assert "nothing was deleted" in terminal.said
    assert len(yard.jobs) == 2


@pytest.mark.usefixtures("at_the_yard")
def test_ctrl_c_at_the_question_deletes_nothing(yard: Yard) -> None:
    yard.add_dead(2)
    with on_terminal("dead-letters", "purge", "--all") as terminal:
        terminal.until("to go on: ")
        assert terminal.interrupt() == 130
    assert len(yard.jobs) == 2
