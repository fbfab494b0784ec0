from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from typer.testing import Result

import jobyard
import jobyard.bench
from jobyard.config import Settings

Run = Callable[..., Result]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Settings, dict[str, Any]]]:
    """What the command line asks of the composition root, which is none of its business."""
    calls: list[tuple[str, Settings, dict[str, Any]]] = []
    root = ModuleType("jobyard.main")

    def entry(name: str) -> Callable[..., int]:
        return lambda settings, **more: calls.append((name, settings, more)) or 7

    for name in ("dev", "api", "worker", "maintain", "migrate"):
        setattr(root, name, entry(name))
    monkeypatch.setitem(sys.modules, "jobyard.main", root)
    monkeypatch.setattr(jobyard, "main", root, raising=False)
    return calls


@pytest.mark.parametrize("command", ["dev", "api", "worker", "maintain", "migrate"])
def test_a_process_starts_with_the_settings_and_its_exit_code_is_ours(
    run: Run, called: list[Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PORT", "4000")
    assert run(command).exit_code == 7
    [(name, settings, more)] = called
    assert (name, settings.port) == (command, 4000)
    assert more == ({"as_json": False} if command == "migrate" else {})


def test_options_take_the_place_of_their_variables(
    run: Run, called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "4000")
    run("dev", "--port", "5000", "--host", "::1", "--app", "shop.jobs", "--concurrency", "3")
    run("worker", "--app", "shop.jobs", "--concurrency", "4")
    run("api", "--port", "6000")
    run("migrate", "--json")
    dev, worker, api, _ = (settings for _, settings, _ in called)
    assert (dev.port, dev.host, dev.app, dev.concurrency) == (5000, "::1", "shop.jobs", 3)
    assert (worker.app, worker.concurrency) == ("shop.jobs", 4)
    assert api.port == 6000
    assert called[-1][2] == {"as_json": True}


def test_an_option_passes_the_same_checks_as_its_variable(run: Run, called: list[Any]) -> None:
    result = run("api", "--host", "0.0.0.0", "--port", "70000")
    assert result.exit_code == 2
    assert called == []
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["PORT", "HOST"]


@pytest.mark.parametrize("command", [["dev"], ["get", "x"], ["create", "email"], ["bench", "drain"]])
def test_every_wrong_setting_is_told_on_a_line_without_its_secret(
    run: Run, called: list[Any], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root:hunter2@db/x")
    monkeypatch.setenv("JOBYARD_LEASE_SECONDS", "soon")
    result = run(*command)
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "DATABASE_URL",
        "JOBYARD_LEASE_SECONDS",
    ]
    assert "hunter2" not in result.output
    assert called == []


@pytest.mark.parametrize(("name", "value"), [("JOBYARD_URL", "http://x:99999"), ("JOBYARD_KEY", "hunter2é")])
def test_an_address_or_key_that_cannot_be_used_is_a_wrong_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    result = run("get", "x")
    assert result.exit_code == 2
    assert name in result.stderr
    assert "hunter2" not in result.output


def test_bench_runs_its_scenario(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(jobyard.bench, "run", lambda *given: calls.append(given[:3]) or 0, raising=False)
    assert run("bench", "drain", "--jobs", "500", "--json").exit_code == 0
    assert run("bench", "life").exit_code == 0
    assert calls == [("drain", 500, True), ("life", None, False)]
    assert run("bench", "sideways").exit_code == 2


def test_the_exit_codes_are_in_the_help(run: Run) -> None:
    said = " ".join(run("--help").stdout.split())
    for code in (
        "0 done",
        "1 refused",
        "2 wrong usage",
        "3 no such job",
        "4 no Jobyard server",
        "130 interrupted",
    ):
        assert code in said


def test_the_version_is_that_of_the_package(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").stdout == version("jobyard") + "\n"
