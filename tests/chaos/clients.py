"""Clients that create jobs over HTTP, each job under a key of its own and asked for until it is answered: what was
answered is accepted, and may not be lost."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.1
BACKOFF = {"baseSeconds": 0.2, "capSeconds": 2}
TRANSIENT_CODES = ("database_unavailable", "overloaded")

KINDS: Sequence[tuple[int, dict[str, Any]]] = (
    (773, {"type": "coroutine"}),
    (100, {"type": "thread"}),
    (12, {"type": "child"}),
    (75, {"type": "payment"}),
    (15, {"type": "payment", "payload": {"seconds": 0.3}}),
    (4, {"type": "coroutine", "payload": {"seconds": 1.2}}),
    (2, {"type": "thread", "payload": {"seconds": 1.2}}),
    (3, {"type": "child", "payload": {"seconds": 1}}),
    (6, {"type": "coroutine", "payload": {"fails": 2}}),
    (4, {"type": "payment", "payload": {"fails": 1}}),
    (3, {"type": "coroutine", "payload": {"fails": 99}, "maxAttempts": 2}),
    (3, {"type": "thread", "payload": {"refused": True}}),
)
"""Of a thousand jobs so many are like this."""


@dataclass(slots=True)
class Ledger:
    """What clients were told."""

    accepted: list[UUID] = field(default_factory=list[UUID])
    seen: dict[UUID, str] = field(default_factory=dict[UUID, str])
    """Final states that an answer has shown: they may never change."""
    refused: list[str] = field(default_factory=list[str])
    """Answers that no fault excuses."""
    asked_again: int = 0
    unanswered: int = 0


@dataclass(slots=True)
class Pace:
    """So many jobs a second in all; who was held up catches up."""

    per_second: float
    seconds: float
    jobs: int
    began: float = field(default_factory=time.monotonic)
    taken: int = 0

    @property
    def over(self) -> bool:
        return self.taken >= self.jobs and time.monotonic() - self.began >= self.seconds

    async def take(self, count: int) -> range | None:
        """The numbers of the next jobs, once it is their turn; None when all is over."""
        first = self.taken
        if self.over:
            return None
        self.taken += count
        await asyncio.sleep(max(0.0, self.began + first / self.per_second - time.monotonic()))
        return range(first, first + count)


class Clients:
    def __init__(self, urls: Sequence[str], pace: Pace, seed: int) -> None:
        self._urls = urls
        self._pace = pace
        self._random = random.Random(f"clients {seed}")
        self._http = httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)
        self.ledger = Ledger()

    async def run(self, *, single: int, bulk: int, bulk_jobs: int) -> None:
        """So many clients of each kind, until the pace ends."""
        async with self._http, asyncio.TaskGroup() as group:
            for _ in range(single):
                group.create_task(self._create_singly())
            for _ in range(bulk):
                group.create_task(self._create_in_bulk(bulk_jobs))

    async def _create_singly(self) -> None:
        while numbers := await self._pace.take(1):
            await self._create_one(numbers[0])

    async def _create_one(self, number: int) -> None:
        body = self._job(number)
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"single {number}"}
        if self._random.random() < 0.2:
            headers["Prefer"] = "wait=5"
        answer = await self._answer("/api/jobs", body, headers)
        if answer is None:
            return
        job = UUID(answer["id"])
        self._accept(job, answer["status"])
        if self._random.random() < 0.1:
            again = await self._answer("/api/jobs", body, headers)
            if again is not None and again["id"] != answer["id"]:
                self.ledger.refused.append(f"one key, two jobs: {answer['id']} and {again['id']}")

    async def _create_in_bulk(self, count: int) -> None:
        while numbers := await self._pace.take(count):
            items = [self._job(number, idempotencyKey=f"bulk {number}") for number in numbers]
            while items:
                items = await self._create_many(items)

    async def _create_many(self, items: list[bytes]) -> list[bytes]:
        """Those to be asked for again."""
        body = b'{"jobs":[' + b",".join(items) + b"]}"
        answer = await self._answer("/api/jobs/bulk", body, {"Content-Type": "application/json"})
        left: list[bytes] = []
        for item, told in zip(items, answer["items"] if answer else [], strict=False):
            if "id" in told:
                self._accept(UUID(told["id"]), told["status"])
            elif told["problem"]["code"] in TRANSIENT_CODES:
                left.append(item)
            else:
                self.ledger.refused.append(json.dumps(told))
        self.ledger.asked_again += len(left)
        return left

    async def _answer(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        """The answer of whichever API process gives one; None, and noted, where the request is refused."""
        while True:
            try:
                url = self._random.choice(self._urls)
                answer = await self._http.post(url + path, content=body, headers=headers)
            except httpx.HTTPError:
                self.ledger.unanswered += 1
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if answer.is_success:
                return answer.json()
            if answer.status_code != 503:
                self.ledger.refused.append(f"{answer.status_code} {answer.text[:300]}")
                return None
            self.ledger.asked_again += 1
            await asyncio.sleep(PAUSE_SECONDS)

    def _accept(self, job: UUID, status: str) -> None:
        self.ledger.accepted.append(job)
        if status in ("completed", "failed"):
            self.ledger.seen[job] = status

    def _job(self, number: int, **more: Any) -> bytes:
        weights, kinds = zip(*KINDS, strict=True)
        (kind,) = self._random.choices(kinds, weights)
        options = {"maxAttempts": 20, "timeoutSeconds": 30, "backoff": BACKOFF} | kind | more
        return json.dumps(options | {"payload": {"number": number} | kind.get("payload", {})}).encode()
