"""The endpoints of dead letters: listed, sent to live again, purged."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from jobyard.api import bodies, render
from jobyard.api.exchange import Answer, Request, json_answer
from jobyard.api.listing import list_name, read_query
from jobyard.api.paging import make_token, read_token
from jobyard.api.parts import ENVELOPE_BYTES, Parts
from jobyard.api.problems import Fault, ValidationFailed
from jobyard.api.schemas import (
    DEFAULT_PAGE_SIZE,
    Id,
    Instant,
    JobPage,
    Name,
    PageSize,
    period_faults,
)
from jobyard.domain.job import DEFAULT_TENANT
from jobyard.domain.lifecycle import Reason
from jobyard.store import dead_letters, reads, verbs
from jobyard.store.database import Connection
from jobyard.store.dead_letters import DeadLetters

MAX_LETTERS = 1000
DEFAULT_LETTERS = 100
MAX_CHOSEN = 1000
MAX_ERROR_TEXT = 1000
MIN_REDRIVE_RATE, MAX_REDRIVE_RATE = 0.001, 10_000.0
MAX_SPREAD = 1_000_000
"""Dead letters that one rate spreads over time; those beyond come together."""

BODY_BYTES = ENVELOPE_BYTES
OLDEST = uuid.UUID(int=0)
_POSITION = 20
"""Bytes of a token: the job behind which to go on, and how many were dealt with before."""

ErrorText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ERROR_TEXT,
        description="Text that the error's type, message or traceback holds.",
    ),
]
Letter = tuple[uuid.UUID, int]
P = TypeVar("P", bound="Purge")


class Meant(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which dead letters; all filters must hold."""

    type: Name | None = None
    queue: Name | None = None
    reason: Literal["exhausted", "non_retryable", "timeout", "crashed"] | None = None
    failed_after: Annotated[Instant, Meta(description="At or after.")] | None = None
    failed_before: Annotated[Instant, Meta(description="Before.")] | None = None
    error: ErrorText | None = None

    def faults(self, within: str = "") -> list[Fault]:
        return period_faults(f"{within}/failed", self.failed_after, self.failed_before)

    def to_domain(self, jobs: Sequence[uuid.UUID] | None = None) -> DeadLetters:
        return DeadLetters(
            jobs=jobs,
            type=self.type,
            queue=self.queue,
            reason=None if self.reason is None else Reason(self.reason),
            failed_after=self.failed_after,
            failed_before=self.failed_before,
            error=self.error,
        )


class DeadLetterQuery(Meant, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to list; all filters must hold."""

    page_size: PageSize = DEFAULT_PAGE_SIZE
    page_token: str | None = None


class Filter(Meant, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which dead letters are meant. All that is given must hold; `{}` means all of them."""

    jobs: (
        Annotated[list[uuid.UUID], Meta(min_length=1, max_length=MAX_CHOSEN, description="Only these.")]
        | None
    ) = None


class Purge(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to delete for good, oldest first."""

    filter: Filter
    limit: Annotated[int, Meta(ge=1, le=MAX_LETTERS, description="At most so many.")] = DEFAULT_LETTERS
    dry_run: Annotated[bool, Meta(description="Only say which it would be.")] = False
    page_token: str | None = None


class Redrive(Purge, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to run again, oldest first."""

    rate: (
        Annotated[
            float,
            Meta(
                ge=MIN_REDRIVE_RATE,
                le=MAX_REDRIVE_RATE,
                description="Jobs a second; without it all may run at once.",
            ),
        ]
        | None
    ) = None


class Dealt(msgspec.Struct, rename="camel"):
    """How many dead letters were dealt with, or would be, and which. `nextPageToken`: there may be more; the same request
    with it goes on."""

    count: int
    jobs: list[Id]
    dry_run: bool
    next_page_token: str | None


_purge = msgspec.json.Decoder(Purge)
_redrive = msgspec.json.Decoder(Redrive)

Act = Callable[[Connection, Sequence[Letter], int], Awaitable[set[uuid.UUID]]]
"""Deals with these, behind so many others, and answers with whom it did."""


async def list_dead_letters(parts: Parts, request: Request) -> Answer:
    values = request.query()
    query = read_query(values, DeadLetterQuery)
    name = list_name(request, values)
    below = (
        uuid.UUID(bytes=read_token(query.page_token, name, 16))
        if query.page_token is not None
        else reads.NEWEST
    )
    async with parts.reading() as connection:
        page = await dead_letters.newest(
            connection, DEFAULT_TENANT, query.to_domain(), below, query.page_size
        )
    token = make_token(page.last.bytes, name) if page.last else None
    return json_answer(200, JobPage([render.job_summary(row) for row in page.rows], token))


async def redrive(parts: Parts, request: Request) -> Answer:
    asked = await _asked(parts, request, _redrive)
    every = 0.0 if asked.rate is None else 1 / asked.rate

    async def act(connection: Connection, letters: Sequence[Letter], before: int) -> set[uuid.UUID]:
        return await verbs.redrive(connection, letters, every=every, first=before)

    return await _deal(parts, request, asked, act)


async def purge(parts: Parts, request: Request) -> Answer:
    async def act(connection: Connection, letters: Sequence[Letter], _before: int) -> set[uuid.UUID]:
        return await dead_letters.purge(connection, letters)

    return await _deal(parts, request, await _asked(parts, request, _purge), act)


async def _asked(parts: Parts, request: Request, decoder: msgspec.json.Decoder[P]) -> P:
    asked = bodies.decode(decoder, await bodies.read_json(request, BODY_BYTES, parts.body_patience))
    if found := asked.filter.faults("/filter"):
        raise ValidationFailed(found)
    return asked


async def _deal(parts: Parts, request: Request, asked: Purge, act: Act) -> Answer:
    """One page of what is meant, in one transaction: all of it or, with an error, nothing."""
    meant = asked.filter
    name = f"{request.path} {msgspec.json.encode(meant).decode()}"
    above, before = (
        _position(read_token(asked.page_token, name, _POSITION)) if asked.page_token else (OLDEST, 0)
    )
    async with parts.reading() as connection:
        page = await dead_letters.oldest(
            connection, DEFAULT_TENANT, meant.to_domain(meant.jobs), above, asked.limit
        )
        letters = [(row["id"], row["run"]) for row in page.rows]
        dealt = {job for job, _ in letters}
        if letters and not asked.dry_run:
            dealt = await act(connection, letters, before)
    jobs = [str(job) for job, _ in letters if job in dealt]
    token = None if page.last is None else make_token(_bytes(page.last, before + len(letters)), name)
    return json_answer(200, Dealt(len(jobs), jobs, asked.dry_run, token))


def _position(token: bytes) -> tuple[uuid.UUID, int]:
    return uuid.UUID(bytes=token[:16]), min(int.from_bytes(token[16:]), MAX_SPREAD)


def _bytes(last: uuid.UUID, before: int) -> bytes:
    return last.bytes + before.to_bytes(4)
