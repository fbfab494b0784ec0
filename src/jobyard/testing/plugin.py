"""The pytest plugin: the fixture `jobyard`. Whoever does not ask for it pays for the import of this module alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobyard.testing import Yard


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("jobyard_app", "Module that holds your handlers, e.g. `myapp.jobs` (else JOBYARD_APP).")


@pytest.fixture(scope="session")
def _jobyard_of_this_run(pytestconfig: pytest.Config) -> Iterator[Yard]:
    """One database and one API for the whole run; under xdist, for each of its workers."""
    from jobyard.testing import Yard, YardError

    yard = Yard(app=pytestconfig.getini("jobyard_app") or None, app_from="jobyard_app")
    fault = ""
    try:
        yard.open()
    except YardError as error:
        fault = str(error)
    if fault:  # not where it was caught: pytest would print what it came from as well
        pytest.fail(fault, pytrace=False)
    yield yard
    yard.close()


@pytest.fixture
def jobyard(_jobyard_of_this_run: Yard, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """Jobyard on a database of its own, empty at the start of each test. JOBYARD_URL leads to its HTTP API."""
    yard = _jobyard_of_this_run
    yard.reset()
    monkeypatch.setenv("JOBYARD_URL", yard.url)
    monkeypatch.delenv("JOBYARD_KEY", raising=False)
    return yard
