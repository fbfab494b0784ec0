from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))
from contract_server import ContractServer, Yard

from jobyard.cli import app

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def contract_server() -> Iterator[ContractServer]:
    server = ContractServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def yard(contract_server: ContractServer) -> Iterator[Yard]:
    yard = contract_server.fresh()
    yield yard
    yard.hold_bulk.set()


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
