"""The command line against a real API, worker and maintainer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import pytest
from server_process import JOBYARD, eventually
from typer.testing import CliRunner

from jobyard.cli import app
from processes.program import environment, free_port, program

HANDLERS = """
from jobyard import handler

@handler("invoice")
async def invoice(payload: dict) -> dict:
    if "customer" not in payload:
        raise LookupError("no customer\\nin this payload")
    return {"sent": payload["customer"]}
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stack() -> Generator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def settings(database: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shop.py").write_text(HANDLERS)
    return {
        "DATABASE_URL": database,
        "PORT": str(free_port()),
        "JOBYARD_APP": "shop",
        "PYTHONPATH": str(tmp_path),
        "JOBYARD_KEY": "s3cret",
    }


@pytest.fixture
def run(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("JOBYARD_HOME", "DATABASE_URL", "PORT", "HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOBYARD_URL", url(settings))
    monkeypatch.setenv("JOBYARD_KEY", settings["JOBYARD_KEY"])
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, [*arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def url(settings: dict[str, str]) -> str:
    return f"http://localhost:{settings['PORT']}"


def wait_until_ready(settings: dict[str, str]) -> None:
    def is_ready() -> bool:
        try:
            return httpx.get(f"{url(settings)}/readyz", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    eventually(is_ready, "the API is ready")


def items(output: tuple[int, str, str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output[1].splitlines()]


def test_every_command_tells_of_a_job_that_failed(
    run: Run, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        program(tmp_path, "api", **settings),
        program(tmp_path, "worker", **settings),
        program(tmp_path, "maintain", **settings),
    ):
        wait_until_ready(settings)
        done = run("create", "invoice", '{"customer": 7}', "--wait", "20", "--json")
        assert (done[0], json.loads(done[1])["status"]) == (0, "completed")
        failing = ("--max-attempts", "2", "--tag", "mine", "--metadata", "shop=x", "--queue", "bulk")
        _, created, _ = run("create", "invoice", "{}", *failing)
        job = created.split()[0]

        code, said, complained = run("watch", job)
        assert code == 1
        assert "exhausted" in said.splitlines()[-1]
        assert job in complained

        filters = ["--status", "failed", "--type", "invoice", "--queue", "bulk", "--tag", "mine"]
        filters += [
            "--metadata",
            "shop=x",
            "--created-after",
            "1h",
            "--created-before",
            "2999-01-01T00:00:00Z",
        ]
        assert [it["id"] for it in items(run("list", *filters, "--json"))] == [job]
        assert job in run("list", *filters)[1]
        assert run("list", "--created-before", "1h")[1] == ""
        assert len(items(run("list", "--all", "--json"))) == 2

        _, tries, _ = run("attempts", job)
        assert re.findall(r"^ *\d +1 +(\d) +(retry|failed)", tries, re.MULTILINE) == [
            ("1", "retry"),
            ("2", "failed"),
        ]
        assert tries.count("  LookupError: no customer\n") == 2
        assert 'raise LookupError("no customer' in run("attempts", job, "--traceback")[1]
        told = [it["type"] for it in items(run("events", job, "--json"))]
        assert (told[0], told[-1], len(told)) == ("job.created", "job.failed", 5)
        assert "try 2, exhausted" in run("events", job)[1]
        assert "jobyard attempts" in run("get", job)[2]

        [worker] = items(run("workers", "--json"))
        assert ("invoice" in worker["types"], worker["alive"]) == (True, True)
        assert worker["name"] in run("workers")[1]
        assert {it["name"] for it in items(run("queues", "--json"))} == {"default", "bulk"}
        assert re.search(r"^bulk +invoice +1 ", run("queues")[1], re.MULTILINE)
        assert json.loads(run("stats", "--json")[1])["workers"]["live"] == 1
        assert "1 live" in run("stats")[1]

        monkeypatch.delenv("JOBYARD_KEY")
        code, said, complained = run("stats")
        assert (code, said) == (1, "")
        assert "set JOBYARD_KEY" in complained


def test_a_watcher_goes_on_when_the_server_was_killed_and_started_again(
    run: Run, settings: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    ours = environment(JOBYARD_URL=url(settings), JOBYARD_KEY=settings["JOBYARD_KEY"])
    with program(tmp_path, "api", **settings):
        wait_until_ready(settings)
        run("create", "first")
        watcher = subprocess.Popen(
            [*JOBYARD, "watch", "--json"], stdout=PIPE, stderr=PIPE, env=ours, text=True
        )
        stack.callback(watcher.communicate)
        stack.callback(watcher.kill)
        assert watcher.stdout is not None
        assert watcher.stderr is not None
        assert json.loads(watcher.stdout.readline())["type"] == "first"
    assert "waiting for it to come back" in watcher.stderr.readline()
    with program(tmp_path, "api", **settings):
        assert watcher.stderr.readline() == "the server is back\n"
        run("create", "second")
        assert json.loads(watcher.stdout.readline())["type"] == "second"
