"""`jobyard dead-letters`: jobs that failed for good and wait for a person, many at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from jobyard.cli.connection import connect
from jobyard.cli.endings import Exit
from jobyard.cli.list_jobs import All, Limit, most_wanted, page_size, show_newest
from jobyard.cli.options import (
    ErrorText,
    FailedAfter,
    FailedBefore,
    JsonLines,
    Queue,
    Reason,
    Type,
    dead_letter_filters,
)
from jobyard.cli.progress import progress
from jobyard.cli.terminal import complain, say, say_json
from jobyard.cli.times import duration

if TYPE_CHECKING:
    from jobyard.client import Client, DeadLetterFilters, DeadLettersMeant, Dealt, Job, Stream

PREVIEWED = 10
NOT_FOUND = 404
MOST_CHOSEN = 1_000
"""Jobs that one request may name."""
NONE_FITS = "no dead letter fits"

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Only these; they have to fit the filters too.")
]
EveryOne = Annotated[bool, typer.Option("--all", help="Every dead letter there is.")]
AtMost = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be, and show some.")]
Pages = Annotated[
    bool,
    typer.Option("--json", help="JSON on stdout: a line for each 1,000, with their number and their ids."),
]

group = typer.Typer(
    no_args_is_help=True,
    help="List jobs that failed for good, run them again, or delete them; many at a time.",
)


@group.command("list")
def list_(
    type_: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    failed_after: FailedAfter = None,
    failed_before: FailedBefore = None,
    error: ErrorText = None,
    limit: Limit = None,
    all_: All = False,
    as_json: JsonLines = False,
) -> None:
    """List dead letters, newest first, each with the first line of its error; all filters must hold.

    One of them in full: jobyard attempts ID --traceback, jobyard log ID. Run one again: jobyard retry ID
    """
    most = most_wanted(limit, all_)
    asked = dead_letter_filters(type_, queue, reason, failed_after, failed_before, error)
    with connect(retry_seconds=0) as client:
        found = client.dead_letters(**asked, page_size=page_size(most))
        show_newest(found, most, _print_table, NONE_FITS, as_json=as_json)


@group.command()
def redrive(
    ids: Ids = None,
    type_: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    failed_after: FailedAfter = None,
    failed_before: FailedBefore = None,
    error: ErrorText = None,
    all_: EveryOne = False,
    limit: AtMost = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="N",
            min=0.001,
            max=10_000,
            help="Let so many start in a second, instead of all at once.",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Pages = False,
) -> None:
    """Run dead letters again, oldest first, each with all its tries; all filters must hold.

    What happened to them before is kept. Look first: jobyard dead-letters redrive --type email --dry-run
    """
    filters = dead_letter_filters(type_, queue, reason, failed_after, failed_before, error)
    meant = _meant(ids, filters, all_=all_, dry_run=dry_run)
    with connect(retry_seconds=0) as client:
        pages = client.redrive_each(meant, limit=limit, rate=rate, dry_run=dry_run)
        if dry_run:
            jobs = _preview(client, pages, as_json=as_json)
        else:
            jobs = _deal(pages.json(), "redriven", limit, as_json=as_json)
    spread = f", spread over {duration((len(jobs) - 1) / rate)}" if rate and len(jobs) > 1 else ""
    _sum_up(jobs, f"{'would be ' if dry_run else ''}redriven{spread}", ids, limit, as_json=as_json)


@group.command()
def purge(
    ids: Ids = None,
    type_: Type = None,
    queue: Queue = None,
    reason: Reason = None,
    failed_after: FailedAfter = None,
    failed_before: FailedBefore = None,
    error: ErrorText = None,
    all_: EveryOne = False,
    limit: AtMost = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: Pages = False,
) -> None:
    """Delete dead letters for good, oldest first, with all that is kept of them; all filters must hold. It cannot be undone.

    On a terminal it shows what would be deleted and asks; elsewhere it does nothing without --yes.
    """
    filters = dead_letter_filters(type_, queue, reason, failed_after, failed_before, error)
    meant = _meant(ids, filters, all_=all_, dry_run=dry_run)
    if not (dry_run or yes) and (as_json or not sys.stdin.isatty()):
        raise typer.BadParameter("there is nobody to ask: --yes deletes for good, --dry-run only looks")
    with connect(retry_seconds=0) as client:
        pages = client.purge_each(meant, limit=limit, dry_run=not yes or dry_run)
        if yes and not dry_run:
            jobs = _deal(pages.json(), "deleted", limit, as_json=as_json)
        else:
            jobs = _preview(client, pages, as_json=as_json)
            if jobs and not dry_run:
                _confirm(len(jobs))
                jobs = _deal(_purged(client, meant, jobs), "deleted", None, as_json=as_json)
    _sum_up(jobs, f"{'would be ' if dry_run else ''}deleted", ids, limit, as_json=as_json)


def _print_table(jobs: Iterable[Job]) -> int:
    from jobyard.cli.rows import DEAD_LETTER_COLUMNS, dead_letter_row
    from jobyard.cli.table import print_table

    return print_table(DEAD_LETTER_COLUMNS, map(dead_letter_row, jobs))


def _meant(
    ids: list[str] | None, filters: DeadLetterFilters, *, all_: bool, dry_run: bool
) -> DeadLettersMeant:
    """To mean every dead letter takes a word of its own: a filter that was forgotten must not."""
    is_narrow = bool(ids) or any(value is not None for value in filters.values())
    if all_ and is_narrow:
        raise typer.BadParameter("goes without IDs and filters", param_hint="--all")
    if not (all_ or is_narrow or dry_run):
        raise typer.BadParameter("give IDs, a filter like --type, or --all for every dead letter")
    return {**filters, "jobs": ids or None}


def _preview(client: Client, pages: Stream[Dealt], *, as_json: bool) -> list[str]:
    """The ids of all that are meant; the oldest of them are shown."""
    jobs: list[str] = []
    for body in pages.json():
        if as_json:
            say_json(body)
        jobs += pages.read(body).jobs
    if not as_json:
        _print_table(_still_there(client, jobs[:PREVIEWED]))
    if not as_json and len(jobs) > PREVIEWED:
        complain(f"these are the oldest {PREVIEWED}")
    return jobs


def _still_there(client: Client, jobs: list[str]) -> Iterator[Job]:
    from jobyard.client import ApiError

    for job in jobs:
        try:
            yield client.get(job)
        except ApiError as refusal:
            if refusal.status != NOT_FOUND:
                raise


def _confirm(count: int) -> None:
    """In words: a purge that was not meant cannot be taken back."""
    words = f"purge {count}"
    complain(
        f"{count:,} will be deleted for good, with payload, attempts, events and log: this cannot be undone"
    )
    typer.echo(f"type {words!r} to go on: ", nl=False, err=True)
    if sys.stdin.readline().strip() != words:
        complain("nothing was deleted")
        raise typer.Exit(Exit.REFUSED)


def _purged(client: Client, meant: DeadLettersMeant, jobs: list[str]) -> Iterator[bytes]:
    """Those that were confirmed and no other: more may have failed since."""
    for at in range(0, len(jobs), MOST_CHOSEN):
        yield from client.purge_each({**meant, "jobs": jobs[at : at + MOST_CHOSEN]}).json()


def _deal(pages: Iterator[bytes], done: str, limit: int | None, *, as_json: bool) -> list[str]:
    """The ids of those it was done to. Who interrupts it hears how far it came."""
    jobs: list[str] = []
    with progress(limit) as shown:
        try:
            for body in pages:
                jobs += msgspec.json.decode(body, type=_Ids).jobs
                if as_json:
                    say_json(body)
                shown.at(len(jobs), f"{len(jobs):,} {done}")
        except BaseException:
            if jobs:
                rest = "" if limit is None else f" and --limit {limit - len(jobs)}"
                shown.note(f"stopped after {len(jobs):,} {done}; go on with the same command{rest}")
            raise
    return jobs


class _Ids(msgspec.Struct):
    jobs: list[str]


def _sum_up(jobs: list[str], what: str, ids: list[str] | None, limit: int | None, *, as_json: bool) -> None:
    """Who names jobs means each of them."""
    if jobs and not as_json:
        say(f"{len(jobs):,} {what}")
    if missed := [] if limit else sorted(set(ids or ()) - set(jobs)):
        complain(f"no dead letter, or none that fits the filters: {', '.join(missed)}")
        raise typer.Exit(Exit.REFUSED)
    if not jobs and not as_json:
        complain(NONE_FITS)
