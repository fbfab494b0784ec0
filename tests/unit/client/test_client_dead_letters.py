"""Dead letters and a job's log, as Python calls."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from contract_server import NOW, Cut, Yard, busy

from jobyard.client import Client, Dealt, ServerUnreachable

REDRIVE, LETTERS = "/api/dead-letters/redrive", "/api/dead-letters"


def bodies(yard: Yard) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in yard.seen]


def test_the_log_of_a_job_is_read_over_all_pages_oldest_first(yard: Yard, client: Client) -> None:
    yard.rows["log"] = [
        {"lease": "7", "line": n, "at": NOW, "level": "info", "text": str(n)} for n in range(5)
    ]
    found = client.log("j")
    assert [(line.text, line.line, line.lease) for line in found] == [(str(n), n, "7") for n in range(5)]
    assert [json.loads(body)["at"] for body in found.json()] == [NOW] * 5


def test_dead_letters_are_listed_newest_first_with_every_filter(yard: Yard, client: Client) -> None:
    old, new = yard.add_dead(2, reason="timeout")
    yard.add_dead(reason="crashed")
    yard.add({"type": "email", "status": "failed"})
    found = client.dead_letters(
        type="email",
        queue="default",
        reason="timeout",
        failed_after=datetime(2030, 1, 1, tzinfo=UTC),
        failed_before="2030-02-01T00:00:00Z",
        error="no customer",
    )
    assert [job.id for job in found] == [new, old]
    assert parse_qs(yard.seen[0].query) == {
        "type": ["email"],
        "queue": ["default"],
        "reason": ["timeout"],
        "failedAfter": ["2030-01-01T00:00:00+00:00"],
        "failedBefore": ["2030-02-01T00:00:00Z"],
        "error": ["no customer"],
    }


def test_redrive_goes_on_until_all_that_are_meant_run_again(yard: Yard, client: Client) -> None:
    ids = yard.add_dead(2_001)
    [other] = yard.add_dead(type="http")
    assert client.redrive({"type": "email"}, rate=10) == Dealt(count=2_001, jobs=ids)
    assert yard.jobs[other]["deadLetter"]
    assert [body["limit"] for body in bodies(yard)] == [1_000] * 3
    assert [body["rate"] for body in bodies(yard)] == [10] * 3
    assert [body["pageToken"] for body in bodies(yard)] == [None, ids[999], ids[1_999]]


def test_no_more_than_the_limit_are_dealt_with(yard: Yard, client: Client) -> None:
    ids = yard.add_dead(1_500)
    assert client.purge({}, limit=1_001).jobs == ids[:1_001]
    assert [*yard.jobs] == ids[1_001:]
    assert [body["limit"] for body in bodies(yard)] == [1_000, 1]


def test_a_preview_says_which_it_would_be_and_changes_nothing(yard: Yard, client: Client) -> None:
    ids = yard.add_dead(3)
    for call in (client.redrive, client.purge):
        assert call({}, dry_run=True) == Dealt(count=3, jobs=ids, dry_run=True)
    assert all(job["deadLetter"] for job in yard.jobs.values())


def test_the_jobs_and_times_that_are_meant_go_by_their_json_names(yard: Yard, client: Client) -> None:
    [job_id] = yard.add_dead()
    after = datetime(2030, 1, 1, tzinfo=UTC)
    client.purge({"jobs": [job_id], "failed_after": after, "failed_before": None})
    assert bodies(yard)[0]["filter"] == {"jobs": [job_id], "failedAfter": "2030-01-01T00:00:00Z"}
    assert "rate" not in bodies(yard)[0]


def test_page_by_page_nothing_happens_before_it_is_iterated(yard: Yard, client: Client) -> None:
    yard.add_dead(1_001)
    pages = client.redrive_each({})
    assert yard.seen == []
    assert [page.count for page in pages] == [1_000, 1]


@pytest.mark.parametrize(("verb", "path"), [("redrive", REDRIVE), ("purge", LETTERS)])
def test_what_deals_with_dead_letters_is_sent_once_and_its_preview_again(
    yard: Yard, client: Client, verb: str, path: str
) -> None:
    yard.add_dead()
    yard.instead.append(busy())
    assert getattr(client, verb)({}, dry_run=True).count == 1
    yard.after.append(Cut())
    with pytest.raises(ServerUnreachable):
        getattr(client, verb)({})
    assert len(yard.requests(path)) == 3
