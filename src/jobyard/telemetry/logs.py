"""How log events sound: one JSON line a fact, or a readable console, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Protocol, TextIO
from uuid import UUID

import structlog

from jobyard.telemetry.events import LogEvent
from jobyard.telemetry.lines import Clean, Console, Facts, as_json

TALKATIVE = ("aiosmtplib", "asyncio", "httpcore", "httpx", "uvicorn")
"""Libraries that we use and that tell of every request, with its address: heard from warnings upwards."""


class Attempt(Protocol):
    """What log lines tell of the attempt they come from."""

    @property
    def job(self) -> UUID: ...
    @property
    def attempt(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def trace(self) -> str | None: ...


_attempt: ContextVar[Attempt | None] = ContextVar("jobyard_attempt", default=None)
_log: Any = structlog.get_logger()
_detailed = False


def configure_logging(
    style: str = "auto", level: str = "info", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """`style`: json, console, or auto, which is console on a terminal. `secrets` are hidden wherever they stand."""
    global _log, _detailed
    stream = stream or sys.stderr
    terminal = stream is not None and stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_attempt,
            structlog.processors.format_exc_info,
            Clean(secrets),
            Console(coloured=terminal) if style == "console" or (style == "auto" and terminal) else as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Bound now: a user who configures structlog for himself changes how his own lines look, and not ours.
    _log = structlog.get_logger().bind()
    _detailed = number <= logging.DEBUG


def hear_python_logging(level: str = "info") -> None:
    """What handlers and libraries log with Python's `logging` comes out as ours does. To be called after the user's
    own modules are there: whoever has configured `logging` himself is left alone."""
    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(_ToOurs())
    if root.level == logging.WARNING:  # as Python sets it; anything else is the user's own choice
        root.setLevel(level.upper())
    for name in TALKATIVE:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


class _ToOurs(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            tell = getattr(_log, record.levelname.lower(), _log.info)
            tell(
                LogEvent.APP_LOG.value,
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # as the handlers of `logging` do: a line that cannot be told ends nobody
            self.handleError(record)


about = _attempt.set
"""From now on, in this context, every line says which attempt it comes from."""


def _with_attempt(logger: Any, method: str, facts: Facts) -> Facts:
    attempt = _attempt.get()
    if attempt is None:
        return facts
    return {**facts_of(attempt), **facts}


def facts_of(attempt: Attempt) -> dict[str, Any]:
    """The attempt as the fields of a log event."""
    facts: dict[str, Any] = {
        "job": str(attempt.job),
        "attempt": attempt.attempt,
        "type": attempt.type,
        "queue": attempt.queue,
    }
    return facts | trace_facts(attempt.trace)


def trace_facts(traceparent: str | None) -> dict[str, str]:
    """The trace id of a W3C traceparent as a field; none where there is none."""
    return {"trace_id": traceparent.split("-")[1]} if traceparent else {}


def detailed() -> bool:
    """Whether debug events are told. To be asked where saying what they are would cost something."""
    return _detailed


def debug(event: LogEvent, **facts: Any) -> None:
    _log.debug(event.value, **facts)


def info(event: LogEvent, **facts: Any) -> None:
    _log.info(event.value, **facts)


def warning(event: LogEvent, **facts: Any) -> None:
    _log.warning(event.value, **facts)


def error(event: LogEvent, **facts: Any) -> None:
    _log.error(event.value, **facts)
