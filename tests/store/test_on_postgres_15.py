"""The oldest PostgreSQL we promise to run on passes the same store tests as the newest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEBIAN = Path("/usr/lib/postgresql/15/bin")
SUITE = (
    "test_dispatch.py",
    "test_upkeep.py",
    "test_retention.py",
    "test_reads.py",
    "test_migrate.py",
    "test_plans.py",
    "test_sampling.py",
    "../doctor/test_schema.py",
)


def binaries() -> Path | None:
    given = os.environ.get("JOBYARD_TEST_PG15")
    folder = Path(given) if given else DEBIAN
    return folder if (folder / "initdb").exists() else None


def test_the_store_and_its_plans_hold_on_postgresql_15() -> None:
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL 15 here: set JOBYARD_TEST_PG15 to the folder of its programs")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "JOBYARD_TEST_"))
    }
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-n",
            "2",
            *(str(HERE / name) for name in SUITE),
        ],
        env=kept | {"PG_BIN": str(folder)},
        capture_output=True,
        text=True,
        cwd=HERE.parent.parent,
    )
    assert run.returncode == 0, run.stdout[-8000:]
    assert " passed" in run.stdout
