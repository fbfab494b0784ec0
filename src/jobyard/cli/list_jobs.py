"""`jobyard list`: the jobs that fit, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from jobyard.cli.connection import connect
from jobyard.cli.options import (
    CreatedAfter,
    CreatedBefore,
    JsonLines,
    Metadata,
    Queue,
    Status,
    Tag,
    Type,
    filters,
)
from jobyard.cli.terminal import complain, say_json

if TYPE_CHECKING:
    from jobyard.client import Job, Stream

DEFAULT_LIMIT = 50
LARGEST_PAGE = 1_000

Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help=f"At most so many ({DEFAULT_LIMIT}).")
]
All = Annotated[bool, typer.Option("--all", help="As many as there are.")]


def list_(
    status: Status = None,
    type_: Type = None,
    queue: Queue = None,
    tag: Tag = None,
    metadata: Metadata = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Limit = None,
    all_: All = False,
    as_json: JsonLines = False,
) -> None:
    """List jobs, newest first; all filters must hold.

    Failed jobs of the last hour: jobyard list --status failed --created-after 1h
    """
    most = most_wanted(limit, all_)
    asked = filters(status, type_, queue, tag, metadata, created_after, created_before)
    asked["page_size"] = page_size(most)
    with connect(retry_seconds=0) as client:
        show_newest(client.list_each(**asked), most, _print_table, "no job fits", as_json=as_json)


def _print_table(jobs: Iterable[Job]) -> int:
    from jobyard.cli.rows import JOB_COLUMNS, job_row
    from jobyard.cli.table import print_table

    return print_table(JOB_COLUMNS, map(job_row, jobs))


def most_wanted(limit: int | None, all_: bool) -> int | None:
    if all_ and limit is not None:
        raise typer.BadParameter("does not go with --limit", param_hint="--all")
    return None if all_ else limit or DEFAULT_LIMIT


def page_size(most: int | None) -> int:
    """One more than is shown tells whether there are more."""
    return LARGEST_PAGE if most is None else min(most + 1, LARGEST_PAGE)


def show_newest(
    found: Stream[Job],
    most: int | None,
    print_table: Callable[[Iterable[Job]], int],
    nothing: str,
    *,
    as_json: bool,
) -> None:
    if as_json:
        for body in islice(found.json(), most):
            say_json(body)
        return
    jobs = iter(found)
    if not print_table(islice(jobs, most)):
        complain(nothing)
    elif next(jobs, None) is not None:
        complain(f"these are the newest {most}; --limit N or --all shows more")
