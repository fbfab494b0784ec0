"""The application behind a real HTTP server, a client that holds every answer against the OpenAPI document, and a few
words for what the tests do with them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from jobyard.api.app import Api, create_app
from jobyard.api.server import Server
from jobyard.clock import SystemClock
from jobyard.config import Settings
from jobyard.store import database as db
from jobyard.store.lanes import Lanes

JSON = {"Content-Type": "application/json"}
MAIL = b'{"type":"email","payload":{"to":"user@example.com"}}'


class Contract:
    """The OpenAPI document as a judge of answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), item) for path, item in document["paths"].items()
        ]

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        method = "get" if method == "HEAD" else method.lower()
        templated = next((item for pattern, item in self._paths if pattern.fullmatch(path)), {})
        return self.document["paths"].get(path, templated).get(method)

    def judge(self, response: httpx.Response) -> None:
        request = response.request
        told = f"{request.method} {request.url.path} -> {response.status_code} {response.text[:300]}"
        is_problem = response.headers.get("content-type") == "application/problem+json"
        if is_problem and request.method != "HEAD":
            self._judge_schema(response, {"$ref": "#/components/schemas/Problem"}, told)
            assert response.json()["status"] == response.status_code, told
        operation = self.operation(request.method, request.url.path)
        if operation is None:
            assert response.status_code in (404, 405, 401), told
            return
        answer = operation["responses"].get(str(response.status_code))
        assert answer is not None, f"not in the document: {told}"
        assert "X-Request-Id" in response.headers, told
        if request.method == "HEAD":
            return
        if is_problem:
            assert response.json()["code"] in answer["content"]["application/problem+json"]["examples"], told
        elif "content" in answer:
            (media, content), *_ = answer["content"].items()
            assert response.headers["content-type"].startswith(media), told
            if media == "application/json":
                self._judge_schema(response, content["schema"], told)

    def _judge_schema(self, response: httpx.Response, schema: dict[str, Any], told: str) -> None:
        whole = {"components": self.document["components"], **schema}
        for error in Draft202012Validator(whole).iter_errors(response.json()):
            raise AssertionError(f"{told}: {error.message}")


@dataclass
class Site:
    """One running server. `client` judges every answer."""

    app: Api
    port: int
    pool: db.Pool
    client: httpx.AsyncClient
    end: Callable[[], Awaitable[None]]
    """Tell it to stop, and wait until it has."""

    async def post(
        self, body: bytes | dict[str, Any] = MAIL, path: str = "/api/jobs", **headers: str
    ) -> httpx.Response:
        """With Content-Type: application/json. Header names: `_` stands for `-`."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=content, headers=JSON | named)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=named)

    async def add(self, **fields: Any) -> str:
        """The id of a new job."""
        answer = await self.post({"type": "email"} | fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def job(self, job: str) -> dict[str, Any]:
        answer = await self.get(f"/api/jobs/{job}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def raw(self, *sent: bytes) -> AsyncIterator[Raw]:
        """A connection of bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"".join(sent))
            await writer.drain()
            yield Raw(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@dataclass
class Raw:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
            }
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(lines[0].split()[1]), headers, body


def head(method: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def serving(pool: db.Pool, *, lanes: Lanes | None = None, **settings: Any) -> AsyncIterator[Site]:
    """The application with these settings, on a port of its own."""
    # A busy machine must not be taken for a database that is gone.
    values = Settings(**{"port": 0, "database_timeout_seconds": 30.0, "grace_seconds": 5.0, **settings})
    app = create_app(values, pool, lanes or Lanes(), SystemClock())
    server, stop = Server(app, values), asyncio.Event()
    task = asyncio.create_task(server.serve(stop))
    port = server.port

    async def end() -> None:
        stop.set()
        await task

    key = {"Authorization": f"Bearer {values.key}"} if values.key else {}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=key, timeout=20, trust_env=False,
        limits=httpx.Limits(max_connections=600),
    ) as client:  # fmt: skip
        contract = Contract((await client.get("/openapi.json")).json())

        async def judge(response: httpx.Response) -> None:
            await response.aread()
            contract.judge(response)

        client.event_hooks = {"response": [judge]}
        try:
            yield Site(app, port, pool, client, end)
        finally:
            await end()


async def until(condition: Callable[[], Awaitable[Any]], *, seconds: float = 10.0) -> Any:
    """The first true answer of the condition, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := await condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return answer


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, str]:
    """Pointer -> detail of the problem that it must be."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    told = answer.json()
    assert told["code"] == code, told
    return {fault["pointer"]: fault["detail"] for fault in told.get("errors", [])}
