"""What Jobyard tells about itself, each name once. It listens and never decides."""

from jobyard.telemetry import metrics
from jobyard.telemetry.events import LogEvent
from jobyard.telemetry.logs import (
    about,
    configure_logging,
    debug,
    detailed,
    error,
    facts_of,
    hear_python_logging,
    info,
    trace_facts,
    warning,
)

__all__ = [
    "LogEvent",
    "about",
    "configure_logging",
    "debug",
    "detailed",
    "error",
    "facts_of",
    "hear_python_logging",
    "info",
    "metrics",
    "trace_facts",
    "warning",
]
