"""The HTTP of a worker that is pushed to: the pushes, and the pages of its health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobyard import telemetry
from jobyard.bus.pubsub_push import NoPush, Pushed, pushed
from jobyard.health import METRICS_TYPE, Pages, readiness
from jobyard.key import Key
from jobyard.push.receiver import Answer
from jobyard.push.tokens import Forbidden, KeysUnavailable, TokenCheck, Unauthenticated
from jobyard.telemetry import LogEvent, metrics

PATH = "/api/pubsub/push"
LARGEST_BODY = 64 * 1024
BODY_SECONDS = 10.0
RETRY_AFTER_SECONDS = 1
TELL_SECONDS = 1.0
"""Refusals are told once in this time at most; all are counted."""

Receive = Callable[[Pushed], Awaitable[Answer]]


class TooLarge(Exception):
    pass


def push_app(check: TokenCheck, receive: Receive, pages: Pages, key: Key | None) -> Starlette:
    """`key` guards the metrics alone: a push shows a token of Google's."""
    told_at = float("-inf")

    def refused(status: int, why: str) -> Response:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            telemetry.warning(LogEvent.PUSH_REFUSED, status=status, why=why)
        return _answered(status, why)

    async def push(request: Request) -> Response:
        try:
            await check.require(request.headers.get("Authorization", ""))
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
            answer = await receive(pushed(body))
        except Unauthenticated as why:
            return refused(401, str(why))
        except Forbidden as why:
            return refused(403, str(why))
        except KeysUnavailable as why:
            return refused(503, str(why))
        except TooLarge:
            return refused(413, f"a push has {LARGEST_BODY} bytes at most")
        except TimeoutError:
            return refused(408, f"the body did not come within {BODY_SECONDS:g} s")
        except NoPush as why:
            return refused(400, str(why))
        except ClientDisconnect:
            return Response(status_code=400)
        if answer is Answer.AGAIN:
            return _answered(503, "no room now, or no claim in time: push it again")
        metrics.PUSHES.add(str(answer.value))
        return Response(status_code=answer)

    async def healthy(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        status, body = readiness(pages)
        return Response(body, status, media_type="application/json")

    async def shown(request: Request) -> Response:
        sent = [value.encode("latin-1") for value in request.headers.getlist("Authorization")]
        if key is not None and not key.is_shown(sent):
            answer = JSONResponse({"status": "send the key as Authorization: Bearer <key>"}, 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return Response(pages.metrics(), media_type=METRICS_TYPE.decode())

    return Starlette(
        routes=[
            Route(PATH, push, methods=["POST"]),
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Route("/metrics", shown),
        ]
    )


async def _body(request: Request) -> bytes:
    """Raises TooLarge, before it is read where its length says so."""
    announced = request.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced) > LARGEST_BODY:
        raise TooLarge
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise TooLarge
    return bytes(body)


def _answered(status: int, why: str) -> Response:
    metrics.PUSHES.add(str(status))
    headers = {
        401: {"WWW-Authenticate": "Bearer"},
        503: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    }.get(status)
    problem = {"title": "the push is not taken", "status": status, "detail": why}
    return JSONResponse(problem, status, headers, media_type="application/problem+json")
