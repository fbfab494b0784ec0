"""Handlers that meet the database in every way there is: `JOBYARD_APP=trouble_jobs`."""

from __future__ import annotations

import asyncio

from jobyard import Context, Retry, handler


@handler("quick")
async def quick(payload: int) -> int:
    await asyncio.sleep(0.01)
    return payload


@handler("second-try")
def at_the_second_try(payload: int, ctx: Context) -> int | Retry:
    return payload if ctx.attempt > 1 else Retry(after=0.1)


@handler("talks")
async def talks(payload: int, ctx: Context) -> int:
    ctx.progress(50, "half")
    ctx.log("still here")
    await ctx.create("quick", payload)
    return payload


@handler("transfers")
async def with_its_transaction(payload: int, ctx: Context) -> None:
    async with ctx.transaction() as transaction:
        transaction.result = await transaction.connection.fetchval("SELECT $1::int", payload)


@handler("in-a-child", process=True)
async def in_a_child(payload: int, ctx: Context) -> None:
    await with_its_transaction(payload, ctx)
