"""Around all routes: the key, the choice of the method, and every error turned into a problem."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NoReturn

import msgspec
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from jobyard import telemetry
from jobyard.api.auth import Guard
from jobyard.api.bodies import ClientGone
from jobyard.api.exchange import PROBLEM_JSON, Answer, Headers, Request
from jobyard.api.parts import Parts
from jobyard.api.problems import MethodNotAllowed, Unauthenticated, Unexpected, kind_of, problem_of
from jobyard.api.route import Route
from jobyard.domain.errors import DatabaseUnavailable, NotFound
from jobyard.ports import Clock
from jobyard.telemetry import LogEvent, metrics

REQUEST = "jobyard.request"
FIRST_SERVER_ERROR = 500
COMPLAINT_SECONDS = 1.0

_encode = msgspec.json.Encoder().encode


class Edge:
    """The ASGI application. Nothing that a client sends leaves it as an exception."""

    def __init__(self, routes: Sequence[Route], parts: Parts) -> None:
        guard = Guard(parts.settings.key)
        self._complaints = _Complaints(parts.clock)
        self._router = Router(
            [
                StarletteRoute(
                    path, _Resource([route for route in routes if route.path == path], parts, guard)
                )
                for path in dict.fromkeys(route.path for route in routes)
            ],
            redirect_slashes=False,
            default=_Nowhere(guard),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"only http is served, not {scope['type']}")
        began = time.perf_counter()
        request = scope[REQUEST] = Request(scope, receive)
        try:
            await self._router(scope, receive, send)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The grace of a stopping process is over, and the database has not answered yet.
            if request.status is not None:
                raise
            await _problem(DatabaseUnavailable("this process had to end"), request).send(request, send)
        except Exception as error:
            self._complaints.about(error, request)
            await _problem(error, request).send(request, send)
        finally:
            # They know each other: without this every request would be garbage for the collector, whose pauses made
            # up the slowest requests.
            del scope[REQUEST]
            _tell(request, time.perf_counter() - began)


def refusing(error: Exception) -> ASGIApp:
    """Answers a request that never became one."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await _problem(error, request).send(request, send)

    return refuse


class _Resource:
    """The methods of one address, which are open all or guarded all; HEAD is answered as GET, and the server leaves out the body."""

    def __init__(self, routes: Sequence[Route], parts: Parts, guard: Guard) -> None:
        self._path = routes[0].path
        self._routes = {route.method: route for route in routes}
        self._is_open = all(route.is_open for route in self._routes.values())
        if "GET" in self._routes:
            self._routes["HEAD"] = self._routes["GET"]
        self._parts = parts
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = scope[REQUEST]
        request.route = self._path
        route = self._routes.get(request.method)
        if not self._is_open:
            self._guard.check(scope["headers"], from_browser=route is not None and route.for_browsers)
        if route is None:
            raise MethodNotAllowed(sorted(self._routes))
        answer = await route.endpoint(self._parts, request)
        await answer.send(request, send)


class _Nowhere:
    """Every address that no route has."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> NoReturn:
        self._guard.check(scope["headers"])
        raise NotFound(scope["path"])


def _tell(request: Request, seconds: float) -> None:
    metrics.answered(request.route, request.method, request.status, seconds)
    if telemetry.detailed():
        telemetry.debug(
            LogEvent.REQUEST_ANSWERED,
            request_id=request.id,
            method=request.method,
            route=request.route,
            status=request.status,
            seconds=round(seconds, 6),
        )


def _problem(error: Exception, request: Request) -> Answer:
    kind = kind_of(type(error))
    headers: Headers = []
    if kind.retry_after is not None:
        headers.append((b"retry-after", b"%d" % kind.retry_after))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, Unauthenticated):
        headers += [(b"www-authenticate", challenge) for challenge in error.challenges]
    body = _encode(problem_of(error, request.id))
    return Answer(kind.status, body, headers, PROBLEM_JSON, closes=kind.closes)


class _Complaints:
    """What operators hear of: all that nobody foresaw, and troubles that come in thousands once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = float("-inf")

    def about(self, error: Exception, request: Request) -> None:
        kind = kind_of(type(error))
        if kind.status < FIRST_SERVER_ERROR:
            return
        facts = {"method": request.method, "request_id": request.id, "code": kind.code}
        if kind is kind_of(Unexpected):
            telemetry.error(LogEvent.REQUEST_FAILED, **facts, exc_info=error)
        elif self._clock.now() - self._last >= COMPLAINT_SECONDS:
            self._last = self._clock.now()
            telemetry.warning(LogEvent.REQUEST_UNAVAILABLE, **facts, error=str(error))
