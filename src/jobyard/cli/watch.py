"""`jobyard watch`: one job until it ends, or whatever fits a filter until Ctrl-C."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from jobyard.cli.connection import connect
from jobyard.cli.endings import Exit
from jobyard.cli.get import point_to_attempts
from jobyard.cli.options import (
    CreatedAfter,
    CreatedBefore,
    JsonLines,
    Metadata,
    Queue,
    Status,
    Tag,
    Type,
    checking_id,
    filters,
)
from jobyard.cli.outage import Outage
from jobyard.cli.sentence import change
from jobyard.cli.terminal import complain, say, say_json
from jobyard.cli.waiting import warn_if_nobody_runs

if TYPE_CHECKING:
    from jobyard.client import Client, Job, JobFilters, Stream

WINDOW = 100
"""The newest jobs that fit; a change of an older one is not seen."""
REFRESH_SECONDS = 1.0


def watch(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One job; without it all that fit.")
    ] = None,
    status: Status = None,
    type_: Type = None,
    queue: Queue = None,
    tag: Tag = None,
    metadata: Metadata = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    as_json: JsonLines = False,
) -> None:
    """Watch a job until it is completed or failed, or without ID the whole yard until Ctrl-C.

    On a terminal a live view; elsewhere, and with --json, a line for each change. Without ID these are the changes of the newest 100 jobs that fit. A server that goes away is waited for.
    """
    asked = filters(status, type_, queue, tag, metadata, created_after, created_before)
    if job_id is not None and any(asked.values()):
        raise typer.BadParameter("an ID goes without filters", param_hint="ID")
    is_live = not as_json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    outage = Outage(_show_later if is_live else complain)
    with connect(retry_seconds=math.inf, on_retry=outage.goes_on, on_recovery=outage.is_over) as client:
        client.ping()
        if job_id is None:
            _watch_yard(client, asked, outage, as_json=as_json, is_live=is_live)
        else:
            last = _watch_job(client, job_id, outage, as_json=as_json, is_live=is_live)
            raise typer.Exit(_judge(last, as_json=as_json))


def _watch_job(client: Client, job_id: str, outage: Outage, *, as_json: bool, is_live: bool) -> Job:
    with checking_id():
        changes = client.watch(job_id)
        if not as_json:
            job = client.get(job_id)
            warn_if_nobody_runs(client, job.status, job.type)
    if is_live:
        from jobyard.cli.live import show_job

        return show_job(changes, outage)
    return _print(changes, changes.json(), as_json=as_json)


def _judge(job: Job, *, as_json: bool) -> Exit:
    if job.status == "completed":
        return Exit.OK
    if not as_json:
        point_to_attempts(job.id)
    return Exit.REFUSED


def _watch_yard(client: Client, asked: JobFilters, outage: Outage, *, as_json: bool, is_live: bool) -> None:
    asked["page_size"] = WINDOW
    jobs = client.list_each(**asked)
    if is_live:
        from jobyard.cli.live import show_yard

        show_yard(client, lambda: [*islice(jobs, WINDOW)], REFRESH_SECONDS, outage)
    _print(jobs, _changes(jobs), as_json=as_json)


def _changes(jobs: Stream[Job]) -> Iterator[bytes]:
    """The jobs as they are, then whichever looks other than at the last look; in each look the oldest first."""
    seen: set[bytes] = set()
    while True:
        look = [*islice(jobs.json(), WINDOW)]
        yield from (body for body in reversed(look) if body not in seen)
        seen = set(look)
        time.sleep(REFRESH_SECONDS)


def _print(jobs: Stream[Job], bodies: Iterator[bytes], *, as_json: bool) -> Job:
    """The last one."""
    job: Job | None = None
    for body in bodies:
        job = jobs.read(body)
        if as_json:
            say_json(body)
        else:
            say(change(job))
    assert job is not None, "a job that is watched is there"
    return job


def _show_later(_: str) -> None:
    """The live views tell of an outage by themselves."""
