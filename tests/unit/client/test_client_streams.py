"""What the client gives one by one: lists over all pages, and a job's changes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from contract_server import Cut, Yard, busy
from starlette.responses import JSONResponse

from jobyard.client import Client, NotJobyard, ServerUnreachable, Stream

COUNTS = {"pending": 3, "ready": 1, "scheduled": 2, "processing": 4, "suspects": 0, "oldestReadyAt": None}


def test_all_jobs_that_fit_are_listed_page_by_page(yard: Yard, client: Client) -> None:
    for n in range(5):
        yard.add({"type": "email" if n else "other", "payload": {}, "queue": str(n)})
    jobs = client.list_each(type="email", page_size=2)
    assert [job.queue for job in jobs] == ["4", "3", "2", "1"]
    assert [request.query for request in yard.seen] == [
        "type=email&pageSize=2",
        "type=email&pageSize=2&pageToken=2",
    ]


def test_a_page_is_fetched_only_when_it_is_asked_for(yard: Yard, client: Client) -> None:
    for _ in range(3):
        yard.add({"type": "email", "payload": {}})
    jobs = client.list_each(page_size=1)
    assert yard.seen == []
    next(iter(jobs))
    assert len(yard.seen) == 1


def test_json_is_what_the_server_wrote_and_read_makes_a_value_of_it(yard: Yard, client: Client) -> None:
    yard.rows = {"queues": [{"name": "a", "somethingNew": [1], "types": []}]}
    queues = client.queues()
    [body] = queues.json()
    assert json.loads(body) == yard.rows["queues"][0]
    assert queues.read(body) == next(iter(queues))


def test_an_item_of_another_shape_is_no_answer_of_a_jobyard(yard: Yard, client: Client) -> None:
    yard.rows = {"workers": [{"id": 1}]}
    with pytest.raises(NotJobyard, match="no Worker"):
        list(client.workers())


def test_the_yard_is_read_in_numbers(yard: Yard, client: Client) -> None:
    at = "2026-11-20T10:00:00.000000Z"
    pace = {"at": at, "seconds": 60.0, "created": 9, "retryScheduled": 2}
    workers = {"live": 2, "slots": 20, "idle": 1}
    yard.stats = {"sampledAt": at, "jobs": COUNTS, "workers": workers, "lastMinute": pace, "history": [pace]}
    stats = client.stats()
    assert (stats.jobs.ready, stats.jobs.processing, stats.workers.slots) == (1, 4, 20)
    assert stats.sampled_at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert stats.last_minute is not None
    assert (stats.last_minute.created, stats.last_minute.retry_scheduled) == (9, 2)
    assert json.loads(client.stats_json()) == yard.stats


def test_queues_and_workers_are_read_over_all_pages(yard: Yard, client: Client) -> None:
    kind = {"type": "email", "workers": 1, **COUNTS}
    yard.rows = {
        "queues": [{"name": name, "types": [kind], **COUNTS} for name in "abc"],
        "workers": [{"id": str(n), "name": "vm:1", "alive": True, "inFlight": n} for n in range(3)],
    }
    assert [(queue.name, queue.types[0].workers) for queue in client.queues()] == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]
    assert [worker.in_flight for worker in client.workers()] == [0, 1, 2]


def test_a_watched_job_is_given_at_each_change_until_it_is_final(yard: Yard, client: Client) -> None:
    job_id = yard.add({"type": "email", "payload": {}})
    yard.changes.extend([{}, {"status": "processing", "attempt": 1}, {}, {"status": "failed"}])
    assert [job.status for job in client.watch(job_id)] == ["pending", "processing", "failed"]
    first, *others = yard.seen
    assert "prefer" not in first.headers
    assert [request.headers["prefer"] for request in others] == ["wait=1"] * 4
    tags = [request.headers["if-none-match"] for request in others]
    assert (tags[0], tags[2]) == (tags[1], tags[3])
    assert tags[1] != tags[2]


def test_a_server_that_answers_a_watcher_at_once_is_not_asked_without_a_pause(
    yard: Yard, client: Client
) -> None:
    job_id = yard.add({"type": "email", "payload": {}})
    yard.changes.extend([{}, {}])
    assert [job.status for job in client.watch(job_id)] == ["pending", "completed"]
    times = [request.at for request in yard.seen]
    assert min(later - before for before, later in pairwise(times[1:])) >= 0.15


def test_a_final_job_is_given_once(yard: Yard, client: Client) -> None:
    job_id = yard.add({"type": "email", "payload": {}, "status": "completed"})
    assert [job.status for job in client.watch(job_id)] == ["completed"]
    assert len(yard.seen) == 1


def test_an_id_that_would_be_another_path_is_refused_before_the_first_item(client: Client) -> None:
    calls = (client.watch, client.attempts, client.events, client.log)
    for call in calls:
        with pytest.raises(ValueError, match="no id"):
            call("..")


def test_recovery_is_told_once_after_failures_and_never_without(yard: Yard) -> None:
    heard: list[str] = []
    with Client(
        yard.url,
        retry_seconds=10,
        on_retry=lambda failure, _: heard.append(type(failure).__name__),
        on_recovery=lambda: heard.append("recovered"),
    ) as client:
        client.get(yard.add({"type": "email", "payload": {}}))
        assert heard == []
        yard.instead.extend([Cut(), busy()])
        list(client.queues())
    assert heard == ["ServerUnreachable", "ApiError", "recovered"]


def test_a_client_waits_no_longer_than_it_was_told(yard: Yard) -> None:
    yard.hold_bulk.clear()
    began = time.monotonic()
    with (
        Client(yard.url, retry_seconds=0, timeout=0.2) as client,
        pytest.raises(ServerUnreachable, match="in time"),
    ):
        client.create_many([{"type": "email"}])
    assert time.monotonic() - began < 20


def test_every_pass_over_a_stream_asks_anew(yard: Yard, client: Client) -> None:
    queues: Stream[object] = client.queues()
    assert list(queues) == []
    yard.rows = {"queues": [{"name": "a"}]}
    assert len(list(queues)) == 1


def test_not_modified_is_no_answer_to_who_asked_for_all(yard: Yard, client: Client) -> None:
    yard.instead.append(JSONResponse(None, 304))
    with pytest.raises(NotJobyard):
        client.get("0199aaaa-0000-7000-8000-000000000000")
