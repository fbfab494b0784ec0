"""Every log event by name, and how logs look. Code says what happened; this module says how it sounds."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Any

import structlog


class LogEvent(StrEnum):
    """The names of all log events; nothing else is ever logged by Jobyard itself."""

    API_STARTED = "api.started"
    API_STOPPED = "api.stopped"
    REQUEST_FAILED = "request.failed"
    WORKER_STARTED = "worker.started"
    WORKER_DRAINING = "worker.draining"
    WORKER_STOPPED = "worker.stopped"
    WORKER_EXPIRED = "worker.expired"
    WORKER_STUCK = "worker.stuck"
    LEASE_LOST = "lease.lost"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPTS_RELEASED = "attempts.released"
    SETTLE_REFUSED = "settle.refused"
    CONNECTIONS = "connections"
    LISTENER_LOST = "listener.lost"
    LISTENER_BACK = "listener.back"
    LOOP_FAILED = "loop.failed"
    LOOP_RECOVERED = "loop.recovered"
    MAINTAIN_STARTED = "maintain.started"
    MAINTAIN_STOPPED = "maintain.stopped"
    SWEPT = "swept"
    DELETED = "deleted"


def configure_logging(*, readable: bool | None = None) -> None:
    """One JSON line a fact on standard error; a readable console where a person watches."""
    if readable is None:
        readable = sys.stderr.isatty()
    shape: Any = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


_log: Any = structlog.get_logger()


def info(event: LogEvent, **facts: Any) -> None:
    _log.info(event.value, **facts)


def warning(event: LogEvent, **facts: Any) -> None:
    _log.warning(event.value, **facts)


def error(event: LogEvent, **facts: Any) -> None:
    _log.error(event.value, **facts)
