"""Many jobs in as few requests as they need, and what became of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
import msgspec

from jobyard.client.errors import ApiError, NotJobyard
from jobyard.client.shapes import Created, Fault, Problem, Refused
from jobyard.client.transport import Transport
from jobyard.client.wire import Batch, batches, bulk_body, bulk_item

Outcome = Created | Refused

# The body as a whole was refused, so the fault of one item may stand for all.
WHOLE_BODY_REFUSALS = (400, 413, 422)
_PLACE_IN_BULK = re.compile(r"^/jobs/\d+(?=/|$)")


class BulkItem(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    replayed: bool = False
    problem: Problem | None = None

    def outcome(self) -> Outcome:
        if self.id is not None and self.status is not None:
            return Created(id=self.id, status=self.status, replayed=self.replayed)
        if self.problem is None:
            return Refused(problem=Problem(code="unknown", title="The server gave no reason."))
        return Refused(
            problem=msgspec.structs.replace(self.problem, errors=list(map(_of_item, self.problem.errors)))
        )


def _of_item(fault: Fault) -> Fault:
    """The pointer within the item: its place in a request of the client's own making says nothing to the caller."""
    return Fault(pointer=_PLACE_IN_BULK.sub("", fault.pointer), detail=fault.detail)


class _BulkAnswer(msgspec.Struct):
    items: list[BulkItem]


def create_each(
    transport: Transport, jobs: Iterable[Mapping[str, Any]], headers: dict[str, str]
) -> Iterator[Outcome]:
    for batch in batches(map(bulk_item, jobs)):
        yield from _create_batch(transport, batch, headers)


def _create_batch(transport: Transport, batch: Batch, headers: dict[str, str]) -> Iterator[Outcome]:
    try:
        response = transport.send(
            "POST",
            "/api/jobs/bulk",
            repeatable=all(item.keyed for item in batch),
            content=bulk_body(batch),
            headers=headers,
        )
    except ApiError as refusal:
        yield from _create_halves(transport, batch, headers, refusal)
    else:
        yield from _outcomes(transport, response, len(batch))


def _create_halves(
    transport: Transport, batch: Batch, headers: dict[str, str], refusal: ApiError
) -> Iterator[Outcome]:
    """Looks for the item that had the whole request refused: alone at last, only it is."""
    if refusal.status not in WHOLE_BODY_REFUSALS:
        raise refusal
    if len(batch) == 1:
        yield Refused(problem=refusal.problem)
        return
    middle = len(batch) // 2
    yield from _create_batch(transport, batch[:middle], headers)
    yield from _create_batch(transport, batch[middle:], headers)


def _outcomes(transport: Transport, response: httpx.Response, expected: int) -> Iterator[Outcome]:
    items = transport.read(response, _BulkAnswer).items
    if len(items) != expected:
        raise NotJobyard(transport.url, f"{len(items)} answers to {expected} jobs")
    return (item.outcome() for item in items)
