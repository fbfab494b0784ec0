from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from contract_server import Yard
from typer.testing import CliRunner, Result

from jobyard.cli import app

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests; 80 columns, as where there is no terminal."""
    for name in [*os.environ]:
        if name.startswith("JOBYARD_") or name in ("HOST", "PORT", "DATABASE_URL", "DATABASE_DIRECT_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process, against the yard."""
    monkeypatch.setenv("JOBYARD_URL", yard.url)

    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, [*arguments], input=stdin)
        expected = result.exception is None or isinstance(result.exception, SystemExit)
        assert expected, f"the command crashed: {result.exception!r}"
        return result

    return run
