"""A request and its answer, as thin as the hot routes need them."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from jobyard.api.problems import Fault, ValidationFailed

LONGEST_WAIT_SECONDS = 60
MOST_QUERY_FIELDS = 50

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"

Headers = list[tuple[bytes, bytes]]

ALWAYS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""Of every answer: no browser guesses what it is, tells others about it, or shows it within another site's page. What
a page may load, and who may keep a copy, stands in each Answer. HSTS belongs to the proxy that ends TLS."""

NO_PAGE = b"default-src 'none'; frame-ancestors 'none'"
NO_COPY = b"no-store"

_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[,;]|$)", re.IGNORECASE)
_PROCESS = secrets.token_hex(4)
_numbers = itertools.count(1)
_sane_id = re.compile(rb"[A-Za-z0-9_.:@/+=-]{1,128}").fullmatch
_encode = msgspec.json.Encoder().encode


class Request:
    """What a client sent. Header names are lower case; of a header sent twice the last one counts. `id` is the
    client's own X-Request-Id where that can be shown in a log, else a new one. `route` and `status` are known once it
    was matched and answered."""

    __slots__ = ("headers", "id", "receive", "route", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.route: str | None = None
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = given.decode() if given and _sane_id(given) else f"{_PROCESS}-{next(_numbers):x}"

    @property
    def method(self) -> str:
        return self.scope["method"]

    @property
    def path(self) -> str:
        return self.scope["path"]

    def path_value(self, name: str) -> str:
        return self.scope["path_params"][name]

    def wait_seconds(self) -> int:
        """N of `Prefer: wait=N`, at most 60; 0 for none. What cannot be read is ignored, as RFC 7240 asks."""
        prefer = self.headers.get(b"prefer")
        found = _WAIT.search(prefer) if prefer else None
        return min(int(found[1]), LONGEST_WAIT_SECONDS) if found else 0

    def query(self) -> dict[str, str]:
        """Each parameter once. Raises ValidationFailed."""
        text = cast("bytes", self.scope["query_string"]).decode("latin-1")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_QUERY_FIELDS)
        except ValueError:
            raise ValidationFailed([Fault("", f"at most {MOST_QUERY_FIELDS} parameters")]) from None
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValidationFailed([Fault(f"/{name}", "is given more than once") for name in twice])
        return values

    async def gone(self) -> None:
        """Returns when the client has gone away. For requests whose body has been read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


@dataclass(slots=True)
class Answer:
    """What goes back. `closes`: the connection ends with it, because the rest of the request is not wanted. `policy`,
    `caching`: its Content-Security-Policy and Cache-Control."""

    status: int
    body: bytes
    headers: Headers
    content_type: bytes = JSON
    closes: bool = False
    policy: bytes = NO_PAGE
    caching: bytes = NO_COPY

    async def send(self, request: Request, send: Send) -> None:
        headers = [
            (b"x-request-id", request.id.encode()),
            (b"content-security-policy", self.policy),
            (b"cache-control", self.caching),
            *ALWAYS,
            *self.headers,
        ]
        if self.status != 304:
            headers += (b"content-type", self.content_type), (b"content-length", b"%d" % len(self.body))
        if self.closes:
            headers.append((b"connection", b"close"))
        request.status = self.status
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": self.closes})
        if self.closes:
            await _linger(request)
            await send({"type": "http.response.body"})


LINGER_SECONDS = 1.0


async def _linger(request: Request) -> None:
    """Throw away what still arrives: closing on a client in the middle of its body would reset the connection
    before it can read the answer."""
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            message: Any = {"more_body": True}
            while message.get("more_body"):
                message = await request.receive()
    except TimeoutError:
        pass


def json_answer(status: int, body: Any, headers: Headers | None = None, caching: bytes = NO_COPY) -> Answer:
    return Answer(status, _encode(body), headers or [], caching=caching)
