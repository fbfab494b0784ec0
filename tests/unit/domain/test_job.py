from __future__ import annotations

from uuid import UUID

from jobyard.domain.job import LaneKey, NewJob
from jobyard.domain.retry import Backoff

ID = UUID("0192f0c1-2d3e-7abc-8def-0123456789ab")


def test_a_job_starts_in_the_trusted_lane_of_its_tenant_queue_type_and_priority():
    job = NewJob(ID, "email", "{}", queue="mail", priority=9, tenant=4)
    assert job.lane == LaneKey(tenant=4, queue="mail", type="email", priority=9, suspect=0)


def test_what_a_client_leaves_out_has_the_defaults_of_the_contract():
    job = NewJob(ID, "email", "{}")
    assert (job.queue, job.priority, job.max_attempts, job.timeout_seconds) == ("default", 5, 5, 3600.0)
    assert job.backoff == Backoff(base_seconds=2.0, cap_seconds=3600.0)
    assert (job.tenant, job.run_at, job.delay_seconds, job.idempotency) == (1, None, None, None)


def test_a_lane_at_another_level_differs_in_nothing_else():
    key = LaneKey(1, "default", "email", 5)
    assert key.at_level(2) == LaneKey(1, "default", "email", 5, suspect=2)
    assert key.at_level(2).at_level(0) == key
    assert key.at_level(0) is key
