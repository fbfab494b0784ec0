"""Options that several commands share, and their way to the filters of the client."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobyard.cli.completion import queue_names, type_names

if TYPE_CHECKING:
    from jobyard.client import DeadLetterFilters, JobFilters

Status = Annotated[
    Literal["pending", "processing", "completed", "failed"] | None,
    typer.Option("--status", metavar="STATUS", help="Only pending, processing, completed or failed jobs."),
]
Type = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="Only jobs of this type.", autocompletion=type_names),
]
Queue = Annotated[
    str | None,
    typer.Option("--queue", metavar="QUEUE", help="Only jobs of this queue.", autocompletion=queue_names),
]
Tag = Annotated[str | None, typer.Option("--tag", metavar="TAG", help="Only jobs with this tag.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="K=V", help="Only jobs with this pair; may be given several times."),
]
CreatedAfter = Annotated[
    str | None,
    typer.Option(
        "--created-after",
        metavar="TIME",
        help="Only jobs created then or later: 2030-01-01T08:00:00Z, or how long ago: 90s, 15m, 2h, 3d.",
    ),
]
CreatedBefore = Annotated[
    str | None,
    typer.Option("--created-before", metavar="TIME", help="Only jobs created earlier; as --created-after."),
]
Reason = Annotated[
    Literal["exhausted", "non_retryable", "timeout", "crashed"] | None,
    typer.Option(
        "--reason",
        metavar="REASON",
        help="Only those failed as exhausted, non_retryable, timeout or crashed.",
    ),
]
FailedAfter = Annotated[
    str | None,
    typer.Option(
        "--failed-after",
        metavar="TIME",
        help="Only those failed then or later: 2030-01-01T08:00:00Z, or how long ago: 90s, 15m, 2h, 3d.",
    ),
]
FailedBefore = Annotated[
    str | None,
    typer.Option("--failed-before", metavar="TIME", help="Only those failed earlier; as --failed-after."),
]
ErrorText = Annotated[
    str | None,
    typer.Option(
        "--error",
        metavar="TEXT",
        help="Only those whose error has this text in its type, message or traceback.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The id that `create` gave.")]
JsonLines = Annotated[bool, typer.Option("--json", help="JSON on stdout, one item a line.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, on one line of stdout.")]

AGO = re.compile(r"(\d{1,9})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@contextlib.contextmanager
def checking_id() -> Generator[None]:
    """Around the call that the id is given to: what the client cannot even ask for is wrong usage."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ID") from None


def filters(
    status: str | None,
    type_: str | None,
    queue: str | None,
    tag: str | None,
    metadata: list[str] | None,
    created_after: str | None,
    created_before: str | None,
) -> JobFilters:
    return {
        "status": status,
        "type": type_,
        "queue": queue,
        "tag": tag,
        "metadata": pairs(metadata),
        "created_after": _instant(created_after, "--created-after"),
        "created_before": _instant(created_before, "--created-before"),
    }


def dead_letter_filters(
    type_: str | None,
    queue: str | None,
    reason: str | None,
    failed_after: str | None,
    failed_before: str | None,
    error: str | None,
) -> DeadLetterFilters:
    return {
        "type": type_,
        "queue": queue,
        "reason": reason,
        "failed_after": _instant(failed_after, "--failed-after"),
        "failed_before": _instant(failed_before, "--failed-before"),
        "error": error,
    }


def pairs(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    for pair in given:
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--metadata")
    return dict(pair.split("=", 1) for pair in given)


def _instant(given: str | None, option: str) -> datetime | None:
    if given is None:
        return None
    try:
        if ago := AGO.fullmatch(given):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(given)
        if time.tzinfo is not None:
            return time
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(
        f"{given!r} is neither a time with its zone, e.g. 2030-01-01T08:00:00Z, nor how long ago, e.g. 90s, 15m, 2h, 3d",
        param_hint=option,
    )
