"""Failed jobs that wait for a person: listed, sent to live again, or purged. Many at a time, a batch a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from jobyard.domain.lifecycle import DEAD_LETTER_REASONS, Reason
from jobyard.store.database import Connection
from jobyard.store.reads import EXAMINE_ROWS, Page
from jobyard.store.statements import statement
from jobyard.store.verbs import with_locked

_ORDERS = {
    "DESC": "SELECT job, run FROM jobyard.done WHERE status = 'failed' AND job < $2 ORDER BY job DESC, run DESC",
    "ASC": "SELECT job, run FROM jobyard.done WHERE status = 'failed' AND job > $2 ORDER BY job, run DESC",
}
"""Of a job's failed runs only the last can be a dead letter: it comes first, so that no page ends before it."""

_CHOSEN = (
    "SELECT d.job, d.run FROM unnest($11::uuid[]) AS u (job) CROSS JOIN LATERAL"
    " (SELECT job, run, status FROM jobyard.done WHERE job = u.job OFFSET 0) d"
    " WHERE d.status = 'failed' AND d.job > $2 ORDER BY d.job, d.run DESC"
)

SOURCES = ((_ORDERS["DESC"], "DESC"), (_ORDERS["ASC"], "ASC"), (_CHOSEN, "ASC"))
"""Every form of the list, for the tests that hold each to its plan."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Which of them; all filters must hold. `error`: text that the error's type, message or traceback holds."""

    jobs: Sequence[UUID] | None = None
    type: str | None = None
    queue: str | None = None
    reason: Reason | None = None
    failed_after: datetime | None = None
    failed_before: datetime | None = None
    error: str | None = None


def dead_letters_statement(source: str, direction: str) -> str:
    return statement("dead_letters").replace("{source}", source).replace("{direction}", direction)


async def newest(
    connection: Connection,
    tenant: int,
    wanted: DeadLetters,
    below: UUID,
    size: int,
    examine: int = EXAMINE_ROWS,
) -> Page:
    """Up to `size` of them with ids below `below`, newest first. A page may be short and still have a successor."""
    return await _page(connection, _ORDERS["DESC"], "DESC", tenant, wanted, below, size, examine)


async def oldest(
    connection: Connection,
    tenant: int,
    wanted: DeadLetters,
    above: UUID,
    size: int,
    examine: int = EXAMINE_ROWS,
) -> Page:
    """Up to `size` of them with ids above `above`, oldest first: the order in which they are dealt with."""
    source = _ORDERS["ASC"] if wanted.jobs is None else _CHOSEN
    return await _page(connection, source, "ASC", tenant, wanted, above, size, examine)


async def purge(connection: Connection, letters: Sequence[tuple[UUID, int]]) -> set[UUID]:
    """Delete these jobs, dead since these runs, with all that is kept of them; which there still were."""

    async def act(jobs: Sequence[UUID], runs: Sequence[int]) -> set[UUID]:
        return set(await connection.fetchval(statement("retention_delete"), jobs, runs) or ())

    return await with_locked(connection, letters, act)


async def _page(
    connection: Connection,
    source: str,
    direction: str,
    tenant: int,
    wanted: DeadLetters,
    beyond: UUID,
    size: int,
    examine: int,
) -> Page:
    found = await connection.fetch(
        dead_letters_statement(source, direction),
        tenant,
        beyond,
        examine,
        size + 1,
        [reason.value for reason in DEAD_LETTER_REASONS if wanted.reason in (None, reason)],
        wanted.type,
        wanted.queue,
        wanted.failed_after,
        wanted.failed_before,
        None if wanted.error is None else _as_stored(wanted.error),
        wanted.jobs,
    )
    rows = [row for row in found if row["id"] is not None]
    if len(rows) > size:
        return Page(rows[:size], rows[size - 1]["id"])
    return Page(rows, found[0]["examined"])


def _as_stored(text: str) -> str:
    """How the text stands in an error, which is kept as JSON: to look for it there, nothing has to be parsed."""
    return json.dumps(text)[1:-1]
