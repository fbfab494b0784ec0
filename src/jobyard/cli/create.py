"""`jobyard create`: one job from arguments, or a file of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jobyard.cli.completion import queue_names, type_names
from jobyard.cli.connection import connect
from jobyard.cli.get import Wait, judge, show
from jobyard.cli.options import pairs
from jobyard.cli.terminal import complain, say, say_json

if TYPE_CHECKING:
    from jobyard.client import Client, ClientError, JobOptions

STDIN = "-"

Json = Annotated[
    bool, typer.Option("--json", help="JSON lines on stdout; with --file one a job, then a summary.")
]
RunAt = Annotated[
    str | None, typer.Option("--run-at", metavar="TIME", help="Not before, e.g. 2030-01-01T08:00:00Z.")
]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="K=V", help="May be given several times.")
]
RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        help="With --file: names this run; a file sent again under the same name (24 h) makes no doubles.",
    ),
]


def create(
    type_: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="What to do, e.g. email.", autocompletion=type_names)
    ] = None,
    payload: Annotated[
        str | None,
        typer.Argument(metavar="PAYLOAD", help="JSON; - reads stdin, @FILE reads a file. {} if left out."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Create every job of a file of JSON lines (-: stdin)."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", help="Where it waits.", autocompletion=queue_names)
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", help="0 to 9, larger runs sooner (5).")
    ] = None,
    run_at: RunAt = None,
    delay: Annotated[
        float | None, typer.Option("--delay", metavar="SECONDS", help="Not before this long.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest run of one attempt (3600).")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option("--max-attempts", help="1 to 100 (5).")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="May be given several times.")] = None,
    metadata: Metadata = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", metavar="KEY", help="The same key again (24 h) makes no second job."
        ),
    ] = None,
    wait: Wait = None,
    run_id: RunId = None,
    retry_for: Annotated[
        float,
        typer.Option(
            "--retry-for", metavar="SECONDS", min=0, help="Keep trying so long while the server is away."
        ),
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Create a job, or with --file many.

    A line of the file is a whole job: {"type": "email", "payload": {"to": "user@example.com"}, "priority": 9}. A line that is refused does not stop the others.

    While the server is away it is asked again only where that makes no doubles: with --file, and with --idempotency-key.
    """
    options: JobOptions = {
        "queue": queue,
        "priority": priority,
        "run_at": run_at,
        "delay_seconds": delay,
        "timeout_seconds": timeout,
        "max_attempts": max_attempts,
        "tags": tag,
        "metadata": pairs(metadata),
    }
    if file is None:
        _refuse("only goes with --file", {"--run-id": run_id})
        if type_ is None:
            raise typer.BadParameter("a TYPE is needed, or --file", param_hint="TYPE")
        body = _payload(payload)
        with connect(retry_seconds=retry_for, on_retry=_tell_retry) as client:
            _create_one(client, type_, body, idempotency_key, options, wait, as_json=as_json)
    else:
        alone = {"TYPE": type_, "--idempotency-key": idempotency_key, "--wait": wait, **options}
        _refuse("does not go with --file; the lines say it", alone)
        from jobyard.cli.bulk import create_file

        raise typer.Exit(create_file(file, run_id, retry_for, as_json=as_json))


def _create_one(
    client: Client,
    type_: str,
    payload: msgspec.Raw,
    idempotency_key: str | None,
    options: JobOptions,
    wait: float | None,
    *,
    as_json: bool,
) -> None:
    try:
        created = client.create(type_, payload, idempotency_key=idempotency_key, **options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if wait is None:
        _tell_created(created.id, created.status, as_json=as_json)
        return
    body = client.get_json(created.id, wait)
    show(client, body, as_json=as_json)
    raise typer.Exit(judge(body, wait))


def _tell_created(job_id: str, status: str, *, as_json: bool) -> None:
    if as_json:
        say_json(msgspec.json.encode({"id": job_id, "status": status}))
    else:
        say(f"{job_id} {status}")


def _tell_retry(failure: ClientError, pause: float) -> None:
    complain(f"{failure}; trying again in {pause:.1f} s")


def _refuse(why: str, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value is not None:
            flag = name if name.startswith("-") or name.isupper() else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(why, param_hint=flag)


def _payload(given: str | None) -> msgspec.Raw:
    """The payload as it was written, once it is known to be JSON: the server keeps its bytes."""
    text = _payload_text(given).strip()
    try:
        text.decode("utf-8")
        msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="PAYLOAD") from None
    return msgspec.Raw(text)


def _payload_text(given: str | None) -> bytes:
    if given is None:
        return b"{}"
    if given == STDIN:
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        return _read_file(Path(given[1:]))
    return os.fsencode(given)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="PAYLOAD") from None
