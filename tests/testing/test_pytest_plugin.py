"""The plugin as a user meets it: pytest in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

RunPytest = Callable[..., subprocess.CompletedProcess[str]]

JOBS = """
import os

from jobyard import Context, handler
from jobyard.client import Client

@handler("order")
async def order(payload: dict[str, str], ctx: Context) -> str:
    with Client(os.environ["JOBYARD_URL"]) as yard:
        yard.create("email", {"to": payload["to"], "subject": f"Order {payload['item']}"})
    return payload["item"]
"""

TESTS = """
import asyncio, os
import httpx
import pytest
from jobyard.testing import Yard

@pytest.mark.parametrize("turn", range(3))
def test_code_that_talks_http(jobyard: Yard, turn: int) -> None:
    assert jobyard.jobs() == []
    assert "JOBYARD_KEY" not in os.environ
    url = os.environ["JOBYARD_URL"]
    body = {"type": "order", "payload": {"item": "tea", "to": "ada@example.com"}}
    assert httpx.post(f"{url}/api/jobs", json=body).status_code == 202
    assert [job.type for job in jobyard.run_until_idle()] == ["order", "email"]
    [mail] = jobyard.outbox
    assert mail["subject"] == "Order tea"

@pytest.mark.asyncio
async def test_a_coroutine(jobyard: Yard) -> None:
    jobyard.create("order", {"item": "milk", "to": "ada@example.com"})
    loop = asyncio.get_running_loop()

    @jobyard.handler("email")
    async def email(payload: dict[str, str]) -> bool:
        return asyncio.get_running_loop() is loop

    assert [job.result for job in await jobyard.run_until_idle_async()] == ["milk", True]
"""

INI = "[pytest]\njobyard_app = jobs\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
PROJECT = {"pytest.ini": INI, "jobs.py": JOBS, "test_orders.py": TESTS}


def passed(run: subprocess.CompletedProcess[str], count: int) -> bool:
    assert run.returncode == 0, run.stdout + run.stderr
    return f"{count} passed" in run.stdout


def test_plain_tests_and_coroutines_use_the_same_fixture_and_each_worker_of_xdist_a_database_of_its_own(
    run_pytest: RunPytest,
) -> None:
    assert passed(run_pytest("-q -n 2", PROJECT, JOBYARD_KEY="secret"), 4)


def test_it_needs_no_pytest_asyncio_and_takes_the_handlers_from_the_environment(
    run_pytest: RunPytest,
) -> None:
    files = PROJECT | {"pytest.ini": "[pytest]\nfilterwarnings = error\n"}
    files["test_orders.py"] = TESTS.replace("@pytest.mark.asyncio", "@pytest.mark.skip")
    assert passed(run_pytest("-q -p no:asyncio -p no:xdist", files, JOBYARD_APP="jobs"), 3)


@pytest.mark.parametrize("options", ["", "-p jobyard"], ids=["found", "named"])
def test_a_run_that_does_not_use_it_loads_nothing_of_it(run_pytest: RunPytest, options: str) -> None:
    look = """
import sys

def test_nothing_is_loaded():
    loaded = {name for name in sys.modules if name.startswith("jobyard")}
    assert loaded == {"jobyard", "jobyard.testing", "jobyard.testing.plugin"}
    assert not {"asyncpg", "msgspec", "starlette", "uvloop"} & sys.modules.keys()
"""
    assert passed(run_pytest(f"-q -p no:asyncio -p no:xdist {options}", {"test_it.py": look}), 1)


def test_a_database_that_cannot_be_had_is_told_in_words_and_nothing_else(run_pytest: RunPytest) -> None:
    address = "postgresql://me:secret@127.0.0.1:1/db"
    run = run_pytest("-q -p no:xdist", PROJECT, JOBYARD_TEST_DATABASE_URL=address)
    assert run.returncode == 1
    assert "cannot reach PostgreSQL at postgresql://me:***@127.0.0.1:1/db" in run.stdout
    assert "secret" not in run.stdout
    assert "plugin.py" not in run.stdout


@pytest.mark.parametrize("place", ["jobyard_app", "JOBYARD_APP"])
def test_a_module_that_is_not_there_is_told_once_with_the_name_of_what_asked_for_it(
    run_pytest: RunPytest, place: str
) -> None:
    files = {"test_it.py": "def test_it(jobyard): ...", "pytest.ini": "[pytest]\njobyard_app = nope\n"}
    environment = {}
    if place == "JOBYARD_APP":
        files["pytest.ini"], environment = "", {"JOBYARD_APP": "nope"}
    run = run_pytest("-q -p no:xdist -p no:asyncio -rN", files, **environment)
    assert run.stdout.count("nope") == 1, run.stdout
    assert f"{place}: there is no module 'nope'" in run.stdout


def test_the_warning_of_jobs_without_a_handler_can_be_ignored_by_its_name(run_pytest: RunPytest) -> None:
    test = """
def test_it(jobyard):
    jobyard.create("of-another-service")
    jobyard.run_until_idle()
"""
    files = PROJECT | {"test_orders.py": test}
    assert "NoHandler: jobs are ready that have no handler" in run_pytest("-q -p no:xdist", files).stdout
    files["pytest.ini"] = INI.replace("= error", "=\n  error\n  ignore::jobyard.testing.NoHandler")
    assert passed(run_pytest("-q -p no:xdist", files), 1)


def test_a_failure_is_shown_without_the_inside_of_the_yard(run_pytest: RunPytest) -> None:
    test = """
def test_an_order(jobyard):
    jobyard.create("order", {"item": "tea"})
    jobyard.run_until_idle()

def test_no_order(jobyard):
    jobyard.assert_created("order", {"item": "tea"})
"""
    run = run_pytest("-q -p no:xdist", PROJECT | {"test_orders.py": test})
    assert "2 failed" in run.stdout
    assert "KeyError: 'to'" in run.stdout
    assert "In attempt 1 of 5 of order" in run.stdout
    assert "AssertionError: No 'order' job with payload {'item': 'tea'} was created." in run.stdout
    places = {
        line.split(":")[0]
        for line in run.stdout.splitlines()
        if ".py:" in line and " " not in line.split(":")[0]
    }
    assert places == {"test_orders.py", "jobs.py"}


def test_the_package_for_tests_is_light_until_a_name_is_asked_for() -> None:
    look = "import sys, jobyard.testing; print(*(m for m in sys.modules if m.startswith(('jobyard.', 'asyncpg'))))"
    found = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == ["jobyard.testing"]
