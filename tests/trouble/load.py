"""Jobs over HTTP that meet the database in every way, and what must have become of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx

from worker.yard import Yard

TYPES = ("quick", "second-try", "talks", "transfers", "in-a-child")


def some_jobs(count: int) -> list[dict[str, Any]]:
    return [{"type": TYPES[number % len(TYPES)], "payload": number} for number in range(count)]


async def create(client: httpx.AsyncClient, jobs: list[dict[str, Any]]) -> list[str]:
    """Their ids."""
    answer = await client.post("/api/jobs/bulk", json={"jobs": jobs})
    assert answer.status_code == 200, answer.text
    assert "problem" not in answer.text
    return [item["id"] for item in answer.json()["items"]]


async def endings(yard: Yard) -> Counter[tuple[str, int, bool]]:
    """How often each (status, attempt, its result is its payload) is the end of a job."""
    rows = await yard.db.fetch(
        "SELECT d.status, d.attempt, d.result::text = j.payload::text AS right"
        " FROM jobyard.done d JOIN jobyard.job j ON j.id = d.job"
    )
    return Counter(tuple(row) for row in rows)
