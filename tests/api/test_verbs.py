"""Cancel, retry and dead letters over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from api.site import Site, problem
from jobyard.domain.lifecycle import Fail, Succeeded
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from store.scene import Scene, ending

LETTERS = "/api/dead-letters"


async def dead(site: Site, scene: Scene, message: str = "no such mailbox", **fields: Any) -> str:
    """A dead letter with this error."""
    job = await site.add(**fields)
    worker = await scene.worker(fields.get("type", "email"))
    await dispatch.settle(scene.db, [ending(await scene.claim_one(worker), Fail(message, "Bounce"))])
    return job


async def deal(site: Site, verb: str, **asked: Any) -> dict[str, Any]:
    if verb == "redrive":
        answer = await site.client.post(f"{LETTERS}/redrive", json=asked)
    else:
        answer = await site.client.request("DELETE", LETTERS, json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(site: Site, **query: Any) -> list[str]:
    answer = await site.client.get(LETTERS, params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_a_cancel_answers_with_the_job_as_it_then_is(site: Site, scene: Scene):
    job = await site.add()
    answer = await site.client.post(f"/api/jobs/{job}/cancel")
    assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (
        200,
        "failed",
        "cancelled",
    )
    assert answer.json()["deadLetter"] is False
    problem(await site.client.post(f"/api/jobs/{job}/cancel"), 409, "wrong_state")


async def test_a_running_job_is_asked_and_says_so(site: Site, scene: Scene):
    job = await site.add()
    attempt = await scene.claim_one()
    for _ in range(2):
        answer = await site.client.post(f"/api/jobs/{job}/cancel")
        told = answer.json()
        assert (answer.status_code, told["status"], told["cancelRequested"]) == (202, "processing", True)
    await dispatch.settle(scene.db, [ending(attempt, Succeeded())])
    problem(await site.client.post(f"/api/jobs/{job}/cancel"), 409, "wrong_state")


async def test_a_failed_job_is_run_again_and_any_other_is_refused(site: Site, scene: Scene):
    job = await dead(site, scene)
    answer = await site.client.post(f"/api/jobs/{job}/retry")
    told = answer.json()
    assert answer.status_code == 200
    assert (told["status"], told["run"], told["attempt"], told["error"]) == ("pending", 2, 0, None)
    problem(await site.client.post(f"/api/jobs/{job}/retry"), 409, "wrong_state")
    kinds = [event["type"] for event in (await site.get(f"/api/jobs/{job}/events")).json()["items"]]
    assert kinds == ["job.redriven", "job.failed", "job.started", "job.created"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_verb_on_no_job_is_not_found(site: Site, verb: str):
    for job, says in ((new_job_id(), "No such job"), ("no-uuid", "not the id of a job")):
        answer = await site.client.post(f"/api/jobs/{job}/{verb}")
        problem(answer, 404, "not_found")
        assert says in answer.json()["detail"]


async def test_dead_letters_are_listed_newest_first_by_what_is_asked(site: Site, scene: Scene):
    bounced = await dead(site, scene, 'no such mailbox "ä"', queue="mail")
    broken = await dead(site, scene, "out of paper", type="print")
    completed = await site.add()
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), Succeeded())])
    await site.client.post(f"/api/jobs/{await site.add()}/cancel")
    assert completed not in await listed(site)
    assert await listed(site) == [broken, bounced]
    for query, found in (
        ({"type": "print"}, [broken]),
        ({"queue": "mail"}, [bounced]),
        ({"reason": "non_retryable"}, [broken, bounced]),
        ({"reason": "timeout"}, []),
        ({"error": "of paper"}, [broken]),
        ({"error": '"ä"'}, [bounced]),
        ({"failedBefore": "2020-01-01T00:00:00Z"}, []),
        ({"failedAfter": "2020-01-01T00:00:00Z", "pageSize": 1}, [broken]),
    ):
        assert await listed(site, **query) == found, query


@pytest.mark.parametrize("verb", ["redrive", "purge"])
async def test_a_preview_names_what_it_would_be_and_changes_nothing(site: Site, scene: Scene, verb: str):
    job = await dead(site, scene)
    previewed = await deal(site, verb, filter={}, dryRun=True)
    assert (previewed["jobs"], previewed["count"], previewed["dryRun"]) == ([job], 1, True)
    assert await listed(site) == [job]


async def test_a_limit_takes_the_oldest_and_the_token_goes_on(site: Site, scene: Scene):
    jobs = [await dead(site, scene) for _ in range(3)]
    first = await deal(site, "redrive", filter={"type": "email"}, limit=2)
    assert first["jobs"] == jobs[:2]
    rest = await deal(site, "redrive", filter={"type": "email"}, limit=2, pageToken=first["nextPageToken"])
    assert (rest["jobs"], rest["nextPageToken"]) == (jobs[2:], None)
    assert await listed(site) == []
    assert {(await site.job(job))["run"] for job in jobs} == {2}


async def test_a_purge_deletes_only_what_the_filter_means(site: Site, scene: Scene):
    gone, kept = await dead(site, scene, "one"), await dead(site, scene, "two")
    assert (await deal(site, "purge", filter={"error": "one"}))["jobs"] == [gone]
    problem(await site.get(f"/api/jobs/{gone}"), 404, "not_found")
    assert await listed(site) == [kept]


async def test_only_dead_letters_among_the_chosen_jobs_are_dealt_with(site: Site, scene: Scene):
    letter = await dead(site, scene)
    cancelled = await site.add()
    await site.client.post(f"/api/jobs/{cancelled}/cancel")
    chosen = {"jobs": [letter, cancelled, await site.add(), str(new_job_id())]}
    assert (await deal(site, "purge", filter=chosen))["jobs"] == [letter]
    assert (await site.job(cancelled))["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""),
        ({"filter": {"colour": "red"}}, "/filter/colour"),
        ({"filter": {"jobs": []}}, "/filter/jobs"),
        ({"filter": {"reason": "cancelled"}}, "/filter/reason"),
        ({"filter": {}, "limit": 0}, "/limit"),
        ({"filter": {}, "limit": 1001}, "/limit"),
        ({"filter": {}, "rate": 0}, "/rate"),
        ({"filter": {"failedAfter": "1900-01-01T00:00:00Z"}}, "/filter/failedAfter"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_its_place_and_deals_with_nothing(
    site: Site, scene: Scene, asked: dict[str, Any], pointer: str
):
    job = await dead(site, scene)
    answer = await site.client.post(f"{LETTERS}/redrive", json=asked)
    problem(answer, 422, "validation_failed")
    assert any(fault["pointer"].startswith(pointer) for fault in answer.json()["errors"])
    assert await listed(site) == [job]
