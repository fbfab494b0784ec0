"""Handlers for a worker in a process of its own, whose jobs create others: `jobyard worker --app traced_jobs`."""

from __future__ import annotations

import os

from jobyard import Context, Retry, handler
from jobyard.client import Client


@handler("parent")
def parent(payload: dict[str, str]) -> str:
    with Client(os.environ["JOBYARD_URL"], os.environ["JOBYARD_KEY"]) as client:
        return client.create("child", payload).id


@handler("child")
async def child(ctx: Context) -> Retry | None:
    return Retry(after=0.05) if ctx.attempt == 1 else None


@handler("quiet")
async def quiet() -> None: ...
