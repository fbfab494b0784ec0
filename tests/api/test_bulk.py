"""POST /api/jobs/bulk: each job is accepted or refused on its own."""

from __future__ import annotations

from typing import Any

from api.site import Site, problem, serving
from jobyard.store.database import Pool
from store.scene import Scene

BULK = "/api/jobs/bulk"


async def items(site: Site, *jobs: Any) -> list[dict[str, Any]]:
    answer = await site.post({"jobs": jobs}, BULK)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_a_thousand_jobs_are_answered_in_their_order(site: Site):
    answers = await items(site, *({"type": "email", "payload": number} for number in range(1000)))
    assert {answer["status"] for answer in answers} == {"pending"}
    for place in (0, 1, 500, 999):
        assert (await site.job(answers[place]["id"]))["payload"] == place


async def test_one_more_is_refused_and_none_is_created(site: Site, scene: Scene):
    answer = await site.post({"jobs": [{"type": "email"}] * 1001}, BULK)
    assert list(problem(answer, 422, "validation_failed")) == ["/jobs"]
    assert await scene.count("job") == 0


async def test_no_jobs_at_all_are_no_fault(site: Site):
    assert await items(site) == []


async def test_a_bad_job_harms_no_other(site: Site, scene: Scene):
    body = (
        rb'{"jobs":[{"type":"first"},{"type":"email","payload":"\ud800"},{"type":"email","payload":{"\u0000":1}},'
        rb'{"type":"email","payload":1e400},{"priority":11,"zork":1},7,{"type":"email","payload":%b},'
        rb'{"type":"email","idempotencyKey":""},{"type":"last","payload":"\ud83d\ude00 \\ud800"}]}'
        % (b"[" * 70 + b"]" * 70)
    )
    first, half, nul, number, faulty, no_object, deep, keyless, last = (await site.post(body, BULK)).json()[
        "items"
    ]
    assert (first["status"], last["status"]) == ("pending", "pending")
    assert await scene.count("job") == 2
    assert rb'"payload":"\ud83d\ude00 \\ud800"' in (await site.get(f"/api/jobs/{last['id']}")).content
    refused = [half, nul, number, faulty, no_object, deep, keyless]
    assert [item["problem"]["code"] for item in refused] == ["validation_failed"] * 7
    assert [[fault["pointer"] for fault in item["problem"]["errors"]] for item in refused] == [
        ["/jobs/1/payload"],
        ["/jobs/2/payload/\\u0000"],
        ["/jobs/3/payload"],
        ["/jobs/4/type", "/jobs/4/priority", "/jobs/4/zork"],
        ["/jobs/5"],
        ["/jobs/6"],
        ["/jobs/7/idempotencyKey"],
    ]


async def test_a_payload_over_the_limit_is_refused_alone(pool: Pool):
    async with serving(pool, max_payload_bytes=2000) as site:
        big, small = await items(site, {"type": "email", "payload": "x" * 2000}, {"type": "email"})
        assert (big["problem"]["code"], big["problem"]["status"], small["status"]) == (
            "too_large",
            413,
            "pending",
        )


async def test_a_bulk_has_a_limit_of_its_own(pool: Pool):
    async with serving(pool, max_payload_bytes=2000, max_bulk_bytes=5000) as site:
        fits = await items(site, *({"type": "email", "payload": "x" * 1000} for _ in range(4)))
        assert len(fits) == 4
        problem(
            await site.post({"jobs": [{"type": "email", "payload": "x" * 1000}] * 5}, BULK), 413, "too_large"
        )


async def test_the_envelope_has_its_faults_too(site: Site):
    assert problem(await site.post({"jobs": [], "zork": 1}, BULK), 422, "validation_failed").keys() == {
        "/zork"
    }
    assert problem(await site.post({}, BULK), 422, "validation_failed").keys() == {"/jobs"}
    assert problem(await site.post({"jobs": {}}, BULK), 422, "validation_failed").keys() == {"/jobs"}
    assert problem(await site.post(b"[]", BULK), 422, "validation_failed").keys() == {""}
    assert problem(
        await site.post(b'{"jobs":[%b' % (b"[" * 20_000), BULK), 422, "validation_failed"
    ).keys() == {""}


async def test_keys_are_per_job_and_not_in_the_header(site: Site, scene: Scene):
    refused = await site.post({"jobs": [{"type": "email"}]}, BULK, Idempotency_Key="k")
    assert problem(refused, 422, "validation_failed").keys() == {"/Idempotency-Key"}
    job = {"type": "email", "idempotencyKey": "k"}
    once, twice, other = await items(site, job, job, job | {"priority": 1})
    assert "replayed" not in once
    assert twice == once | {"replayed": True}
    assert other["problem"]["code"] == "idempotency_mismatch"
    assert await items(site, job) == [twice]
    assert await scene.count("job") == 1
