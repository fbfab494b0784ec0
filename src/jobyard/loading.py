"""The handlers of a process: those of the user's module, and the built-in ones for the types he has none for."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from jobyard.process import StartError
from jobyard.worker.handlers import HandlerError, Handlers, registered

if TYPE_CHECKING:
    from jobyard.config import Settings
    from jobyard.handlers.email import Mailer


def load_handlers(settings: Settings, mailer: Mailer) -> Handlers:
    """All of them. Raises StartError."""
    return load_own(settings).merged(built_in(settings, mailer))


def load_own(settings: Settings) -> Handlers:
    """The user's. Raises StartError."""
    if settings.app:
        try:
            import_handlers(settings.app)
        except StartError as fault:
            raise StartError(f"JOBYARD_APP: {fault}") from fault
    return registered


def built_in(settings: Settings, mailer: Mailer) -> Handlers:
    """Ours."""
    from jobyard.handlers.http import (
        Caller,  # half of what a child would import, and most run the user's alone
    )
    from jobyard.outgoing import Client

    ours = Handlers()
    ours.add("email", mailer.send)
    ours.add("http", Caller(Client(settings.outbound_allow), settings.max_payload_bytes).call)
    return ours


def mailer_of(settings: Settings) -> Mailer:
    """What sends the mails of a process with these settings. Raises StartError."""
    from jobyard.handlers.email import Mailer  # as above

    try:
        return Mailer(settings.smtp_url, settings.smtp_from, settings.home / "outbox")
    except ValueError as fault:
        raise StartError(f"JOBYARD_SMTP_URL or JOBYARD_SMTP_FROM cannot be used: {fault}") from fault


def import_handlers(module: str) -> None:
    """Import the user's own module. Raises StartError, which does not say where the module was named."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(module)
    except HandlerError as fault:
        raise StartError(str(fault)) from fault
    except Exception as fault:  # whatever the user's code raised
        if (
            isinstance(fault, ModuleNotFoundError)
            and fault.name
            and f"{module}.".startswith(f"{fault.name}.")
        ):
            raise StartError(_no_module(module, fault.name)) from fault
        raise StartError(
            f"importing {module!r} failed: {type(fault).__name__}: {fault}{_where(fault)}"
        ) from fault


def _no_module(asked: str, missing: str) -> str:
    advice = f"; give its name without the end: {asked[:-3]!r}" if asked.endswith(".py") else ""
    return f"there is no module {missing!r}{advice or f'; give one that can be imported from {Path.cwd()}'}"


def _where(fault: Exception) -> str:
    """The line of the user's code that raised it; a syntax error says its own."""
    lines = [it for it in traceback.extract_tb(fault.__traceback__) if not it.filename.startswith("<frozen ")]
    return "" if isinstance(fault, SyntaxError) else f" ({lines[-1].filename}:{lines[-1].lineno})"
