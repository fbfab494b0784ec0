"""Handlers that a child process loads: `JOBYARD_APP=child_jobs`."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from jobyard import Context, Fail, Retry, handler

if os.environ.get("CHILD_JOBS_BROKEN"):
    raise RuntimeError("not today")
time.sleep(float(os.environ.get("CHILD_JOBS_IMPORT_SECONDS", "0")))

secret = contextvars.ContextVar[str]("secret", default="none")


class Rude(BaseException):
    """Derives from what nobody catches."""


LEAVINGS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        GeneratorExit,
        Rude,
        ValueError,
        StopIteration,
    )
}


def act(what: str, argument: Any) -> Any:
    match what:
        case "pid":
            return os.getpid()
        case "echo":
            return argument
        case "raise":
            raise LEAVINGS[argument](0)
        case "value":
            return {"fail": Fail("never", "Never"), "retry": Retry(30, "later")}[argument]
        case "unkeepable":
            return {1, object()}
        case "signal":
            os.kill(os.getpid(), signal.Signals[argument])
            time.sleep(30)
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(argument)
        case "babble":
            # What a library might do that writes to a descriptor which is not its own.
            for number in range(3, 20):
                try:
                    if Path(f"/proc/self/fd/{number}").readlink().name.startswith("socket"):
                        os.write(number, b"\xff" * 100)
                except OSError:
                    pass
            time.sleep(30)
        case "context":
            seen = secret.get()
            secret.set("of another job")
            return seen
        case "where":
            return threading.current_thread() is threading.main_thread()
        case "read":
            return sys.stdin.read()
    return None


@handler("do", process=True)
def do(payload: list[Any]) -> Any:
    return act(payload[0], payload[1])


@handler("do async", process=True)
async def do_async(payload: list[Any]) -> Any:
    await asyncio.sleep(0)
    return act(payload[0], payload[1])


def note(path: str, text: str) -> None:
    with Path(path).open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")


@handler("block", process=True)
def block(payload: str) -> None:
    """Notes its pid, and that it could clean up."""
    note(payload, f"pid {os.getpid()}")
    try:
        time.sleep(60)
    finally:
        note(payload, "cleaned up")


@handler("block async", process=True)
async def block_async(payload: str) -> None:
    note(payload, f"pid {os.getpid()}")
    try:
        await asyncio.sleep(60)
    finally:
        note(payload, "cleaned up")


@handler("stubborn", process=True)
def stubborn(payload: str) -> None:
    note(payload, f"pid {os.getpid()}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException:
            continue


@handler("helped", process=True)
def helped(payload: str) -> None:
    """Waits for a program that it has started."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as program:
        note(payload, f"pid {os.getpid()}")
        note(payload, f"pid {program.pid}")
        program.wait()


@handler("about", process=True)
def about(ctx: Context) -> dict[str, Any]:
    return {
        "job": str(ctx.job_id),
        "attempt": ctx.attempt,
        "tags": ctx.tags,
        "created": ctx.created_at.isoformat(),
    }


@handler("kill the worker", process=True)
def kill_the_worker() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@handler("says", process=True)
async def says(ctx: Context) -> str:
    ctx.progress(50, "half")
    ctx.log("from a child")
    return str(await ctx.create("later", {"n": 1}))


@handler("says in no loop", process=True)
def says_in_no_loop(ctx: Context) -> str:
    ctx.progress(50, "half")
    ctx.log("from a child")
    return str(ctx.create_from_thread("later", {"n": 1}))


@handler("says from a thread", process=True)
async def says_from_a_thread(ctx: Context) -> str:
    return await asyncio.to_thread(says_in_no_loop, ctx)


@handler("pays", process=True)
async def pays(ctx: Context) -> None:
    async with ctx.transaction() as transaction:
        transaction.result = "paid"
    raise ValueError("too late")
