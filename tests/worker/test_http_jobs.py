"""A thousand `http` jobs through a real worker against a real server of every temper: each ends as documented."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import asyncpg

from jobyard.clock import SystemClock
from jobyard.domain.retry import Backoff
from jobyard.handlers.http import Caller
from jobyard.maintain.maintainer import CONNECTIONS, Maintainer
from jobyard.outgoing import Client
from jobyard.store.database import open_pool
from web_server import Received, WebServer, answer, web_server_in_a_thread
from worker.yard import MAX_RESULT_BYTES, Yard

AT_ONCE = Backoff(0.01, 0.01)
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True)
class Kind:
    """So many jobs for this path, what they ask for, and how they have to end."""

    path: str
    jobs: int
    status: str
    reason: str | None = None
    requests: int = 1
    max_attempts: int = 2
    options: tuple[tuple[str, Any], ...] = ()
    told: str = ""


KINDS = [
    Kind("ok", 350, "completed"),
    Kind("missing", 100, "failed", "non_retryable", told="answered 404, expected was 2xx: no such thing"),
    Kind("missing/expected", 50, "completed", options=(("expect", [200, 404]),)),
    Kind("error", 100, "failed", "exhausted", requests=2, told="answered 500, expected was 2xx: oh no"),
    Kind("busy", 100, "completed", requests=2),
    Kind("slow", 30, "completed", requests=2, max_attempts=10, options=(("timeoutSeconds", 1),)),
    Kind(
        "garbage", 100, "failed", "exhausted", requests=2, told="the answer broke off, or what came was not"
    ),
    Kind("early", 100, "completed", requests=2),
    Kind("redirect", 20, "failed", "non_retryable", told="redirects are not followed"),
]
REFUSED = "http://169.254.169.254/latest/meta-data/"

FIRST = {
    "busy": answer(429, b"later", f"Retry-After: {RETRY_AFTER_SECONDS}"),
    "early": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
}
ALWAYS = {
    "missing": answer(404, b"no such thing"),
    "missing/expected": answer(404, b"no such thing"),
    "error": answer(500, b"oh no"),
    "garbage": b"\x16\x03\x01 this is not the protocol you are looking for\r\n\r\n",
    "redirect": answer(302, b"", "Location: http://127.0.0.1/"),
}


class Moody:
    """Answers by the path, and some paths otherwise the first time it meets a job."""

    def __init__(self) -> None:
        self.by_job: dict[str, list[Received]] = defaultdict(list)

    async def reply(self, received: Received, writer: asyncio.StreamWriter) -> None:
        path, key = received.target.strip("/"), received.header("Idempotency-Key")
        assert key is not None
        self.by_job[key].append(received)
        if len(self.by_job[key]) == 1:
            if path == "slow":
                await asyncio.Event().wait()
            writer.write(FIRST.get(path) or ALWAYS.get(path) or answer(200, b"fine"))
        else:
            writer.write(ALWAYS.get(path) or answer(200, b"fine"))


@asynccontextmanager
async def maintaining(yard: Yard) -> AsyncGenerator[None]:
    pool = await open_pool(yard.url, size=CONNECTIONS, hot=True, name="jobyard maintain")
    maintainer = Maintainer(pool, SystemClock(), 7, 90)
    task = asyncio.create_task(maintainer.run())
    try:
        yield
    finally:
        maintainer.stop()
        await asyncio.wait_for(task, 10)


async def create_all(yard: Yard, server: WebServer) -> dict[UUID, Kind]:
    created: dict[UUID, Kind] = {}
    for kind in KINDS:
        payload = {"url": f"{server.url}/{kind.path}"} | dict(kind.options)
        options = {"max_attempts": kind.max_attempts, "backoff": AT_ONCE}
        created |= dict.fromkeys(await yard.add("http", kind.jobs, payload, **options), kind)
    return created


async def test_a_thousand_calls_each_end_as_documented(yard: Yard) -> None:
    moody = Moody()
    call = Caller(Client([ip_network("127.0.0.0/8")]), MAX_RESULT_BYTES).call
    with web_server_in_a_thread(moody.reply) as server:
        expected = await create_all(yard, server)
        refused = await yard.add("http", 1000 - len(expected), {"url": REFUSED})
        assert refused
        async with maintaining(yard), yard.working({"http": call}, concurrency=32):
            await yard.all_ended(seconds=60)
    ended = {row["job"]: row for row in await yard.db.fetch("SELECT * FROM jobyard.done")}
    assert len(ended) == 1000
    for job, kind in expected.items():
        ended_as_documented(kind, ended[job], moody.by_job[str(job)])
    for job in refused:
        assert ended[job]["reason"] == "non_retryable"
        assert json.loads(ended[job]["error"])["type"] == "AddressRefused"
        assert str(job) not in moody.by_job


def ended_as_documented(kind: Kind, row: asyncpg.Record, requests: list[Received]) -> None:
    assert (row["status"], row["reason"]) == (kind.status, kind.reason), kind
    if kind.path == "slow":  # on a slow machine a later try may be too late as well
        assert len(requests) >= kind.requests
    else:
        assert (len(requests), row["attempt"]) == (kind.requests, kind.requests), kind
    if kind.status == "completed":
        body = "no such thing" if kind.options and kind.path != "slow" else "fine"
        assert json.loads(row["result"])["body"] == body
    else:
        assert kind.told in json.loads(row["error"])["message"]
    if kind.path == "busy":
        assert requests[1].at - requests[0].at >= RETRY_AFTER_SECONDS
