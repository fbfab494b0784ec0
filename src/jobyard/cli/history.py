"""`jobyard attempts`, `events` and `log`: what happened to one job, from the beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobyard.cli.connection import connect
from jobyard.cli.options import JobId, JsonLines, checking_id
from jobyard.cli.terminal import complain, say_json

if TYPE_CHECKING:
    from jobyard.client import Attempt, Event, LogLine, Stream


def attempts(
    job_id: JobId,
    traceback: Annotated[bool, typer.Option("--traceback", help="Each error in full.")] = False,
    as_json: JsonLines = False,
) -> None:
    """Show every try of a job: when, where, how it ended, and why it failed."""
    with connect(retry_seconds=0) as client:
        with checking_id():
            newest_first = client.attempts(job_id)
        if as_json:
            _print_json(newest_first)
        else:
            _print_attempts([*newest_first][::-1], traceback=traceback)


def events(job_id: JobId, as_json: JsonLines = False) -> None:
    """Show what happened to a job, as a timeline."""
    with connect(retry_seconds=0) as client:
        with checking_id():
            newest_first = client.events(job_id)
        if as_json:
            _print_json(newest_first)
        else:
            _print_events([*newest_first][::-1])


def log(job_id: JobId, as_json: JsonLines = False) -> None:
    """Show the lines that the handler of a job wrote onto it, from the first."""
    with connect(retry_seconds=0) as client:
        with checking_id():
            oldest_first = client.log(job_id)
        if as_json:
            for body in oldest_first.json():
                say_json(body)
        elif lines := [*oldest_first]:
            _print_log(lines, [*client.attempts(job_id)][::-1])
        else:
            complain("no line: a handler writes them with `ctx.log(text)`")


def _print_json(newest_first: Stream[Any]) -> None:
    for body in reversed([*newest_first.json()]):
        say_json(body)


def _print_attempts(found: list[Attempt], *, traceback: bool) -> None:
    from jobyard.cli.rows import ATTEMPT_COLUMNS, attempt_rows
    from jobyard.cli.table import print_table

    if not print_table(ATTEMPT_COLUMNS, attempt_rows(found, traceback=traceback)):
        complain(
            "no attempt yet: the job waits for its time or for a worker; `jobyard watch ID` shows when it is due, "
            "`jobyard queues` who could run it"
        )
    elif not traceback and any(it.error is not None for it in found):
        complain("--traceback shows each error in full")


def _print_events(found: list[Event]) -> None:
    from jobyard.cli.rows import EVENT_COLUMNS, event_rows
    from jobyard.cli.table import print_table

    print_table(EVENT_COLUMNS, event_rows(found))


def _print_log(lines: list[LogLine], attempts: list[Attempt]) -> None:
    from jobyard.cli.rows import LOG_COLUMNS, log_rows
    from jobyard.cli.table import print_table

    print_table(LOG_COLUMNS, log_rows(lines, attempts))
