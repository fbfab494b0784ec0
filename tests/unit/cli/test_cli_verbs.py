from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from contract_server import Yard
from typer.testing import Result

Run = Callable[..., Result]
UNKNOWN = "0199aaaa-0000-7000-8000-000000000000"


def test_a_waiting_job_is_cancelled_and_shown(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email"})
    result = run("cancel", job_id)
    assert result.exit_code == 0
    assert "failed" in result.stdout
    assert "asked to end" not in result.stderr


def test_who_cancels_a_running_job_is_told_where_to_look(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "status": "processing"})
    result = run("cancel", job_id, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["cancelRequested"] is True
    assert f"jobyard watch {job_id}" in result.stderr


def test_a_failed_job_is_run_again(yard: Yard, run: Run) -> None:
    job_id = yard.add({"type": "email", "status": "failed"})
    result = run("retry", job_id, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["run"] == 2


@pytest.mark.parametrize(("verb", "status"), [("cancel", "completed"), ("retry", "pending")])
def test_a_verb_in_the_wrong_state_is_refused_with_its_code(
    yard: Yard, run: Run, verb: str, status: str
) -> None:
    job_id = yard.add({"type": "email", "status": status})
    result = run(verb, job_id)
    assert result.exit_code == 1
    assert "wrong_state" in result.stderr
    assert yard.jobs[job_id]["status"] == status


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_verb_on_an_unknown_job_ends_with_its_own_code(run: Run, verb: str) -> None:
    assert run(verb, UNKNOWN).exit_code == 3
    assert run(verb, "../jobs").exit_code == 2
