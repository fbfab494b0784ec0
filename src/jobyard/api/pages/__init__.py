"""Both documents about the API, made once at start: one for programs, one for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import msgspec

from jobyard.api.pages.docs import render


@dataclass(frozen=True, slots=True)
class Pages:
    """The bytes that are served: OpenAPI as JSON, and the page in HTML."""

    document: bytes
    page: bytes

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        return cls(msgspec.json.encode(document), render(document).encode())
