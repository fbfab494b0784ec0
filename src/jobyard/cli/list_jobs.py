"""`jobyard list`: the jobs that fit, newest first."""

from __future__ import annotations

from collections.abc import Iterator
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
    from jobyard.client import Job

DEFAULT_LIMIT = 50
LARGEST_PAGE = 1_000


def list_(
    status: Status = None,
    type_: Type = None,
    queue: Queue = None,
    tag: Tag = None,
    metadata: Metadata = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help=f"At most so many ({DEFAULT_LIMIT}).")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="As many as there are.")] = False,
    as_json: JsonLines = False,
) -> None:
    """List jobs, newest first; all filters must hold.

    Failed jobs of the last hour: jobyard list --status failed --created-after 1h
    """
    if all_ and limit is not None:
        raise typer.BadParameter("does not go with --limit", param_hint="--all")
    most = None if all_ else limit or DEFAULT_LIMIT
    asked = filters(status, type_, queue, tag, metadata, created_after, created_before)
    # One more than is shown tells whether there are more.
    asked["page_size"] = LARGEST_PAGE if most is None else min(most + 1, LARGEST_PAGE)
    with connect(retry_seconds=0) as client:
        found = client.list_each(**asked)
        if as_json:
            for body in islice(found.json(), most):
                say_json(body)
        else:
            _print_table(iter(found), most)


def _print_table(jobs: Iterator[Job], most: int | None) -> None:
    from jobyard.cli.rows import JOB_COLUMNS, job_row
    from jobyard.cli.table import print_table

    if not print_table(JOB_COLUMNS, map(job_row, islice(jobs, most))):
        complain("no job fits")
    elif next(jobs, None) is not None:
        complain(f"these are the newest {most}; --limit N or --all shows more")
