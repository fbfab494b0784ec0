from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_server import Cut, Yard, busy, problem
from typer.testing import Result

from jobyard.cli import lines, progress

Run = Callable[..., Result]
BULK = "/api/jobs/bulk"


@pytest.fixture
def mails(tmp_path: Path) -> Path:
    return tmp_path / "mails.jsonl"


def mail(n: int) -> str:
    return json.dumps({"type": "email", "payload": {"n": n}})


def output(result: Result) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *outcomes, summary = map(json.loads, result.stdout.splitlines())
    return outcomes, summary["summary"]


def test_every_line_becomes_a_job_in_requests_of_a_thousand(yard: Yard, run: Run, mails: Path) -> None:
    mails.write_text("\n".join(map(mail, range(2_500))))
    result = run("create", "--file", str(mails))
    assert result.exit_code == 0
    assert result.stdout.startswith("2,500 created, 0 refused in ")
    assert "jobs/s" in result.stdout
    assert [job["payload"]["n"] for job in yard.jobs.values()] == list(range(2_500))
    assert len(yard.requests(BULK)) == 3


def test_refused_and_malformed_lines_are_named_and_stop_no_other(yard: Yard, run: Run, mails: Path) -> None:
    mails.write_text(f'{mail(1)}\n{{"nope": 1}}\n\n{{"broken\n[1]\n"\\ud83d"\n{mail(7)}\r\n')
    result = run("create", "--file", str(mails))
    assert result.exit_code == 1
    assert result.stdout.startswith("2 created, 4 refused in ")
    said = result.stderr.splitlines()
    assert [
        line
        for line in said
        if "/nope: unknown field" in line and line.startswith("line 2: validation_failed")
    ]
    assert [line for line in said if line.startswith("line 4: malformed_line: the line is not JSON")]
    assert [line for line in said if line.startswith("line 5: malformed_line: the line is not a JSON object")]
    assert [line for line in said if line.startswith("line 6: malformed_line")]
    assert len(yard.jobs) == 2


def test_json_output_has_a_line_for_every_job_and_a_summary(yard: Yard, run: Run) -> None:
    result = run("create", "--file", "-", "--json", stdin=f"{mail(0)}\nnonsense\n{mail(2)}\n")
    outcomes, summary = output(result)
    by_line = {outcome["line"]: outcome for outcome in outcomes}
    assert {by_line[1]["id"], by_line[3]["id"]} == set(yard.jobs)
    assert by_line[2]["problem"]["code"] == "malformed_line"
    assert {name: summary[name] for name in ("created", "refused", "throughLine", "complete")} == {
        "created": 2,
        "refused": 1,
        "throughLine": 3,
        "complete": True,
    }
    assert summary["jobsPerSecond"] > 0
    assert summary["seconds"] >= 0
    assert result.exit_code == 1


def test_the_bytes_of_a_payload_are_not_touched(yard: Yard, run: Run) -> None:
    payload = '{"price": 1.10, "big": 123456789012345678901234567890, "s": "\\u00fc"}'
    assert run("create", "--file", "-", stdin=f'{{"type": "email", "payload": {payload}}}').exit_code == 0
    assert payload.encode() in yard.seen[0].body


def test_a_byte_order_mark_is_no_fault(yard: Yard, run: Run) -> None:
    assert run("create", "--file", "-", stdin=b"\xef\xbb\xbf" + mail(1).encode()).exit_code == 0
    assert len(yard.jobs) == 1


def test_bytes_that_are_not_utf_8_harm_their_line_alone(yard: Yard, run: Run) -> None:
    result = run("create", "--file", "-", stdin=b'{"type": "\xff"}\n' + mail(1).encode())
    assert "line 1: malformed_line: the line is not UTF-8 (byte 10)" in result.stderr
    assert len(yard.jobs) == 1


def test_a_line_beyond_every_bound_is_skipped_unread(
    yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE_BYTES", 1_000)
    exact = mail(1).ljust(999)
    result = run("create", "--file", "-", stdin=f"{exact}\n{mail(2):<5000}\n{mail(3)}\n")
    assert "line 2: malformed_line: the line is longer than" in result.stderr
    assert [job["payload"]["n"] for job in yard.jobs.values()] == [1, 3]


def test_trouble_on_the_way_makes_no_doubles(yard: Yard, run: Run, mails: Path) -> None:
    mails.write_text("\n".join(map(mail, range(1_500))))
    yard.instead.append(busy())
    yard.after.append(Cut())
    result = run("create", "--file", str(mails))
    assert result.exit_code == 0
    assert result.stderr.count("trying again") == 2
    assert sorted(job["payload"]["n"] for job in yard.jobs.values()) == list(range(1_500))


def test_the_same_run_id_again_makes_no_doubles_and_another_does(yard: Yard, run: Run, mails: Path) -> None:
    mails.write_text(f"{mail(1)}\n{mail(2)}\n")
    first, _ = output(run("create", "--file", str(mails), "--run-id", "monday", "--json"))
    again, told = output(run("create", "--file", str(mails), "--run-id", "monday", "--json"))
    assert (told["created"], told["replayed"]) == (2, 2)
    shown = run("create", "--file", str(mails), "--run-id", "monday").stdout
    assert shown.startswith("2 created (2 of them earlier), 0 refused in ")
    assert [outcome["id"] for outcome in first] == [outcome["id"] for outcome in again]
    run("create", "--file", str(mails), "--run-id", "tuesday")
    assert len(yard.jobs) == 4


def test_a_lines_own_idempotency_key_wins(yard: Yard, run: Run) -> None:
    own, none = {"type": "a", "idempotencyKey": "mine"}, {"type": "b", "idempotencyKey": None}
    run("create", "--file", "-", "--run-id", "r", stdin=f"{json.dumps(own)}\n{json.dumps(none)}\n")
    assert set(yard.by_key) == {"mine", "r:2"}


def test_a_failure_on_the_way_tells_how_far_it_got_and_how_to_go_on(
    yard: Yard, run: Run, mails: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails.write_text("\n".join(map(mail, range(1_500))))
    refusal = problem(401, "unauthenticated")

    original = yard.take

    def take(raw: bytes, key: str | None) -> Any:
        yard.always = refusal
        return original(raw, key)

    monkeypatch.setattr(yard, "take", take)  # from the second request on the server refuses
    result = run("create", "--file", str(mails), "--json", "--run-id", "it's")
    _, summary = output(result)
    assert result.exit_code == 1
    assert (summary["created"], summary["throughLine"], summary["complete"]) == (1_000, 1_000, False)
    assert "stopped after line 1000" in result.stderr
    assert """--run-id 'it'"'"'s'""" in result.stderr
    assert "401 unauthenticated" in result.stderr


def test_a_server_that_stays_away_ends_the_run_when_patience_does(yard: Yard, run: Run) -> None:
    yard.always = busy()
    result = run("create", "--file", "-", "--retry-for", "0.3", stdin=mail(1))
    assert result.exit_code == 1
    assert "503 overloaded" in result.stderr
    assert result.stdout.startswith("0 created")


def test_an_empty_file_is_done_at_once(run: Run) -> None:
    result = run("create", "--file", "-", stdin="\n\n")
    assert (result.exit_code, result.stdout[:20]) == (0, "0 created, 0 refused")


def test_where_there_is_no_terminal_progress_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Lines(200, every=0) as shown:
        shown.at(100, "1,000 created, 2 refused")
    assert capsys.readouterr().err == "1,000 created, 2 refused after 0 s, 50%\n"
    with progress.Lines(None, every=3_600) as shown:
        shown.at(100, "1,000 created")
    assert capsys.readouterr().err == ""
