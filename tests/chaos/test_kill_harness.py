"""Nothing that was accepted is lost, and no job has two outcomes, whatever dies: proven on real processes."""

from __future__ import annotations

import os
import random

import pytest

from chaos.run import Plan, run

SOAK_SECONDS = "JOBYARD_SOAK_SECONDS"
SOAK_JOBS = "JOBYARD_SOAK_JOBS"
SEED = "JOBYARD_CHAOS_SEED"


def seed() -> int:
    return int(os.environ.get(SEED) or random.randrange(1_000_000))


def require_no_violation(plan: Plan, record_property: pytest.RecordProperty) -> None:
    report = run(plan)
    record_property("report", f"{report.as_text()}\n{report.as_json()}")
    assert not report.violations, report.as_text()


def test_under_45_seconds_of_faults_no_job_is_lost_and_none_has_two_outcomes(record_property):
    """At a moderate load, since other tests run beside it."""
    require_no_violation(Plan(seconds=45, jobs=0, seed=seed(), per_second=60), record_property)


@pytest.mark.soak
def test_under_half_an_hour_of_faults_none_of_a_million_jobs_is_lost(record_property):
    seconds = float(os.environ.get(SOAK_SECONDS) or 1800)
    jobs = int(os.environ.get(SOAK_JOBS) or 1_000_000)
    plan = Plan(
        seconds=seconds,
        jobs=jobs,
        seed=seed(),
        per_second=1.1 * jobs / seconds,
        bulk_jobs=250,
        bulk=2,
        fault_every_seconds=8,
        lease_seconds=3,
        concurrency=16,
        durable=True,
    )
    require_no_violation(plan, record_property)
