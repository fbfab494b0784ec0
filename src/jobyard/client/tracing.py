"""The trace that a call is part of, where the program that makes it uses OpenTelemetry."""

from __future__ import annotations

import sys


def active_traceparent() -> str | None:
    """The active span as W3C trace context. None without one, or where nobody has loaded OpenTelemetry: it is not loaded
    for this."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    here = trace.get_current_span().get_span_context()
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}" if here.is_valid else None
