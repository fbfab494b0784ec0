"""The command as a process: exit codes, signals, pipes and terminals as a shell sees them."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_server import Yard, eventually

JOBYARD = [sys.executable, "-m", "jobyard.cli"]
BULK = "/api/jobs/bulk"


@pytest.fixture(autouse=True)
def at_the_yard(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBYARD_URL", yard.url)


def jobyard(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JOBYARD, *arguments], capture_output=True, text=True, timeout=60, check=False, **more
    )


@pytest.fixture
def mails(tmp_path: Path) -> Path:
    path = tmp_path / "mails.jsonl"
    path.write_text("".join(json.dumps({"type": "email", "payload": {"n": n}}) + "\n" for n in range(2_500)))
    return path


@pytest.fixture
def nobody() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_job_is_created_and_shown(yard: Yard) -> None:
    created = jobyard("create", "email", '{"to":"user@example.com"}', "--json")
    job_id = json.loads(created.stdout)["id"]
    assert (created.returncode, created.stderr) == (0, "")
    shown = jobyard("get", job_id, "--wait", "5", "--json")
    assert json.loads(shown.stdout)["status"] == "completed"
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize("command", [["get", "x"], ["create", "email"], ["create", "--file", "-"]])
def test_an_absent_server_is_one_sentence_and_exit_4(nobody: str, command: list[str]) -> None:
    result = jobyard(*command, stdin=subprocess.DEVNULL, env={**os.environ, "JOBYARD_URL": nobody})
    assert result.returncode == 4
    assert result.stderr.count("\n") == 1
    assert nobody in result.stderr
    assert "make run" in result.stderr
    assert result.stdout == ""


def test_ctrl_c_tells_how_far_it_got_and_the_run_can_go_on(yard: Yard, mails: Path) -> None:
    yard.hold_bulk.clear()
    with subprocess.Popen(
        [*JOBYARD, "create", "--file", str(mails)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: len(yard.requests(BULK)) == 1)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.startswith("0 created")
    assert "Traceback" not in complained
    yard.hold_bulk.set()
    eventually(lambda: len(yard.jobs) == 1_000)

    run_id = complained.split("--run-id ")[1].split()[0]
    assert jobyard("create", "--file", str(mails), "--run-id", run_id).returncode == 0
    assert len(yard.jobs) == 2_500


def test_a_reader_that_goes_away_stops_the_run_without_a_traceback(yard: Yard, mails: Path) -> None:
    with subprocess.Popen(
        [*JOBYARD, "create", "--file", str(mails), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        complained = process.stderr.read()
    assert process.returncode == 1
    assert "stopped after line" in complained
    assert "Traceback" not in complained
    assert "Exception" not in complained


def test_a_terminal_gets_a_bar_and_the_notes_stay_above_it(yard: Yard, mails: Path) -> None:
    with mails.open("a") as file:
        file.write("nonsense \x1b[2J\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*JOBYARD, "create", "--file", str(mails)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    ) as process:
        os.close(theirs)
        drawn = _read_all(ours)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 1
    assert said.startswith("2,500 created, 1 refused")
    assert "━" in drawn
    assert "created" in drawn
    assert "line 2501: malformed_line" in drawn


def _read_all(terminal: int) -> str:
    parts: list[bytes] = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:
        pass  # how Linux says that the other side of a terminal is closed
    os.close(terminal)
    return b"".join(parts).decode()


def test_a_terminal_that_knows_only_ascii_is_no_reason_to_crash(yard: Yard) -> None:
    job_id = yard.add({"type": "email", "payload": "Grüße 🙂"})
    result = jobyard("get", job_id, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert job_id in result.stdout


def test_looking_at_a_job_imports_neither_server_nor_worker() -> None:
    # The start-up of a command line is what its user feels.
    heavy = ["asyncpg", "starlette", "uvicorn", "structlog", "rich", "httpx", "jobyard.main", "jobyard.store"]
    script = f"import sys, jobyard.cli; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
