"""The events of a job, derived from its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobyard.domain.events import AttemptOutcome, AttemptRecord, EventType, events_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def attempt(lease: int, outcome: AttemptOutcome) -> AttemptRecord:
    started = NOON + timedelta(seconds=lease)
    ended = None if outcome is AttemptOutcome.RUNNING else started + timedelta(seconds=0.5)
    return AttemptRecord(1, 1, lease, 7, started, ended, None, outcome, None, None)


def test_a_job_that_only_waits_has_been_created_and_nothing_else():
    (created,) = events_of(NOON, [])
    assert (created.id, created.type, created.time, created.attempt) == (
        "0.created",
        EventType.CREATED,
        NOON,
        None,
    )


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (AttemptOutcome.RETRY, "retry_scheduled"),
        (AttemptOutcome.CRASH, "retry_scheduled"),
        (AttemptOutcome.RELEASE, "released"),
        (AttemptOutcome.ORPHAN, "released"),
        (AttemptOutcome.COMPLETED, "completed"),
        (AttemptOutcome.FAILED, "failed"),
    ],
)
def test_an_attempt_is_a_start_and_an_end(outcome: AttemptOutcome, ending: str):
    end, start, _ = events_of(NOON, [attempt(3, outcome)])
    assert (end.id, end.type, start.id) == (f"3.{ending}", f"job.{ending}", "3.started")
    assert end.key > start.key


def test_a_running_attempt_has_no_end_yet():
    assert [event.id for event in events_of(NOON, [attempt(3, AttemptOutcome.RUNNING)])] == [
        "3.started",
        "0.created",
    ]


def test_the_order_of_the_keys_is_the_order_of_the_times_and_no_id_is_there_twice():
    events = list(
        events_of(
            NOON,
            [
                attempt(9, AttemptOutcome.FAILED),
                attempt(4, AttemptOutcome.ORPHAN),
                attempt(2, AttemptOutcome.RETRY),
            ],
        )
    )
    assert [event.key for event in events] == sorted((event.key for event in events), reverse=True)
    assert [event.time for event in events] == sorted((event.time for event in events), reverse=True)
    assert len({event.id for event in events}) == len(events) == 7
