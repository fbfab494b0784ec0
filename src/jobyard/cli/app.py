"""All commands, and the way in."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from jobyard.cli import dead_letters, emulation, history, overview, processes, verbs
from jobyard.cli.create import create
from jobyard.cli.endings import EPILOG, Commands
from jobyard.cli.get import get
from jobyard.cli.list_jobs import list_
from jobyard.cli.watch import watch

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("jobyard"))
        raise typer.Exit


@app.callback(epilog=EPILOG)
def jobyard(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A job backend over plain HTTP. The commands about jobs and the yard talk to the server at JOBYARD_URL (http://localhost:3000) with the key JOBYARD_KEY.

    Why did a job fail? `jobyard list --status failed`, then `jobyard attempts ID`.
    """


PANELS = {
    "Jobs": (
        create,
        get,
        list_,
        watch,
        history.attempts,
        history.events,
        history.log,
        verbs.cancel,
        verbs.retry,
    ),
    "The yard": (overview.stats, overview.queues, overview.workers),
    "Processes and database": (
        processes.dev,
        processes.api,
        processes.worker,
        processes.maintain,
        processes.migrate,
        processes.doctor,
        processes.verify,
        processes.bench,
    ),
    "Without a cloud": (emulation.pubsub_emulator,),
}

for panel, commands in PANELS.items():
    for command in commands:
        app.command(command.__name__.strip("_").replace("_", "-"), rich_help_panel=panel)(command)
app.add_typer(dead_letters.group, name="dead-letters", rich_help_panel="Jobs")


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    """The command `jobyard`."""
    if os.getpid() == 1:
        # As the first process of a container it has no default action for signals: one that comes while the rest is
        # still imported would be lost, and the container killed at the end of its patience.
        signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no crash where the terminal is not UTF-8
    app(prog_name="jobyard")
