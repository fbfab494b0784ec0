"""Puts the parts together: a port on which the pushes of one service account come into a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from jobyard import telemetry
from jobyard.bus.pubsub_push import Pushed
from jobyard.health import Pages
from jobyard.key import Key
from jobyard.ports import Clock
from jobyard.push.app import PATH, push_app
from jobyard.push.receiver import Answer, Receiver
from jobyard.push.tokens import Keys, TokenCheck
from jobyard.serving import served
from jobyard.telemetry import LogEvent
from jobyard.worker.inbox import Inbox

MOST_CONNECTIONS = 1000
"""At a time; more are answered 503."""

HEAD_BYTES = 32 * 1024
IDLE_SECONDS = 75


@dataclass(frozen=True, slots=True)
class PushOptions:
    """`keys_url`: of the keys that tokens are signed with; `ack_at_end`: as in WorkerOptions."""

    host: str
    port: int
    audience: str
    service_account: str
    keys_url: str
    ack_at_end: bool


Listen = Callable[[Sequence[str], Inbox, Callable[[], int]], Receiver]


def open_door(options: PushOptions, pages: Pages, key: Key | None, clock: Clock) -> Listen:
    """What a worker listens by. Raises OSError when the port cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.create_server((options.host, options.port), family=family)

    async def serve(receive: Callable[[Pushed], Awaitable[Answer]]) -> None:
        keys = Keys(options.keys_url, clock)
        app = push_app(TokenCheck(options.audience, options.service_account, keys), receive, pages, key)
        bounds = {"limit_concurrency": MOST_CONNECTIONS, "h11_max_incomplete_event_size": HEAD_BYTES}
        try:
            async with served(app, listening, http="h11", timeout_keep_alive=IDLE_SECONDS, **bounds):
                telemetry.info(LogEvent.PUSH_STARTED, host=options.host, port=options.port, path=PATH)
                await asyncio.Event().wait()
        finally:
            await keys.close()

    def listen(_types: Sequence[str], inbox: Inbox, room: Callable[[], int]) -> Receiver:
        return Receiver(inbox, room, serve, ack_at_end=options.ack_at_end)

    return listen
