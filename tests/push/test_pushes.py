"""A worker that is pushed to: what it answers, and what becomes of the jobs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from contract.pubsub_server import PubsubServer
from dispatch.talk import TOPIC, WORKERS, ready
from jobyard.bus.pubsub import PubsubBus
from jobyard.bus.pubsub_wire import ID
from jobyard.clock import SystemClock
from jobyard.domain.announcement import Announcement
from jobyard.health import Pages
from jobyard.key import Key as Secret
from jobyard.push.app import LARGEST_BODY, PATH
from jobyard.push.door import PushOptions, open_door
from jobyard.worker import claimer
from processes.program import free_port, program
from push.google_account import ACCOUNT, AUDIENCE, Key, KeyServer
from web_server import web_server
from worker.yard import NAMESPACE, Working, Yard, until


@pytest.fixture(autouse=True)
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimer, "POLL_WHILE_HEARING_SECONDS", 3600.0)


@dataclass
class Pushed:
    """A worker at work, and who pushes to it."""

    http: httpx.AsyncClient
    working: Working
    key: Key

    async def push(self, body: Any, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {self.key.token()}", **headers}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(PATH, content=content, headers=sent)

    async def announce(self, announcement: Announcement) -> httpx.Response:
        return await self.push(envelope(announcement.encoded()))


def envelope(data: bytes, **attributes: str) -> dict[str, Any]:
    message = {
        "data": base64.b64encode(data).decode(), "attributes": attributes or {ID: "1.1.0"}, "messageId": "77",
        "publishTime": "2026-11-27T00:00:00.001Z",
    }  # fmt: skip
    return {"message": message, "subscription": "projects/p/subscriptions/s", "deliveryAttempt": 1}


@asynccontextmanager
async def pushed_to(
    yard: Yard, key: Key, handler: Callable[..., Any], *, ack_at_end: bool = False, concurrency: int = 4
) -> AsyncIterator[Pushed]:
    port = free_port()
    async with web_server(KeyServer(key).reply) as keys:
        options = PushOptions("127.0.0.1", port, AUDIENCE, ACCOUNT, f"{keys.url}/certs", ack_at_end)
        held: list[Working] = []
        pages = Pages(
            lambda: held[0].worker.ready, lambda: held[0].worker.parts, lambda: b"jobyard_ready 1\n"
        )
        listen = open_door(options, pages, Secret("secret"), SystemClock())
        async with yard.working(
            {"t": handler}, listen=listen, ack_at_end=ack_at_end, concurrency=concurrency
        ) as working:
            held.append(working)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
            ) as http:
                await until(
                    lambda: working.worker.ready and working.worker._claimer._poll_at > 0, "it has polled"
                )
                yield Pushed(http, working, key)


async def handle() -> None: ...


async def only(yard: Yard) -> Announcement:
    await yard.add()
    return (await ready(yard))[-1]


async def warmed_up(pushed: Pushed, yard: Yard) -> None:
    """It knows the lane."""
    assert (await pushed.announce(await only(yard))).status_code == 204
    await yard.all_ended()


async def test_a_pushed_job_is_claimed_and_run_and_the_push_answered(yard: Yard, key: Key) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        answer = await pushed.announce(await only(yard))
        assert answer.status_code == 204
        await yard.all_ended()


async def test_a_push_is_answered_when_its_job_is_claimed_not_when_it_ends(yard: Yard, key: Key) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    async with pushed_to(yard, key, wait) as pushed:
        assert (await pushed.announce(await only(yard))).status_code == 204
        assert await yard.count("active") == 1
        go_on.set()
        await yard.all_ended()


async def test_with_the_answer_at_the_end_the_job_runs_within_the_request(yard: Yard, key: Key) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        await go_on.wait()

    async with pushed_to(yard, key, wait, ack_at_end=True) as pushed:
        asking = asyncio.create_task(pushed.announce(await only(yard)))
        await running.wait()
        assert not asking.done()
        go_on.set()
        assert (await asking).status_code == 204
        assert await yard.count("done") == 1


async def test_twice_pushed_is_run_once(yard: Yard, key: Key) -> None:
    runs: list[int] = []

    async def count() -> None:
        runs.append(1)

    async with pushed_to(yard, key, count) as pushed:
        announcement = await only(yard)
        answers = await asyncio.gather(*(pushed.announce(announcement) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [204, 204, 204]
        await yard.all_ended()
    assert runs == [1]


async def test_a_worker_without_room_has_it_pushed_again(yard: Yard, key: Key) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    async with pushed_to(yard, key, wait, concurrency=1) as pushed:
        assert (await pushed.announce(await only(yard))).status_code == 204
        waiting = await only(yard)
        full = await pushed.announce(waiting)
        assert (full.status_code, full.headers["Retry-After"]) == (503, "1")
        assert full.headers["Content-Type"] == "application/problem+json"
        go_on.set()
        await until(lambda: yard.db.fetchval("SELECT count(*) = 1 FROM jobyard.done"), "the first is over")
        assert (await pushed.announce(waiting)).status_code == 204
        await yard.all_ended()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({"Authorization": f"Bearer {Key('first').token()}"}, 401),
    ],
    ids=["none", "garbage", "forged"],
)
async def test_a_push_without_a_good_token_claims_nothing(
    yard: Yard, key: Key, headers: dict[str, str], status: int
) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        announcement = await only(yard)
        answer = await pushed.push(envelope(announcement.encoded()), **headers)
        assert answer.status_code == status
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["status"] == status
        forbidden = key.token(email="other@example.com")
        other = await pushed.push(envelope(announcement.encoded()), Authorization=f"Bearer {forbidden}")
        assert other.status_code == 403
        assert await yard.count("ready") == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b"\xff", b'{"message":7}', b'{"message":{"data":"%%%"}}', b"[" * 50_000),
        b'{"message":{"attributes":{"a":1}}}',
    ],
)
async def test_what_is_no_push_is_400(yard: Yard, key: Key, body: bytes) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        assert (await pushed.push(body)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [envelope(b"no announcement"), envelope(b""), envelope(b"{}", foreign="x"), {"message": {}}],
    ids=["no JSON", "empty", "of somebody else", "nothing"],
)
async def test_a_push_that_announces_nothing_is_done_with(yard: Yard, key: Key, body: dict[str, Any]) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        assert (await pushed.push(body)).status_code == 204


async def test_a_body_that_is_too_large_is_413_whether_or_not_it_says_so(yard: Yard, key: Key) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (LARGEST_BODY // 2)

    async with pushed_to(yard, key, handle) as pushed:
        assert (await pushed.push(b"x" * (LARGEST_BODY + 1))).status_code == 413
        sent = {"Authorization": f"Bearer {key.token()}"}
        assert (await pushed.http.post(PATH, content=in_parts(), headers=sent)).status_code == 413


async def test_the_pages_of_health_are_on_the_same_port_and_the_metrics_ask_for_the_key(
    yard: Yard, key: Key
) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        assert (await pushed.http.get("/healthz")).json() == {"status": "alive"}
        readiness = (await pushed.http.get("/readyz")).json()
        assert readiness["parts"]["announcements"] == {"ok": True}
        assert (await pushed.http.get("/metrics")).status_code == 401
        shown = await pushed.http.get("/metrics", headers={"Authorization": "Bearer secret"})
        assert (shown.status_code, shown.text) == (200, "jobyard_ready 1\n")
        assert (await pushed.http.get(PATH)).status_code == 405
        assert (await pushed.http.get("/other")).status_code == 404


async def test_a_worker_that_stops_has_pushed_again_what_it_has_not_claimed(yard: Yard, key: Key) -> None:
    async with pushed_to(yard, key, handle) as pushed:
        await warmed_up(pushed, yard)
        async with yard.held("active"):
            first = asyncio.create_task(pushed.announce(await only(yard)))
            await until(yard.blocked, "the claim waits")
            second = asyncio.create_task(pushed.announce(await only(yard)))
            await until(
                lambda: len(pushed.working.worker._claimer._inbox) == 1, "it waits for the next claim"
            )
            pushed.working.worker.stop()
            assert (await second).status_code == 503
        assert (await first).status_code == 204


async def test_with_the_answer_at_the_end_a_worker_that_stops_answers_as_attempts_end(
    yard: Yard, key: Key
) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        running.set()
        await go_on.wait()

    async with pushed_to(yard, key, wait, ack_at_end=True) as pushed:
        asking = asyncio.create_task(pushed.announce(await only(yard)))
        await running.wait()
        pushed.working.worker.stop()
        again = await pushed.announce(await only(yard))
        assert again.status_code == 503
        go_on.set()
        assert (await asking).status_code == 204


Admin = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def emulating(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[PubsubServer, PubsubBus]]:
    server = PubsubServer("")
    server.start()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"{server.host}:{server.port}")
    bus = PubsubBus(server.project, SystemClock())
    try:
        yield server, bus
    finally:
        await bus.close()
        server.kill()


@pytest.mark.parametrize("ack", ["claim", "end"])
async def test_from_the_maintainer_over_pubsub_into_a_worker_process_and_done(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, ack: str
) -> None:
    async with emulating(monkeypatch) as (server, bus):
        await bus.ensure(TOPIC, [WORKERS])
        port = free_port()
        push = {
            "push_endpoint": f"http://127.0.0.1:{port}{PATH}",
            "oidc_token": {"service_account_email": ACCOUNT, "audience": AUDIENCE},
        }
        connection = await bus.connected()
        await connection.subscriber.modify_push_config(
            request={"subscription": bus.names.subscription(WORKERS), "push_config": push}
        )
        settings = {
            "DATABASE_URL": yard.url, "JOBYARD_HOME": str(tmp_path), "JOBYARD_HEALTH_PORT": str(port),
            "JOBYARD_BUS": f"pubsub://{server.project}/{NAMESPACE}", "JOBYARD_PUSH_AUDIENCE": AUDIENCE,
            "JOBYARD_PUSH_SERVICE_ACCOUNT": ACCOUNT, "JOBYARD_PUSH_KEYS_URL": f"{server.http}/oauth2/v1/certs",
            "JOBYARD_PUSH_ACK": ack, "JOBYARD_LOG": "json", "PYTHONPATH": str(tmp_path),
        }  # fmt: skip
        (tmp_path / "pushed_jobs.py").write_text(
            "from jobyard import handler\n\n\n@handler('t')\ndef t() -> str:\n    return 'done'\n"
        )
        with program(tmp_path, "worker", "--app", "pushed_jobs", **settings) as worker:
            await until(lambda: "push.started" in worker.said, "it takes pushes", 30)
            async with yard.announcing(bus):
                for _ in range(3):
                    await yard.add(count=3)
                    await yard.all_ended()
            async with httpx.AsyncClient(trust_env=False) as http:
                metrics = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'jobyard_pushes_total{status="204"}' in metrics
    assert await yard.count("attempt") == 0


async def test_a_port_that_is_taken_is_told_in_a_sentence(yard: Yard, tmp_path: Any) -> None:
    async with web_server(KeyServer().reply) as taken:
        settings = {
            "DATABASE_URL": yard.url, "JOBYARD_HOME": str(tmp_path), "JOBYARD_HEALTH_PORT": str(taken.port),
            "JOBYARD_BUS": "pubsub://project", "JOBYARD_PUSH_AUDIENCE": AUDIENCE,
            "JOBYARD_PUSH_SERVICE_ACCOUNT": ACCOUNT,
        }  # fmt: skip
        with program(tmp_path, "worker", **settings) as worker:
            assert await worker.end() == 1
            assert "set JOBYARD_HEALTH_PORT to a free port" in worker.said
