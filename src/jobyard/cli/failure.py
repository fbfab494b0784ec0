"""The error of a job as text: `{type, message, traceback?}`, or whatever else a handler left there."""

from __future__ import annotations

from typing import Any

import msgspec

from jobyard.printable import escaped

NO_TRACEBACK = "no traceback: no exception of the handler ended this attempt"


def headline(error: Any) -> str:
    """One line."""
    lines = _said(error).strip().splitlines()
    return escaped(lines[0]) if lines else ""


def in_full(error: Any) -> str:
    """With the traceback, which says the message once more."""
    match error:
        case {"traceback": str(trace)}:
            return escaped(f"{_said(error)}\n\n{trace}".rstrip(), keep="\n")
        case _:
            return escaped(_said(error), keep="\n")


def with_traceback(error: Any) -> str:
    """In full, for who asked for the traceback: where there is none it says so."""
    match error:
        case {"type": _, "message": _} if not error.get("traceback"):
            return f"{in_full(error)}\n{NO_TRACEBACK}"
        case _:
            return in_full(error)


def _said(error: Any) -> str:
    match error:
        case None:
            return ""
        case {"type": kind, "message": message}:
            return f"{kind}: {message}"
        case _:
            return msgspec.json.format(msgspec.json.encode(error), indent=2).decode()
