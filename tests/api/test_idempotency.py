"""One key with one body is one job, at any concurrency."""

from __future__ import annotations

import asyncio

import pytest

from api.site import MAIL, Site, head, problem, serving
from jobyard.store.database import Pool
from store.scene import Scene, until


async def test_a_repeat_is_given_the_first_answer(site: Site, scene: Scene):
    first = await site.post(MAIL, Idempotency_Key="order-17")
    await scene.claim_one()
    again = await site.post(MAIL, Idempotency_Key="order-17")
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json() == {"id": first.json()["id"], "status": "pending"}
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await scene.count("job") == 1


@pytest.mark.parametrize("other", [MAIL + b" ", b'{"type":"email"}'])
async def test_the_key_with_another_body_is_refused(site: Site, scene: Scene, other: bytes):
    await site.post(MAIL, Idempotency_Key="k")
    problem(await site.post(other, Idempotency_Key="k"), 422, "idempotency_mismatch")
    assert await scene.count("job") == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\tb"])
async def test_a_key_that_cannot_be_is_refused(site: Site, key: str):
    answer = await site.client.post(
        "/api/jobs",
        content=MAIL,
        headers=[(b"Content-Type", b"application/json"), (b"Idempotency-Key", key.encode("latin-1"))],
    )
    assert problem(answer, 422, "validation_failed").keys() == {"/Idempotency-Key"}


@pytest.mark.parametrize("key", ["x" * 255, "a b", "~!\"'{}", "0"])
async def test_any_printable_key_will_do(site: Site, key: str):
    first = await site.post(MAIL, Idempotency_Key=key)
    again = await site.post(MAIL, Idempotency_Key=key)
    assert (first.status_code, again.status_code) == (202, 200)


async def test_fifty_at_once_at_two_servers_make_one_job(pool: Pool, scene: Scene):
    async with serving(pool) as one, serving(pool) as two:
        answers = await asyncio.gather(
            *(site.post(MAIL, Idempotency_Key="k") for site in (one, two) for _ in range(25))
        )
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert await scene.count("job") == 1


async def test_many_keys_at_once_at_two_servers_make_a_job_each(pool: Pool, scene: Scene):
    keys = [f"k{number}" for number in range(10)]
    async with serving(pool) as one, serving(pool) as two:
        answers = await asyncio.gather(
            *(site.post(MAIL, Idempotency_Key=key) for _ in range(3) for key in keys for site in (one, two))
        )
    assert len({answer.json()["id"] for answer in answers}) == await scene.count("job") == 10


async def test_a_caller_that_dies_half_way_burns_no_key(site: Site):
    start = head(
        "POST",
        "/api/jobs",
        Content_Type="application/json",
        Idempotency_Key="k",
        Content_Length=str(len(MAIL)),
    )
    async with site.raw(start, MAIL[:10]):
        pass
    assert (await site.post(MAIL, Idempotency_Key="k")).status_code == 202


async def test_a_caller_that_dies_after_its_request_finds_its_job_again(site: Site, scene: Scene):
    start = head(
        "POST",
        "/api/jobs",
        Content_Type="application/json",
        Idempotency_Key="k",
        Content_Length=str(len(MAIL)),
    )
    async with scene.locked("job"), site.raw(start, MAIL):
        await until(scene.blocked)
    await until(lambda: scene.count("job"))
    again = await site.post(MAIL, Idempotency_Key="k")
    assert again.headers["idempotency-replayed"] == "true"
    assert await scene.count("job") == 1
