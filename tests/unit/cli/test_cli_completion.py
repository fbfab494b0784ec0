"""Shell completion, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from contract_server import Yard, problem
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def offered(yard: Yard, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What is offered for the last word of a line."""
    from jobyard.cli import app

    def offered(line: str) -> list[str]:
        from typer.testing import CliRunner

        asked = {
            "_JOBYARD_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        result = CliRunner().invoke(app, prog_name="jobyard", env=asked)
        assert (result.exit_code, result.stderr) == (0, "")
        return sorted(filter(None, result.stdout.splitlines()))

    return offered


def queue(name: str, *types: str) -> dict[str, object]:
    return {"name": name, "types": [{"type": kind} for kind in types]}


def test_commands_options_and_statuses_are_completed(offered: Callable[[str], list[str]]) -> None:
    assert offered("jobyard wo") == ["worker", "workers"]
    assert {"--status", "--created-after"} <= set(offered("jobyard list --"))
    assert offered("jobyard dead-letters re") == ["redrive"]
    assert offered("jobyard dead-letters purge --reason e") == ["exhausted"]
    assert offered("jobyard list --status p") == ["pending", "processing"]


def test_names_of_queues_and_types_come_from_the_server(
    yard: Yard, offered: Callable[[str], list[str]]
) -> None:
    yard.rows["queues"] = [queue("bulk", "email", "http"), queue("bold"), queue("default", "email", "evil\n")]
    assert offered("jobyard list --queue b") == ["bold", "bulk"]
    assert offered("jobyard watch --type ") == ["email", "http"]
    assert offered("jobyard create e") == ["email"]


def test_a_server_that_cannot_answer_is_no_reason_to_complain(
    yard: Yard, offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.always = problem(401, "unauthenticated")
    assert offered("jobyard list --queue ") == []
    for url in ("http://127.0.0.1:9", "nonsense"):
        monkeypatch.setenv("JOBYARD_URL", url)
        assert offered("jobyard list --queue ") == []


def test_bash_completes_with_the_script_that_is_shown(yard: Yard, tmp_path: Path) -> None:
    yard.rows["queues"] = [queue("bulk-mails")]
    script = """
        source <(jobyard --show-completion)
        complete -p jobyard
        COMP_WORDS=(jobyard list --queue bu) COMP_CWORD=3
        _jobyard_completion jobyard
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": path, "JOBYARD_URL": yard.url, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["complete -o default -F _jobyard_completion jobyard", "bulk-mails"]
