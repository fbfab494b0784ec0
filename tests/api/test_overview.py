"""GET /api/stats, /api/queues and /api/workers: what an operator looks at."""

from __future__ import annotations

import pytest

from api.site import Site, problem
from api.test_read import TIME, every
from jobyard.api.paging import make_token
from jobyard.domain.lifecycle import Succeeded
from jobyard.store import dispatch
from jobyard.store.sampling import take_sample
from store.scene import Scene, ending


async def test_without_a_sample_the_counts_are_zero_and_say_that_they_are_none(site: Site):
    stats = (await site.get("/api/stats")).json()
    assert (stats["sampledAt"], stats["lastMinute"], stats["history"]) == (None, None, [])
    assert stats["jobs"]["pending"] == 0
    assert stats["workers"] == {"live": 0, "slots": 0, "idle": 0}


async def test_stats_tell_what_waits_what_runs_how_fast_and_who_works(site: Site, scene: Scene):
    await take_sample(scene.db, 0)
    await scene.add(5)
    await scene.add(2, delay_seconds=60.0)
    attempts = await scene.claim(await scene.worker(), 3)
    await dispatch.settle(scene.db, [ending(attempts[0], Succeeded())])
    await take_sample(scene.db, 0)
    stats = (await site.get("/api/stats")).json()
    assert TIME.fullmatch(stats["sampledAt"])
    oldest = stats["jobs"].pop("oldestReadyAt")
    assert TIME.fullmatch(oldest)
    assert stats["jobs"] == {"pending": 4, "ready": 2, "scheduled": 2, "processing": 2, "suspects": 0}
    assert stats["workers"] == {"live": 1, "slots": 8, "idle": 0}
    minute = stats["lastMinute"]
    assert (minute["created"], minute["started"], minute["completed"], minute["failed"]) == (7, 3, 1, 0)
    assert stats["history"][-1]["created"] == 7


async def test_jobs_of_another_tenant_are_not_shown(site: Site, scene: Scene):
    await scene.add(2)
    await scene.add(3, tenant=2, queue="theirs")
    await take_sample(scene.db, 0)
    assert (await site.get("/api/stats")).json()["jobs"]["ready"] == 2
    assert [it["name"] for it in await every(site, "/api/queues")] == ["default"]


async def test_workers_that_stopped_beating_are_not_counted_among_the_living(site: Site, scene: Scene):
    await scene.worker()
    dead = await scene.worker()
    await scene.expire(dead)
    assert (await site.get("/api/stats")).json()["workers"]["live"] == 1
    shown = {it["id"]: it["alive"] for it in (await site.get("/api/workers")).json()["items"]}
    assert shown[str(dead)] is False
    assert sorted(shown.values()) == [False, True]
    await scene.add(1)
    (queue,) = (await site.get("/api/queues")).json()["items"]
    assert [it["workers"] for it in queue["types"]] == [1]


async def test_queues_show_every_type_and_whether_anybody_runs_it(site: Site, scene: Scene):
    await scene.add(3)
    await scene.add(1, type="report")
    await scene.add(1, queue="slow")
    await scene.worker()
    await take_sample(scene.db, 0)
    default, slow = await every(site, "/api/queues")
    assert (default["name"], default["ready"], default["pending"]) == ("default", 4, 4)
    assert [(it["type"], it["ready"], it["workers"]) for it in default["types"]] == [
        ("email", 3, 1),
        ("report", 1, 0),
    ]
    assert (slow["name"], slow["ready"], slow["processing"]) == ("slow", 1, 0)


async def test_a_queue_that_is_empty_now_is_still_listed(site: Site, scene: Scene):
    await scene.add_finished()
    await take_sample(scene.db, 0)
    (queue,) = await every(site, "/api/queues")
    assert (queue["name"], queue["pending"], queue["oldestReadyAt"]) == ("default", 0, None)


async def test_workers_show_what_they_hold(site: Site, scene: Scene):
    await scene.add(3)
    await scene.claim(await scene.worker("email", "report", name="host-1"), 2)
    (worker,) = await every(site, "/api/workers")
    assert (worker["name"], worker["types"]) == ("host-1", ["email", "report"])
    assert (worker["inFlight"], worker["concurrency"], worker["idle"], worker["alive"]) == (2, 8, False, True)
    assert all(TIME.fullmatch(worker[name]) for name in ("startedAt", "expiresAt"))


async def test_both_lists_are_walked_in_pages_of_one_in_order(site: Site, scene: Scene):
    for number in range(3):
        await scene.worker(name=f"w{number}")
        await scene.add(1, queue=f"q{number}")
    assert [it["name"] for it in await every(site, "/api/workers", pageSize=1)] == ["w2", "w1", "w0"]
    assert [it["name"] for it in await every(site, "/api/queues", pageSize=1)] == ["q0", "q1", "q2"]


@pytest.mark.parametrize("path", ["/api/workers", "/api/queues"])
@pytest.mark.parametrize("token", ["x", "AAAA", "é", "", make_token(b"\xff" * 8, "/elsewhere")])
async def test_a_mangled_token_is_refused(site: Site, path: str, token: str):
    problem(await site.client.get(path, params={"pageToken": token}), 400, "bad_page_token")


@pytest.mark.parametrize("position", [b"\xff" * 8, b"\x00" * 8, b"\xff\x00"])
@pytest.mark.parametrize("path", ["/api/workers", "/api/queues"])
async def test_a_forged_position_is_never_an_error_of_ours(site: Site, path: str, position: bytes):
    answer = await site.client.get(path, params={"pageToken": make_token(position, f"{path}?{{}}")})
    assert answer.status_code in (200, 400)
