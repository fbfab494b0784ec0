"""A tag or a pair of metadata that few jobs have is found by its index, wherever the jobs stand."""

from __future__ import annotations

import json

import pytest

from jobyard.store import reads
from jobyard.store.database import Connection
from jobyard.store.reads import Filters
from store.scene import Scene


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ({"tags": '["rare"]'}, Filters(tag="rare")),
        ({"metadata": '{"customer":"7"}'}, Filters(metadata=json.dumps({"customer": "7"}))),
    ],
)
async def test_one_job_among_many_is_on_the_first_page(
    scene: Scene, options: dict[str, str], filters: Filters
) -> None:
    (rare,) = await scene.add(1, **options)
    await scene.add(300)
    page = await reads.list_jobs(scene.db, 1, filters, reads.NEWEST, 10, examine=50)
    assert [row["id"] for row in page.rows] == [rare]
    assert page.last is None, "there is no second page to ask for"


async def test_a_tag_that_many_jobs_have_is_walked_page_by_page(scene: Scene) -> None:
    many = await scene.add(120, tags='["common"]')
    found, below = [], reads.NEWEST
    while True:
        page = await reads.list_jobs(scene.db, 1, Filters(tag="common"), below, 50, examine=60)
        found += [row["id"] for row in page.rows]
        if page.last is None:
            break
        below = page.last
    assert found == sorted(many, reverse=True)


async def test_the_index_of_tags_is_what_finds_a_rare_one(connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO jobyard.job (id, lane, timeout_seconds, backoff_base, backoff_cap, max_attempts, priority, type,"
        " queue, payload, tags) SELECT gen_random_uuid(), 1, 1, 1, 1, 1, 1, 't', 'q', '{}',"
        " CASE WHEN n = 1 THEN '[\"rare\"]'::jsonb END FROM generate_series(1, 5000) n"
    )
    await reads.list_jobs(connection, 1, Filters(tag="rare"), reads.NEWEST, 10)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.fetchval("SELECT 1")
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'job_tags'"
    assert await connection.fetchval(used) >= 2
