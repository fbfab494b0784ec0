"""How a command ends: the exit codes, and which failure means which."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from jobyard.cli.terminal import complain
from jobyard.config import SettingsError


class Exit(IntEnum):
    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.REFUSED: "refused or failed (with `--wait` and `watch ID` also: the job failed, or was not finished in "
    "time), or the reader of the output went away",
    Exit.USAGE: "wrong usage or settings",
    Exit.NOT_FOUND: "no such job",
    Exit.UNREACHABLE: "no Jobyard server at JOBYARD_URL",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}

OF_THE_PARSER = "Value error, "
"""What the library that reads options puts before its sentence about a wrong choice."""

EPILOG = f"Exit codes: {'; '.join(f'{code:d} {meaning}' for code, meaning in MEANINGS.items())}."


class Commands(TyperGroup):
    """Tells an expected failure in one sentence on stderr; only a defect of ours shows a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for fault in error.faults:
                complain(fault)
            raise typer.Exit(Exit.USAGE) from None
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(OF_THE_PARSER)
            raise
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            complain("; ".join(filter(None, (str(error), _advice(error)))))
            raise typer.Exit(code) from None


def _exit_code(error: Exception) -> Exit | None:
    """None for what is no failure of the client."""
    # Imported here: a command that talks to no server need not wait for an HTTP library.
    from jobyard.client import ApiError, ClientError, NotJobyard, ServerUnreachable

    match error:
        case ServerUnreachable() | NotJobyard():
            return Exit.UNREACHABLE
        case ApiError(status=404):
            return Exit.NOT_FOUND
        case ClientError():
            return Exit.REFUSED
        case _:
            return None


def _advice(error: Exception) -> str | None:
    """What to do next, where the failure does not say it itself."""
    match getattr(error, "status", None):
        case 401 if os.environ.get("JOBYARD_KEY"):
            return "the server has another key than JOBYARD_KEY"
        case 401:
            return "set JOBYARD_KEY to the key of the server"
        case 404:
            return "`jobyard list` shows the jobs there are"
        case _:
            return None
