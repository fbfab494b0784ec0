"""Around the edge where traces are on: a span for each request, and its context in place of the client's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from jobyard.telemetry.spans import Spans

TRACEPARENT = b"traceparent"
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines every few seconds, for ever."""


class Traced:
    """An ASGI application around another. Jobs that a request creates keep the context of its span, so that their
    dispatch and attempts are below it."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        given = dict(scope["headers"]).get(TRACEPARENT, b"").decode("latin-1")
        span = self._spans.request(scope["method"], scope["path"], scope["scheme"], given)
        others = [header for header in scope["headers"] if header[0] != TRACEPARENT]
        scope["headers"] = [*others, (TRACEPARENT, span.traceparent.encode())]
        try:
            await self._app(scope, receive, watched)
        finally:
            span.end(scope["route"].path if "route" in scope else None, status)
