"""The endpoints of what happened to a job: its attempts, its events, the lines that it wrote."""

from __future__ import annotations

from itertools import dropwhile, islice

from jobyard.api import render
from jobyard.api.exchange import Answer, Request, json_answer
from jobyard.api.listing import list_name, read_query
from jobyard.api.one_job import job_id, row_of
from jobyard.api.paging import make_token, read_token
from jobyard.api.parts import Parts
from jobyard.api.schemas import AttemptPage, EventPage, LogPage, PageQuery
from jobyard.domain.events import EventKey, Phase, events_of
from jobyard.store import reads


async def attempts(parts: Parts, request: Request) -> Answer:
    job, values = job_id(request), request.query()
    query = read_query(values, PageQuery)
    name = list_name(request, values)
    below = (
        _lease(read_token(query.page_token, name, 8)) if query.page_token is not None else reads.NEWEST_LEASE
    )
    await row_of(parts, job)
    async with parts.reading() as connection:
        rows = await reads.attempts(connection, job, below, query.page_size + 1)
    records = [render.attempt_record(row) for row in rows[: query.page_size]]
    more = len(rows) > query.page_size
    token = make_token(records[-1].lease.to_bytes(8), name) if more else None
    return json_answer(200, AttemptPage([render.attempt(record) for record in records], token))


async def events(parts: Parts, request: Request) -> Answer:
    job, values = job_id(request), request.query()
    query = read_query(values, PageQuery)
    name = list_name(request, values)
    before = _event_key(read_token(query.page_token, name, 9)) if query.page_token is not None else None
    created_at = (await row_of(parts, job))["created_at"]
    async with parts.reading() as connection:
        # The lease at which the last page ended may have an event left; every attempt has at least one.
        below = reads.NEWEST_LEASE if before is None else before.lease + 1
        rows = await reads.attempts(connection, job, below, query.page_size + 2, all_ends=True)
    facts = events_of(created_at, map(render.attempt_record, rows))
    unseen = dropwhile(lambda fact: before is not None and fact.key >= before, facts)
    found = list(islice(unseen, query.page_size + 1))
    shown = found[: query.page_size]
    token = make_token(_position(shown[-1].key), name) if len(found) > len(shown) else None
    return json_answer(200, EventPage([render.event(job, fact) for fact in shown], token))


async def log(parts: Parts, request: Request) -> Answer:
    job, values = job_id(request), request.query()
    query = read_query(values, PageQuery)
    name = list_name(request, values)
    after = (
        _line(read_token(query.page_token, name, 12))
        if query.page_token is not None
        else reads.BEFORE_ALL_LINES
    )
    await row_of(parts, job)
    async with parts.reading() as connection:
        rows = await reads.job_log(connection, job, after, query.page_size + 1)
    lines = rows[: query.page_size]
    more = len(rows) > query.page_size
    token = make_token(_line_position(lines[-1]["lease"], lines[-1]["line"]), name) if more else None
    return json_answer(200, LogPage([render.log_line(row) for row in lines], token))


def _lease(position: bytes) -> int:
    """Anybody can forge a token with what no lease can be."""
    return min(int.from_bytes(position), reads.NEWEST_LEASE - 1)


def _position(key: EventKey) -> bytes:
    return key.lease.to_bytes(8) + bytes([key.phase])


def _event_key(position: bytes) -> EventKey:
    return EventKey(_lease(position[:8]), Phase(min(position[8], max(Phase))))


def _line(position: bytes) -> tuple[int, int]:
    return _lease(position[:8]), min(int.from_bytes(position[8:]), (1 << 31) - 1)


def _line_position(lease: int, line: int) -> bytes:
    return lease.to_bytes(8) + line.to_bytes(4)
