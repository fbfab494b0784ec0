"""Time is the database's, and only travelling moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from jobyard import Retry
from jobyard.client import ApiError
from jobyard.testing import Yard

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _handler(jobyard: Yard) -> None:
    jobyard.handler("t")(lambda ctx: "done" if ctx.attempt == ctx.max_attempts else Retry(after=60))


def ran(jobyard: Yard) -> list[str]:
    return [f"{job.attempt} {job.status}" for job in jobyard.run_until_idle()]


def test_a_delayed_job_runs_when_its_time_has_come_and_not_before(jobyard: Yard) -> None:
    jobyard.create("t", delay_seconds=3600, max_attempts=1)
    jobyard.travel(3590)
    assert ran(jobyard) == []
    jobyard.travel(timedelta(seconds=10))
    assert ran(jobyard) == ["1 completed"]


def test_retries_run_one_after_another_as_time_goes_on(jobyard: Yard) -> None:
    job = jobyard.create("t", max_attempts=3)
    assert ran(jobyard) == ["1 pending"]
    jobyard.travel(60)
    assert ran(jobyard) == ["2 pending"]
    jobyard.travel(50)
    assert ran(jobyard) == []
    jobyard.travel(10)
    assert ran(jobyard) == ["3 completed"]
    first, second, third = jobyard.job(job).attempts
    assert first.retry_at is not None
    assert second.started_at is not None
    assert second.started_at >= first.retry_at
    assert third.started_at is not None
    assert third.started_at - second.started_at >= timedelta(seconds=60)


def test_a_moment_is_travelled_to_and_the_api_tells_the_time_of_the_travel(jobyard: Yard) -> None:
    moment = jobyard.now() + 400 * DAY
    early = jobyard.create("t", run_at=moment)
    jobyard.travel_to(moment)
    late = jobyard.create("t", run_at=moment + DAY, max_attempts=1)
    assert early.run_at == moment
    assert moment <= jobyard.now() < moment + DAY
    created = jobyard.job(late).created_at
    assert created is not None
    assert created >= moment
    assert ran(jobyard) == ["1 pending"]
    jobyard.travel(DAY)
    assert ran(jobyard) == ["2 pending", "1 completed"]


def test_old_jobs_go_by_their_retention(jobyard: Yard) -> None:
    jobyard.create("t", max_attempts=1)
    waiting = jobyard.create("t", delay_seconds=366 * 86400)
    jobyard.run_until_idle()
    jobyard.travel(6 * DAY)
    assert len(jobyard.jobs()) == 2
    jobyard.travel(DAY)
    assert [job.id for job in jobyard.jobs()] == [waiting.id]


def test_more_than_a_batch_falls_due_at_once(jobyard: Yard) -> None:
    jobyard.client.create_many({"type": "t", "payload": {}, "delaySeconds": 5} for _ in range(1001))
    jobyard.travel(5)
    with pytest.raises(AssertionError, match=r"What is ready: t \(1000\)"):
        jobyard.run_until_idle(limit=1)


def test_an_idempotency_key_is_forgotten_after_its_day(jobyard: Yard) -> None:
    def create(item: str) -> None:
        jobyard.client.create("t", {"item": item}, idempotency_key="order-17")

    create("tea")
    jobyard.travel(DAY - timedelta(minutes=1))
    with pytest.raises(ApiError, match="idempotency_mismatch"):
        create("milk")
    jobyard.travel(timedelta(minutes=1))
    create("milk")
    assert [job.payload["item"] for job in jobyard.jobs()] == ["tea", "milk"]


def test_the_next_test_starts_at_the_real_time_again(jobyard: Yard) -> None:
    before = jobyard.now()
    jobyard.travel(DAY)
    jobyard.reset()
    assert before <= jobyard.now() < before + DAY


async def test_the_clock_of_the_server_stays_as_it_is(jobyard: Yard, database: str) -> None:
    connection = await asyncpg.connect(database)
    before = await connection.fetchval("SELECT now()")
    jobyard.travel(DAY)
    assert await connection.fetchval("SELECT now()") < before + DAY
    await connection.close()


def test_what_cannot_be_is_refused_in_words(jobyard: Yard) -> None:
    with pytest.raises(ValueError, match="time goes forward only, not by -1 s"):
        jobyard.travel(-1)
    with pytest.raises(ValueError, match="time goes forward only: it is 20"):
        jobyard.travel_to(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="2999-01-01T00:00:00 has no time zone"):
        jobyard.travel_to(datetime(2999, 1, 1))
