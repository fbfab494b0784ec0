"""Handlers for a worker in a process of its own: `jobyard worker --app dangerous_jobs`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time

from jobyard import Context, handler


@handler("hold")
async def hold() -> None:
    await asyncio.sleep(60)


@handler("hold in a thread")
def hold_in_a_thread() -> None:
    time.sleep(60)


@handler("ignore cancellation")
async def ignore_cancellation() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@handler("poison")
async def poison(ctx: Context) -> None:
    # Its neighbours run for certain when it kills them all.
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


@handler("neighbour")
async def neighbour(ctx: Context) -> int:
    await asyncio.sleep(0.3)
    return ctx.attempt


@handler("leave")
async def leave(payload: str) -> None:
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[payload](0)


@handler("leave in a thread")
def leave_in_a_thread(payload: str) -> None:
    assert threading.current_thread() is not threading.main_thread()
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[payload](0)


@handler("tell-all")
async def tell_all(payload: str) -> str:
    """Whatever it is given, it logs nothing, and tells it in a result or an error."""
    if payload.startswith("fail"):
        raise ValueError(f"cannot use {payload}")
    return payload


@handler("log-all")
async def log_all() -> None:
    logging.getLogger("shop").warning(
        "the key is %s, the database %s", os.environ["JOBYARD_KEY"], os.environ["DATABASE_URL"]
    )
