"""What Jobyard tells about itself, each name once. It listens and never decides."""

from jobyard.telemetry.logs import LogEvent, configure_logging, error, info, warning

__all__ = ["LogEvent", "configure_logging", "error", "info", "warning"]
