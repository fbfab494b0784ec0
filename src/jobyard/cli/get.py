"""`jobyard get`: one job, for people or for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jobyard.cli.connection import connect
from jobyard.cli.endings import Exit
from jobyard.cli.options import JobId, Json, checking_id
from jobyard.cli.terminal import complain, say_json
from jobyard.cli.waiting import warn_if_nobody_runs

if TYPE_CHECKING:
    from jobyard.client import Client

Wait = Annotated[
    float | None,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for the job to complete or fail."),
]


def get(job_id: JobId, wait: Wait = None, as_json: Json = False) -> None:
    """Show a job."""
    with connect(retry_seconds=0) as client, checking_id():
        body = client.get_json(job_id, wait)
        show(client, body, as_json=as_json)
    if wait is not None:
        raise typer.Exit(judge(body, wait))


def show(client: Client, body: bytes, *, as_json: bool) -> None:
    if as_json:
        say_json(body)
        return
    from jobyard.cli.picture import draw

    draw(body)
    job = msgspec.json.decode(body, type=_Shown)
    if job.error is not None:
        point_to_attempts(job.id)
    warn_if_nobody_runs(client, job.status, job.type)


def point_to_attempts(job_id: str) -> None:
    """For whoever sees a job with an error."""
    complain(f"every try and its error: jobyard attempts {job_id}")


class _Shown(msgspec.Struct):
    id: str
    type: str
    status: str
    error: Any = None


def judge(body: bytes, waited: float) -> Exit:
    """Who waits asks how it ended."""
    match msgspec.json.decode(body, type=_Shown).status:
        case "completed":
            return Exit.OK
        case "failed":
            return Exit.REFUSED
        case status:
            complain(f"still {status} after {waited:g} s")
            return Exit.REFUSED
