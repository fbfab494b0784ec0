"""The log as a process writes it: JSON lines, read back."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import structlog

from jobyard import telemetry
from jobyard.telemetry import logs


class Log(io.StringIO):
    @property
    def facts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().split("\n") if line]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [facts for facts in self.facts if facts["event"] == event]


@contextmanager
def logged(
    style: str = "json", level: str = "info", secrets: Iterable[str] = (), *, python: bool = False
) -> Generator[Log]:
    """What is logged meanwhile; with `python`, what Python's `logging` is given as well."""
    ours, detailed = logs._log, logs._detailed
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.TALKATIVE}
    log = Log()
    try:
        telemetry.configure_logging(style, level, secrets, log)
        if python:
            root.handlers.clear()
            root.setLevel(logging.WARNING)
            telemetry.hear_python_logging(level)
        yield log
    finally:
        logs._log, logs._detailed = ours, detailed
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(root_level)
        logging.captureWarnings(False)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
