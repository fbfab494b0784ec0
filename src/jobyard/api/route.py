"""A route, said once: the server's routes and the OpenAPI document are both made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from jobyard.domain.errors import JobyardError

if TYPE_CHECKING:
    from jobyard.api.exchange import Answer, Request
    from jobyard.api.parts import Parts

Endpoint = Callable[["Parts", "Request"], Awaitable["Answer"]]
Shape = type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or of an answer. `pattern`: what else it holds is refused."""

    name: str
    about: str
    example: str
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What one status means. `shapes`: the JSON it carries, one of several, or none."""

    about: str
    shapes: tuple[Shape, ...] = ()
    headers: tuple[Header, ...] = ()
    media: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one address. `problems`: what it can be refused for, beside what any route can be.

    `is_open`: answers without the key. `for_browsers`: the key may also come from a browser's own prompt; only for what
    changes nothing and holds nothing of anybody's jobs."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    description: str
    tag: str
    answers: Mapping[int, Reply]
    body: Shape | None = None
    body_example: str | None = None
    query: Shape | None = None
    headers: tuple[Header, ...] = ()
    problems: tuple[type[JobyardError], ...] = field(default=())
    is_open: bool = False
    for_browsers: bool = False
