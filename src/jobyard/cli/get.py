"""`jobyard get`: one job, for people or for programs."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from jobyard.cli.connection import connect
from jobyard.cli.endings import Exit
from jobyard.cli.terminal import complain, say_json

Wait = Annotated[
    float | None,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for the job to complete or fail."),
]
Json = Annotated[bool, typer.Option("--json", help="The job as JSON, on one line of stdout.")]


def get(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `create` gave.")],
    wait: Wait = None,
    as_json: Json = False,
) -> None:
    """Show a job."""
    with connect(retry_seconds=0) as client:
        try:
            body = client.get_json(job_id, wait)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="ID") from None
    show(body, as_json=as_json)
    if wait is not None:
        raise typer.Exit(judge(body, wait))


def show(body: bytes, *, as_json: bool) -> None:
    if as_json:
        say_json(body)
        return
    from jobyard.cli.picture import draw

    draw(body)


class _Ended(msgspec.Struct):
    status: str


def judge(body: bytes, waited: float) -> Exit:
    """Who waits asks how it ended."""
    match msgspec.json.decode(body, type=_Ended).status:
        case "completed":
            return Exit.OK
        case "failed":
            return Exit.REFUSED
        case status:
            complain(f"still {status} after {waited:g} s")
            return Exit.REFUSED
