"""A real HTTP server that speaks the contract of the API from memory, and does what goes wrong on demand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

KNOWN_FIELDS = {
    *("type", "payload", "queue", "priority", "runAt", "delaySeconds", "timeoutSeconds", "maxAttempts"),
    *("backoff", "tags", "metadata", "idempotencyKey"),
}
EXACT_FILTERS = ("status", "type", "queue")
EXACT_LETTER_FILTERS = ("type", "queue", "reason")
NOW = "2026-11-20T10:00:00.000000Z"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    at: float


class Cut(Response):
    """The connection breaks in the middle of the answer, after the work was done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})


def problem(
    status: int, code: str, *errors: tuple[str, str], headers: dict[str, str] | None = None
) -> Response:
    faults = [{"pointer": pointer, "detail": detail} for pointer, detail in errors]
    body = {
        "type": f"about:{code}",
        "title": code.replace("_", " ").title(),
        "status": status,
        "detail": f"It is {code}.",
        "code": code,
        "errors": faults,
        "requestId": "req-1",
    }
    return JSONResponse(body, status, headers, "application/problem+json")


def a_worker() -> dict[str, Any]:
    return {"id": "1", "name": "w", "alive": True, "types": ["email"]}


def busy(retry_after: str | None = "0") -> Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return problem(503, "overloaded", headers=headers)


@dataclass
class Yard:
    """The server's memory. `instead` answers the next requests, where it is not None; `after` does so once the work was done. Each of
    `changes` happens to the job that somebody waits for; without any it ends, after `unfinished_waits`."""

    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    instead: deque[Response | None] = field(default_factory=deque)
    after: deque[Response] = field(default_factory=deque)
    always: Response | None = None
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"workers": [a_worker()]})
    max_bulk_bytes: int = 16 << 20
    stats: dict[str, Any] = field(default_factory=dict)
    changes: deque[dict[str, Any]] = field(default_factory=deque)
    unfinished_waits: int = 0
    finishes_as: str = "completed"
    hold_bulk: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.hold_bulk.set()

    def requests(self, path: str) -> list[Seen]:
        return [request for request in list(self.seen) if request.path == path]

    def add(self, job: dict[str, Any]) -> str:
        job_id = str(uuid.uuid4())
        nothing = dict.fromkeys(("result", "error", "reason", "runAt", "progress", "tags", "metadata"))
        known = {
            "status": "pending",
            "queue": "default",
            "priority": 5,
            "run": 1,
            "attempt": 0,
            "maxAttempts": 5,
        }
        times = {"createdAt": NOW, "updatedAt": NOW, "cancelRequested": False, "deadLetter": False}
        self.places[job_id] = len(self.places)
        self.jobs[job_id] = {"id": job_id, **nothing, **known, **times, **job}
        return job_id

    def add_dead(self, count: int = 1, **more: Any) -> list[str]:
        """Dead letters, the oldest first."""
        dead = {"type": "email", "status": "failed", "reason": "exhausted", "deadLetter": True}
        return [self.add({**dead, **more}) for _ in range(count)]

    def dead(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = {name: value for name, value in asked.items() if name in EXACT_LETTER_FILTERS}
        return [
            job
            for job in self.jobs.values()
            if job["deadLetter"]
            and wanted.items() <= job.items()
            and job["id"] in asked.get("jobs", self.jobs)
        ]

    def wait(self, job: dict[str, Any]) -> None:
        if self.changes:
            job.update(self.changes.popleft())
            return
        self.unfinished_waits -= 1
        job["status"] = self.finishes_as if self.unfinished_waits < 0 else job["status"]

    def take(self, raw: bytes, key: str | None) -> tuple[int, dict[str, Any] | Response]:
        """One create: 202 and the job, 200 and the job made before, or a problem."""
        body = json.loads(raw)
        faults = [(f"/{name}", "unknown field") for name in body if name not in KNOWN_FIELDS]
        faults += [("/type", "is required")] * ("type" not in body)
        if faults:
            return 422, problem(422, "validation_failed", *faults)
        key = key or body.pop("idempotencyKey", None)
        if key in self.by_key:
            known_raw, job_id = self.by_key[key]
            if known_raw != raw:
                return 422, problem(422, "idempotency_mismatch")
            return 200, self.jobs[job_id]
        job_id = self.add(body)
        if key is not None:
            self.by_key[key] = (raw, job_id)
        return 202, self.jobs[job_id]


def _page(request: Request, items: list[dict[str, Any]], size: int) -> Response:
    start = int(request.query_params.get("pageToken", "0"))
    more = str(start + size) if start + size < len(items) else None
    return JSONResponse({"items": items[start : start + size], "nextPageToken": more})


def _short(job: dict[str, Any]) -> dict[str, Any]:
    return {"id": job["id"], "status": job["status"]}


def _listed(job: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in job.items() if k not in ("payload", "result")}


def application(current: Callable[[], Yard]) -> Starlette:
    async def create(request: Request) -> Response:
        status, outcome = current().take(await request.body(), request.headers.get("Idempotency-Key"))
        if isinstance(outcome, Response):
            return outcome
        return JSONResponse(
            _short(outcome), status, {"Idempotency-Replayed": "true"} if status == 200 else None
        )

    async def bulk(request: Request) -> Response:
        yard, body = current(), await request.body()
        await asyncio.to_thread(yard.hold_bulk.wait)
        if len(body) > yard.max_bulk_bytes:
            return problem(413, "too_large")
        items: list[dict[str, Any]] = []
        for raw in msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])["jobs"]:
            status, outcome = yard.take(bytes(raw), None)
            refused = isinstance(outcome, Response)
            told = {"replayed": True} if status == 200 else {}
            items.append({"problem": json.loads(bytes(outcome.body))} if refused else _short(outcome) | told)
        return JSONResponse({"items": items})

    async def get(request: Request) -> Response:
        yard = current()
        job = yard.jobs.get(request.path_params["id"])
        if job is None:
            return problem(404, "not_found")
        if "Prefer" in request.headers:
            yard.wait(job)
        tag = '"{run}.{attempt}.{status}.{updatedAt}"'.format(**job)
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return JSONResponse(job, headers={"ETag": tag})

    async def cancel(request: Request) -> Response:
        job = current().jobs.get(request.path_params["id"])
        if job is None:
            return problem(404, "not_found")
        if job["status"] in ("completed", "failed"):
            return problem(409, "wrong_state")
        job.update({"cancelRequested": True} if job["status"] == "processing" else {"status": "failed"})
        return JSONResponse(job)

    async def retry(request: Request) -> Response:
        job = current().jobs.get(request.path_params["id"])
        if job is None:
            return problem(404, "not_found")
        if job["status"] != "failed":
            return problem(409, "wrong_state")
        job.update({"status": "pending", "run": job["run"] + 1, "error": None})
        return JSONResponse(job)

    async def rows(request: Request) -> Response:
        """Two to a page."""
        return _page(request, current().rows.get(request.path_params["what"], []), size=2)

    async def list_(request: Request) -> Response:
        asked = {name: value for name, value in request.query_params.items() if name in EXACT_FILTERS}
        items = [_listed(job) for job in reversed(current().jobs.values()) if asked.items() <= job.items()]
        return _page(request, items, int(request.query_params.get("pageSize", "50")))

    async def dead_letters(request: Request) -> Response:
        items = [_listed(job) for job in reversed(current().dead(dict(request.query_params)))]
        return _page(request, items, int(request.query_params.get("pageSize", "50")))

    async def deal(request: Request) -> Response:
        """Its page token is the last job of the page before."""
        yard, asked = current(), await request.json()
        after = yard.places.get(asked.get("pageToken"), -1)
        found = [job for job in yard.dead(asked["filter"]) if yard.places[job["id"]] > after]
        page = [job["id"] for job in found[: asked["limit"]]]
        for job_id in [] if asked["dryRun"] else page:
            if request.method == "DELETE":
                del yard.jobs[job_id]
            else:
                yard.jobs[job_id].update({"status": "pending", "deadLetter": False, "run": 2})
        more = page[-1] if len(found) > len(page) else None
        return JSONResponse(
            {"count": len(page), "jobs": page, "dryRun": asked["dryRun"], "nextPageToken": more}
        )

    async def stats(_: Request) -> Response:
        return JSONResponse(current().stats)

    def misfortune(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            yard = current()
            body = await request.body()
            path = request.scope["raw_path"].decode()
            headers = {name.lower(): value for name, value in request.headers.items()}
            yard.seen.append(Seen(request.method, path, request.url.query, headers, body, time.monotonic()))
            if instead := yard.always or (yard.instead.popleft() if yard.instead else None):
                return instead
            response = await handler(request)
            return yard.after.popleft() if yard.after else response

        return handle

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/api/jobs", misfortune(create), methods=["POST"]),
            Route("/api/jobs", misfortune(list_)),
            Route("/api/jobs/bulk", misfortune(bulk), methods=["POST"]),
            Route("/api/jobs/{id}/cancel", misfortune(cancel), methods=["POST"]),
            Route("/api/jobs/{id}/retry", misfortune(retry), methods=["POST"]),
            Route("/api/jobs/{id}/{what}", misfortune(rows)),
            Route("/api/jobs/{id:path}", misfortune(get)),
            Route("/api/dead-letters", misfortune(dead_letters), methods=["GET"]),
            Route("/api/dead-letters", misfortune(deal), methods=["DELETE"]),
            Route("/api/dead-letters/redrive", misfortune(deal), methods=["POST"]),
            Route("/api/stats", misfortune(stats)),
            Route("/api/{what}", misfortune(rows)),
        ]
    )


class ContractServer:
    """Serves in a thread; `fresh` forgets everything."""

    def __init__(self) -> None:
        self._yard = Yard()
        config = uvicorn.Config(
            application(lambda: self._yard),
            port=0,
            log_level="critical",
            lifespan="off",
            ws="none",
            loop="asyncio",
            http="h11",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def fresh(self) -> Yard:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self._yard = Yard(url=f"http://127.0.0.1:{port}")
        return self._yard


def eventually(holds: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)
