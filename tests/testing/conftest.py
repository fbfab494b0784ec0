"""The yard that the plugin gives to users, on the server that the run shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobyard.testing import Yard

RunPytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def _jobyard_of_this_run(server: Callable[[str], str]) -> Iterator[Yard]:
    yard = Yard()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JOBYARD_TEST_DATABASE_URL", server("postgres"))
        yard.open()
    yield yard
    yard.close()


@pytest.fixture
def run_pytest(tmp_path: Path, server: Callable[[str], str]) -> RunPytest:
    """Runs pytest as a user does, in a folder with these files: `run_pytest("-q", {"test_it.py": "..."}, PORT="1")`."""

    def run(options: str, files: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("JOBYARD_", "PYTEST_"))
        }
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *options.split()],
            cwd=tmp_path,
            env=kept | {"JOBYARD_TEST_DATABASE_URL": server("postgres")} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
