"""The documents about the API: one for machines, one for people, and the way to it."""

from __future__ import annotations

from jobyard.api.exchange import Answer, Request
from jobyard.api.pages.docs import CONTENT_SECURITY_POLICY
from jobyard.api.parts import Parts

HTML = b"text/html; charset=utf-8"


async def openapi(parts: Parts, request: Request) -> Answer:
    return Answer(200, parts.pages.document, [])


async def docs(parts: Parts, request: Request) -> Answer:
    return Answer(200, parts.pages.page, [], HTML, policy=CONTENT_SECURITY_POLICY.encode())


async def home(parts: Parts, request: Request) -> Answer:
    return Answer(307, b"", [(b"location", b"/docs")], HTML)
