"""The documents about the API: one for machines, one for people, and the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

from jobyard.api.exchange import Answer, Request
from jobyard.api.pages.docs import CONTENT_SECURITY_POLICY, render

if TYPE_CHECKING:
    from jobyard.api.parts import Parts

HTML = b"text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Pages:
    """Both documents, made once."""

    document: bytes
    page: bytes

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        return cls(msgspec.json.encode(document), render(document).encode())


async def openapi(parts: Parts, request: Request) -> Answer:
    return Answer(200, parts.pages.document, [])


async def docs(parts: Parts, request: Request) -> Answer:
    headers = [
        (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
        (b"referrer-policy", b"no-referrer"),
    ]
    return Answer(200, parts.pages.page, headers, HTML)


async def home(parts: Parts, request: Request) -> Answer:
    return Answer(307, b"", [(b"location", b"/docs")], HTML)
