"""POST /api/jobs: what is asked for is what is kept."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from api.site import MAIL, Site, problem, serving
from jobyard.domain.job import MAX_METADATA_BYTES
from jobyard.store.database import Pool
from jobyard.store.lanes import Lanes
from store.scene import Scene, until


async def test_the_missions_two_calls_word_for_word(site: Site):
    answer = await site.post(b'{"type":"email","payload":{"to":"user@example.com"}}')
    assert answer.status_code == 202
    job = answer.json()["id"]
    assert answer.json() == {"id": job, "status": "pending"}
    assert answer.headers["location"] == f"/api/jobs/{job}"
    seen = await site.get(answer.headers["location"])
    assert seen.status_code == 200
    fields = seen.json()
    assert (fields["id"], fields["type"], fields["status"]) == (job, "email", "pending")
    assert fields["payload"] == {"to": "user@example.com"}
    assert fields["createdAt"]
    assert fields["updatedAt"]


async def test_every_option_is_kept(site: Site):
    options: dict[str, Any] = {
        "type": "report.daily",
        "payload": [1, {"deep": None}],
        "queue": "slow",
        "priority": 9,
        "timeoutSeconds": 12.5,
        "maxAttempts": 3,
        "backoff": {"baseSeconds": 0.5, "capSeconds": 60},
        "tags": ["eu", "späť"],
        "metadata": {"order": "17", "": "empty name"},
    }
    job = await site.job(await site.add(**options))
    assert {name: job[name] for name in options} == options


async def test_what_is_left_out_gets_its_default_and_nothing_is_missing_from_the_answer(site: Site):
    job = await site.job(await site.add())
    shown = {
        name: value for name, value in job.items() if name not in ("id", "createdAt", "updatedAt", "runAt")
    }
    assert shown == {
        "type": "email",
        "status": "pending",
        "queue": "default",
        "priority": 5,
        "payload": {},
        "result": None,
        "error": None,
        "reason": None,
        "run": 1,
        "attempt": 0,
        "maxAttempts": 5,
        "timeoutSeconds": 3600,
        "backoff": {"baseSeconds": 2, "capSeconds": 3600},
        "tags": None,
        "metadata": None,
        "cancelRequested": False,
        "progress": None,
        "deadLetter": False,
        "traceparent": None,
    }


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b'""',
        b"-0",
        b"1.0e5",
        b"123456789012345678901234567890123456789012345678901234567890",
        b'{"b" : 1,"a":\t[ ],  "b":2}',
        rb'"\u00e9\ud83d\ude00 \\u0000 \\ud800 \/"',
        '"žluťoučký 🐎"'.encode(),
    ],
)
async def test_the_payloads_own_bytes_come_back(site: Site, payload: bytes):
    created = await site.post(b'{"type":"email","payload": %b }' % payload)
    answer = await site.get(created.headers["location"])
    assert b'"payload":' + payload + b"," in answer.content


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"type": ""}, "/type"),
    ({"type": "a b"}, "/type"),
    ({"type": "email\n"}, "/type"),
    ({"type": "\x1b[31m"}, "/type"),
    ({"type": "x" * 129}, "/type"),
    ({"type": None}, "/type"),
    ({"queue": "a b"}, "/queue"),
    ({"queue": "q\n"}, "/queue"),
    ({"queue": None}, "/queue"),
    ({"priority": -1}, "/priority"),
    ({"priority": 10}, "/priority"),
    ({"priority": 1.5}, "/priority"),
    ({"priority": "5"}, "/priority"),
    ({"priority": True}, "/priority"),
    ({"maxAttempts": 0}, "/maxAttempts"),
    ({"maxAttempts": 101}, "/maxAttempts"),
    ({"timeoutSeconds": 0}, "/timeoutSeconds"),
    ({"timeoutSeconds": 1e12}, "/timeoutSeconds"),
    ({"runAt": "2030-01-01T00:00:00"}, "/runAt"),
    ({"runAt": "tomorrow"}, "/runAt"),
    ({"runAt": 1893456000}, "/runAt"),
    ({"runAt": "0001-01-01T00:00:00+14:00"}, "/runAt"),
    ({"runAt": "9999-12-31T23:59:59.999999Z"}, "/runAt"),
    ({"delaySeconds": -1}, "/delaySeconds"),
    ({"delaySeconds": 1e12}, "/delaySeconds"),
    ({"delaySeconds": 1, "runAt": "2030-01-01T00:00:00Z"}, "/delaySeconds"),
    ({"backoff": {"baseSeconds": -1}}, "/backoff/baseSeconds"),
    ({"backoff": {"base": 1}}, "/backoff/base"),
    ({"backoff": []}, "/backoff"),
    ({"tags": ["a"] * 21}, "/tags"),
    ({"tags": ["a", ""]}, "/tags/1"),
    ({"tags": ["x" * 65]}, "/tags/0"),
    ({"tags": "a"}, "/tags"),
    ({"metadata": {"a": 1}}, "/metadata/a"),
    ({"metadata": {"a/b~": {}}}, "/metadata/a~1b~0"),
    ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "/metadata"),
    ({"callbackUrl": "http://localhost"}, "/callbackUrl"),
    ({"uniqueKey": "k"}, "/uniqueKey"),
    ({"concurrencyKey": "k"}, "/concurrencyKey"),
    ({"after": []}, "/after"),
    ({"expiresAt": "2030-01-01T00:00:00Z"}, "/expiresAt"),
    ({"idempotencyKey": "k"}, "/idempotencyKey"),
]


async def test_what_cannot_be_is_refused_with_its_place(site: Site):
    for fields, pointer in IMPOSSIBLE:
        answer = await site.post({"type": "email"} | fields)
        assert (fields, list(problem(answer, 422, "validation_failed"))) == (fields, [pointer])


async def test_all_faults_are_told_at_once(site: Site):
    faults = problem(
        await site.post(
            {
                "priority": 10,
                "queue": 1,
                "backoff": {"baseSeconds": "a", "x": 1},
                "tags": [1, "a", 2],
                "zork": {},
            }
        ),
        422,
        "validation_failed",
    )
    assert sorted(faults) == [
        *("/backoff/baseSeconds", "/backoff/x", "/priority", "/queue", "/tags/0", "/tags/2", "/type", "/zork")
    ]


async def test_a_body_that_is_no_object_is_refused(site: Site):
    for body in (b"[]", b"null", b"1", b'"email"'):
        assert list(problem(await site.post(body), 422, "validation_failed")) == [""]


async def test_the_limits_themselves_are_allowed(site: Site):
    metadata = {"a": "x" * (MAX_METADATA_BYTES - len('{"a":""}'))}
    for asked in (
        {
            "type": "x" * 128,
            "queue": "A-Z_a.z:/@+",
            "priority": 0,
            "maxAttempts": 100,
            "tags": ["x" * 64] * 20,
        },
        {"type": "email", "metadata": metadata},
        {"type": "email", "tags": None, "metadata": None},
    ):
        kept = await site.job(await site.add(**asked))
        assert {name: kept[name] for name in asked} == asked
    assert (await site.job(await site.add(delaySeconds=0)))["status"] == "pending"
    unset = await site.job(await site.add(runAt=None, delaySeconds=None, backoff=None))
    assert unset["backoff"] == {"baseSeconds": 2.0, "capSeconds": 3600.0}


async def test_run_at_means_the_instant_whatever_the_zone_it_is_said_in(site: Site):
    job = await site.job(await site.add(runAt="2090-06-01T08:00:00.25+02:00"))
    assert (job["status"], job["runAt"]) == ("pending", "2090-06-01T06:00:00.250000Z")


async def test_a_delay_counts_from_the_creation_by_the_databases_clock(site: Site):
    job = await site.job(await site.add(delaySeconds=90))
    created, run_at = (datetime.fromisoformat(job[name]) for name in ("createdAt", "runAt"))
    assert run_at - created == timedelta(seconds=90)


async def test_a_valid_trace_context_is_kept_and_an_invalid_one_ignored(site: Site):
    valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    kept = await site.post(MAIL, traceparent=valid)
    assert (await site.job(kept.json()["id"]))["traceparent"] == valid
    for invalid in (valid.upper(), valid[:-1], f"ff{valid[2:]}", "00-" + "0" * 32 + valid[35:], "x"):
        ignored = await site.post(MAIL, traceparent=invalid)
        assert (await site.job(ignored.json()["id"]))["traceparent"] is None


async def test_a_lane_too_many_is_refused_and_harms_nobody(pool: Pool):
    async with serving(pool, lanes=Lanes(limit_per_tenant=1)) as site:
        await site.add(queue="first")
        assert "/queue" in problem(
            await site.post({"type": "email", "queue": "second"}), 422, "too_many_lanes"
        )
        both = await site.post(
            {"jobs": [{"type": "email", "queue": q} for q in ("third", "first")]}, "/api/jobs/bulk"
        )
        refused, accepted = both.json()["items"]
        assert (refused["problem"]["code"], accepted["status"]) == ("too_many_lanes", "pending")


async def test_a_full_queue_answers_at_once_and_loses_nothing_it_took(pool: Pool, scene: Scene):
    async with serving(pool, create_queue=3) as site:
        async with scene.locked("job"):
            creates = [asyncio.create_task(site.post()) for _ in range(20)]
            done, taken = await asyncio.wait(creates, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            refused = done.pop().result()
            problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            await until(scene.blocked)
        answers = await asyncio.gather(*creates)
        accepted = [answer for answer in answers if answer.status_code == 202]
        assert {answer.status_code for answer in answers} == {202, 503}
        assert taken
        assert await scene.count("job") == len(accepted)
