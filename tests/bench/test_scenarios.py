"""The benchmark tells what it promises to tell. How fast this machine is, is not a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobyard.bench.stage import stage
from jobyard.config import Settings

FIELDS = {
    "scenario",
    "jobs",
    "jobsPerSecond",
    "rawJobsPerSecond",
    "ratio",
    "p50Ms",
    "p99Ms",
    "walBytesPerJob",
    "machine",
    "versions",
}
MEASURED = {
    "create": {"jobsPerSecond", "rawJobsPerSecond", "ratio", "p50Ms", "p99Ms", "walBytesPerJob"},
    "drain": {"jobsPerSecond", "rawJobsPerSecond", "ratio", "walBytesPerJob", "cpuMicrosecondsPerJob"},
    "named": {"jobsPerSecond", "rawJobsPerSecond", "ratio"},
    "life": {"jobsPerSecond", "rawJobsPerSecond", "ratio", "p50Ms", "p99Ms", "walBytesPerJob"},
    "latency": {"p50Ms", "p99Ms"},
}


def bench(
    server: Callable[[str], str], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobyard.cli", "bench", *arguments],
        env=os.environ | {"DATABASE_URL": server("postgres")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("scenario", sorted(MEASURED))
def test_a_scenario_reports_every_figure_it_promises(server: Callable[[str], str], scenario: str) -> None:
    done = bench(server, scenario, "--jobs", "200", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) >= FIELDS
    assert report["scenario"] == scenario
    assert report["jobs"] == 200
    measured = {name for name in report if isinstance(report[name], float)}
    assert measured >= MEASURED[scenario]
    assert all(report[name] > 0 for name in measured)
    assert report["machine"]["cores"] > 0
    assert report["versions"]["postgresql"]


def test_the_bloat_scenario_compares_the_ends_of_a_run_with_a_transaction_left_open(
    server: Callable[[str], str],
) -> None:
    done = bench(server, "bloat", "--jobs", "500", "--json", JOBYARD_BENCH_BLOAT_SECONDS="4")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ratio"] > 0
    assert report["details"]["first third jobs/s"] > 0


def test_figures_for_people_name_the_machine_and_the_versions(server: Callable[[str], str]) -> None:
    done = bench(server, "drain", "--jobs", "200")
    assert done.returncode == 0, done.stderr
    assert "raw limit jobs/s" in done.stdout
    assert "postgresql" in done.stdout.splitlines()[0]


async def test_a_benchmark_leaves_no_database_behind(
    server: Callable[[str], str], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
    async with stage(Settings(database_url=server("postgres"))) as made:
        name = urlsplit(made.url).path.strip("/")
        assert await connection.fetchval(exists, name)
    assert not await connection.fetchval(exists, name)
