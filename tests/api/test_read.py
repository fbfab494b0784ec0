"""GET: one job, its attempts and events, and lists."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.site import Site, problem
from jobyard.api.paging import make_token
from jobyard.domain.lifecycle import Fail, Retry, Succeeded
from jobyard.ids import new_job_id
from jobyard.store import dispatch
from store.scene import Scene, ending

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def every(site: Site, path: str, **query: Any) -> list[dict[str, Any]]:
    """The items of all pages."""
    items: list[dict[str, Any]] = []
    while True:
        answer = await site.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if answer.json()["nextPageToken"] is None:
            return items
        query["pageToken"] = answer.json()["nextPageToken"]


# One job


async def test_a_job_is_seen_through_its_life(site: Site, scene: Scene):
    job = await site.add()
    attempt = await scene.claim_one()
    running = await site.job(job)
    assert (running["status"], running["attempt"], running["runAt"]) == ("processing", 1, None)
    await dispatch.settle(scene.db, [ending(attempt, Succeeded('{"sent" :  1}'))])
    answer = await site.get(f"/api/jobs/{job}")
    assert b'"result":{"sent" :  1}' in answer.content
    done = answer.json()
    assert (done["status"], done["reason"], done["error"], done["deadLetter"]) == (
        "completed",
        None,
        None,
        False,
    )
    assert all(TIME.fullmatch(done[name]) for name in ("createdAt", "updatedAt"))
    assert done["updatedAt"] > running["updatedAt"] > done["createdAt"]


async def test_a_failed_job_tells_why_and_is_a_dead_letter(site: Site, scene: Scene):
    job = await site.add()
    await dispatch.settle(scene.db, [ending(await scene.claim_one(), Fail("no such mailbox", "Bounce"))])
    failed = await site.job(job)
    assert (failed["status"], failed["reason"], failed["deadLetter"]) == ("failed", "non_retryable", True)
    assert failed["error"] == {"type": "Bounce", "message": "no such mailbox"}


async def test_a_job_that_has_not_changed_is_not_sent_again(site: Site, scene: Scene):
    job = await site.add()
    path = f"/api/jobs/{job}"
    tag = (await site.get(path)).headers["etag"]
    for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        unchanged = await site.get(path, If_None_Match=known)
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    attempt = await scene.claim_one()
    changed = await site.get(path, If_None_Match=tag)
    assert (changed.status_code, changed.json()["status"]) == (200, "processing")
    await dispatch.settle(scene.db, [ending(attempt, Succeeded())])
    assert (await site.get(path, If_None_Match=changed.headers["etag"])).json()["status"] == "completed"


async def test_head_is_get_without_the_body(site: Site):
    job = await site.add()
    seen, head = await site.get(f"/api/jobs/{job}"), await site.client.head(f"/api/jobs/{job}")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", seen.headers["etag"])
    assert head.headers["content-length"] == str(len(seen.content))


async def test_an_id_may_be_written_in_capitals(site: Site):
    job = await site.add()
    assert (await site.get(f"/api/jobs/{job.upper()}")).json()["id"] == job


async def test_an_odd_id_is_no_job_we_have(site: Site):
    job = await site.add()
    odd = [
        "not-a-uuid",
        job[:-1],
        job + "%20",
        job + "%0A",
        "%20" + job,
        "%00",
        job.replace("-", ""),
        "x" * 10_000,
    ]
    odd += [
        f"%7B{job}%7D",
        f"urn:uuid:{job}",
        job.replace("-", "_"),
        "%F0%9F%90%8E",
        "%FF",
        job[:-1] + "%D9%A1",
    ]
    for path in ("", "/attempts", "/events"):
        for text in odd:
            answer = await site.get(f"/api/jobs/{text}{path}")
            problem(answer, 404, "not_found")
            assert "not the id of a job" in answer.json()["detail"]
        answer = await site.get(f"/api/jobs/{new_job_id()}{path}")
        problem(answer, 404, "not_found")
        assert "No such job" in answer.json()["detail"]


# Attempts and events


async def a_long_story(site: Site, scene: Scene) -> str:
    """A job that was released, failed once, was retried, and completed."""
    job = await site.add(maxAttempts=3)
    worker = await scene.worker()
    for outcome in (None, Retry(0, "not yet")):
        await dispatch.hand_back(scene.db, scene.lanes, [ending(await scene.claim_one(worker), outcome)])
    await dispatch.settle(scene.db, [ending(await scene.claim_one(worker), Succeeded("7"))])
    return job


async def test_the_attempts_are_told_newest_first(site: Site, scene: Scene):
    job = await a_long_story(site, scene)
    done, retried, released = await every(site, f"/api/jobs/{job}/attempts")
    assert [item["outcome"] for item in (done, retried, released)] == ["completed", "retry", "release"]
    assert [item["attempt"] for item in (done, retried, released)] == [2, 1, 1]
    assert retried["error"] == {"type": "Retry", "message": "not yet"}
    assert done["reason"] is None
    assert done["error"] is None
    assert int(done["lease"]) > int(retried["lease"]) > int(released["lease"])
    assert all(
        TIME.fullmatch(item[name]) for item in (done, retried, released) for name in ("startedAt", "endedAt")
    )


async def test_a_running_attempt_has_not_ended(site: Site, scene: Scene):
    job = await site.add()
    attempt = await scene.claim_one()
    (running,) = await every(site, f"/api/jobs/{job}/attempts")
    assert (running["outcome"], running["endedAt"], running["lease"]) == ("running", None, str(attempt.lease))


async def test_the_events_are_derived_from_the_rows_newest_first(site: Site, scene: Scene):
    job = await a_long_story(site, scene)
    leases = [item["lease"] for item in await every(site, f"/api/jobs/{job}/attempts")]
    events = await every(site, f"/api/jobs/{job}/events")
    assert [(event["id"], event["type"]) for event in events] == [
        (f"{leases[0]}.completed", "job.completed"),
        (f"{leases[0]}.started", "job.started"),
        (f"{leases[1]}.retry_scheduled", "job.retry_scheduled"),
        (f"{leases[1]}.started", "job.started"),
        (f"{leases[2]}.released", "job.released"),
        (f"{leases[2]}.started", "job.started"),
        ("0.created", "job.created"),
    ]
    assert {event["jobId"] for event in events} == {job}
    assert [event["time"] for event in events] == sorted((event["time"] for event in events), reverse=True)
    assert events[2]["data"]["cause"] == "retry"
    assert events[2]["data"]["error"] == {"type": "Retry", "message": "not yet"}
    assert (events[1]["data"]["attempt"], events[1]["data"]["run"]) == (2, 1)
    assert events[-1]["data"] == {}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_of_any_size_hold_each_attempt_and_event_once(site: Site, scene: Scene, size: int):
    job = await a_long_story(site, scene)
    for path in (f"/api/jobs/{job}/events", f"/api/jobs/{job}/attempts"):
        whole = await every(site, path)
        assert await every(site, path, pageSize=size) == whole


async def test_the_token_of_one_job_is_not_that_of_another(site: Site, scene: Scene):
    job, other = await a_long_story(site, scene), await site.add()
    for path in ("events", "attempts"):
        page = await site.get(f"/api/jobs/{job}/{path}?pageSize=1")
        token = page.json()["nextPageToken"]
        problem(await site.get(f"/api/jobs/{other}/{path}?pageToken={token}"), 400, "bad_page_token")


# Lists


async def test_a_list_is_newest_first_and_leaves_payload_and_result_out(site: Site):
    jobs = [await site.add(payload={"n": number}) for number in range(3)]
    items = (await site.get("/api/jobs")).json()["items"]
    assert [item["id"] for item in items] == jobs[::-1]
    whole = await site.job(jobs[0])
    assert items[-1] == {name: value for name, value in whole.items() if name not in ("payload", "result")}


async def test_filters_must_all_hold(site: Site, scene: Scene):
    one = await site.add(type="a", queue="q", tags=["x", "y"], metadata={"k": "v", "l": "w"})
    two = await site.add(type="a", queue="r", tags=["x"], metadata={"k": "v"})
    three = await site.add(type="b", queue="q", delaySeconds=60)
    created = {job: (await site.job(job))["createdAt"] for job in (one, two, three)}
    expected = {
        "type=a": [two, one],
        "queue=q": [three, one],
        "type=a&queue=q": [one],
        "tag=x": [two, one],
        "tag=y": [one],
        "metadata.k=v": [two, one],
        "metadata.k=v&metadata.l=w": [one],
        "metadata.k=w": [],
        "status=pending": [three, two, one],
        "status=failed": [],
        f"createdAfter={created[two]}": [three, two],
        f"createdBefore={created[two]}": [one],
        "type=none": [],
    }
    for query, jobs in expected.items():
        items = (await site.get(f"/api/jobs?{query}")).json()["items"]
        assert (query, [item["id"] for item in items]) == (query, jobs)


async def test_each_status_can_be_listed(site: Site, scene: Scene):
    (done,) = await scene.add_finished()
    (failed,) = await scene.add_finished(1, Fail("no"))
    processing = await site.add()
    await scene.claim_one()
    pending = await site.add()
    for status, job in {
        "completed": done,
        "failed": failed,
        "processing": processing,
        "pending": pending,
    }.items():
        items = (await site.get(f"/api/jobs?status={status}")).json()["items"]
        assert [(item["id"], item["status"]) for item in items] == [(str(job), status)]


@pytest.mark.parametrize("size", [100, 1])
async def test_a_walk_meets_each_job_once_while_others_come_and_go(site: Site, scene: Scene, size: int):
    jobs = {str(job) for job in await scene.add(250)}
    worker = await scene.worker()
    seen: list[str] = []
    query: dict[str, Any] = {"pageSize": size}
    for page in range(1000):
        answer = (await site.client.get("/api/jobs", params=query)).json()
        seen += [item["id"] for item in answer["items"]]
        if page % 25 == 0:
            await scene.add(2)
            claimed = await scene.claim(worker, 3)
            await dispatch.settle(scene.db, [ending(attempt, Succeeded()) for attempt in claimed])
        if answer["nextPageToken"] is None:
            break
        query["pageToken"] = answer["nextPageToken"]
    assert len(seen) == len(set(seen))
    assert jobs <= set(seen)


async def test_a_token_goes_with_its_filters_and_with_any_page_size(site: Site):
    for _ in range(4):
        await site.add(queue="q", metadata={"k": "v"})
    page = (await site.get("/api/jobs?queue=q&metadata.k=v&pageSize=1")).json()
    token = page["nextPageToken"]
    onwards = (await site.get(f"/api/jobs?metadata.k=v&pageSize=2&queue=q&pageToken={token}")).json()
    assert len(onwards["items"]) == 2
    assert page["items"][0] not in onwards["items"]
    others = (
        "",
        "queue=q&",
        "queue=r&metadata.k=v&",
        "queue=q&metadata.k=v&type=email&",
        "queue=q&metadata.l=v&",
    )
    for other in others:
        problem(await site.get(f"/api/jobs?{other}pageToken={token}"), 400, "bad_page_token")


async def test_a_mangled_token_is_refused(site: Site):
    for _ in range(2):
        await site.add()
    token = (await site.get("/api/jobs?pageSize=1")).json()["nextPageToken"]
    for mangled in (
        "",
        "x",
        token[:-1],
        token[1:],
        token + "A",
        token.swapcase(),
        "%00",
        "%F0%9F",
        "=" * 40,
        "A" * 10_000,
    ):
        problem(await site.get(f"/api/jobs?pageSize=1&pageToken={mangled}"), 400, "bad_page_token")


async def test_a_forged_token_is_a_position_like_any_other(site: Site, scene: Scene):
    job = await a_long_story(site, scene)
    for path, size in ((f"/api/jobs/{job}/events", 9), (f"/api/jobs/{job}/attempts", 8), ("/api/jobs", 16)):
        token = make_token(b"\xff" * size, path + "?{}")
        assert len((await site.get(f"{path}?pageToken={token}")).json()["items"]) == len(
            await every(site, path)
        )


async def test_what_a_query_cannot_say_is_refused_with_its_name(site: Site):
    refused = {
        "pageSize=0": "/pageSize",
        "pageSize=1001": "/pageSize",
        "pageSize=ten": "/pageSize",
        "pageSize=1e2": "/pageSize",
        "pageSize=%D9%A3": "/pageSize",
        "pageSize=" + "9" * 5000: "/pageSize",
        "pageSize=": "/pageSize",
        "status=done": "/status",
        "status=": "/status",
        "type=a%0A": "/type",
        "queue=a%20b": "/queue",
        "tag=": "/tag",
        "tag=a%00": "/tag",
        "metadata.k=%00": "/metadata/k",
        "metadata.%00=v": "/metadata/\\u0000",
        "createdAfter=2030-01-01T00:00:00": "/createdAfter",
        "createdAfter=1893456000": "/createdAfter",
        "createdBefore=9999-12-31T23:59:59.999999Z": "/createdBefore",
        "order=asc": "/order",
        "payload=1": "/payload",
        "metadata=1": "/metadata",
        "type=a&type=b": "/type",
        "&".join(f"metadata.k{number}=v" for number in range(60)): "",
    }
    for query, pointer in refused.items():
        answer = await site.get(f"/api/jobs?{query}")
        assert (query, list(problem(answer, 422, "validation_failed"))) == (query, [pointer])


async def test_bytes_that_are_no_utf8_are_a_filter_that_matches_nothing(site: Site):
    await site.add(tags=["a"])
    assert (await site.get("/api/jobs?tag=%FF")).json()["items"] == []
    assert (await site.get("/api/jobs?metadata.%FF=%ED%A0%80")).json()["items"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("/api/jobs?status=faild", "pending, processing, completed, failed"),
        ("/api/dead-letters?reason=bogus", "exhausted, non_retryable, timeout, crashed"),
    ],
)
async def test_a_word_that_is_none_of_a_few_is_refused_with_those_it_may_be(
    site: Site, query: str, words: str
):
    (fault,) = (await site.get(query)).json()["errors"]
    assert fault["detail"].endswith(f"; it is one of {words}")
