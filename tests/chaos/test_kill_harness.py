"""Nothing that was accepted is lost, and no job has two outcomes, whatever dies: proven on real processes."""

from __future__ import annotations

import os
import random

import pytest

from chaos.meddler import WAYS
from chaos.report import Report
from chaos.run import Plan, run

SOAK_SECONDS = "JOBYARD_SOAK_SECONDS"
SOAK_JOBS = "JOBYARD_SOAK_JOBS"
SEED = "JOBYARD_CHAOS_SEED"


def seed() -> int:
    return int(os.environ.get(SEED) or random.randrange(1_000_000))


def require_no_violation(plan: Plan, record_property: pytest.RecordProperty) -> Report:
    report = run(plan)
    record_property("report", f"{report.as_text()}\n{report.as_json()}")
    assert not report.violations, report.as_text()
    return report


def test_under_45_seconds_of_faults_no_job_is_lost_and_none_has_two_outcomes(record_property):
    """At a moderate load, since other tests run beside it."""
    require_no_violation(Plan(seconds=45, jobs=0, seed=seed(), per_second=60), record_property)


def require_that_announcements_were_meddled_with(meddled: dict[str, int]) -> None:
    assert all(meddled.get(way, 0) > 10 for way in WAYS), meddled


def test_over_a_bad_broker_that_is_killed_too_none_of_5000_jobs_is_lost(record_property):
    plan = Plan(
        seconds=25, jobs=5000, seed=seed(), per_second=220, bulk_jobs=50, fault_every_seconds=2.5, broker=True
    )
    report = require_no_violation(plan, record_property)
    require_that_announcements_were_meddled_with(report.meddled)
    assert report.events > 3 * plan.jobs - 100, "another service heard of all that happened"


def test_from_one_bus_to_another_and_back_under_load_nothing_is_lost_and_nothing_ends_twice(record_property):
    plan = Plan(seconds=15, jobs=0, seed=seed(), per_second=60, switches=True)
    report = require_no_violation(plan, record_property)
    switched = {fault["kind"] for fault in report.audit.faults}
    assert {"switch worker to nats", "switch maintain to pubsub", "switch worker to postgres"} <= switched


@pytest.mark.soak
def test_over_a_bad_broker_none_of_200000_jobs_is_lost(record_property):
    plan = Plan(
        seconds=float(os.environ.get(SOAK_SECONDS) or 1800) / 3,
        jobs=int(os.environ.get(SOAK_JOBS) or 1_000_000) // 5,
        seed=seed(),
        per_second=400,
        bulk_jobs=250,
        fault_every_seconds=8,
        lease_seconds=3,
        concurrency=16,
        broker=True,
    )
    require_that_announcements_were_meddled_with(require_no_violation(plan, record_property).meddled)


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
