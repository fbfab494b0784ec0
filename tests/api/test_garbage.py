"""A request leaves nothing for the garbage collector: its pauses would be the slowest requests."""

from __future__ import annotations

import gc
from typing import Any

from jobyard.api.app import create_app
from jobyard.api.exchange import Request
from jobyard.clock import SystemClock
from jobyard.config import Settings
from jobyard.store.database import Pool
from jobyard.store.lanes import Lanes


async def test_a_request_is_gone_with_its_answer_without_the_collector(pool: Pool) -> None:
    app = create_app(Settings(), pool, Lanes(), SystemClock())

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def ask(path: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [],
            "root_path": "",
        }
        await app(scope, receive, send)

    paths = ("/healthz", "/api/jobs", "/api/jobs/nothing", "/nowhere")
    gc.collect()
    gc.disable()
    try:
        for path in paths * 10:
            await ask(path)
        alive = [found for found in gc.get_objects() if isinstance(found, Request)]
        assert alive == []
    finally:
        gc.enable()
