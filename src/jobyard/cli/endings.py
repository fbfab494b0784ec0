"""How a command ends: the exit codes, and which failure means which."""

from __future__ import annotations

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


EPILOG = "Exit codes: " + "; ".join(
    (
        "0 done",
        "1 refused or failed (with --wait also: the job failed, or was not finished in time)",
        "2 wrong usage or settings",
        "3 no such job",
        "4 no Jobyard server at JOBYARD_URL",
        "130 interrupted by Ctrl-C.",
    )
)


class Commands(TyperGroup):
    """Tells an expected failure in one sentence on stderr; only a defect of ours shows a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for fault in error.faults:
                complain(fault)
            raise typer.Exit(Exit.USAGE) from None
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            complain(str(error))
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
