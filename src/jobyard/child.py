"""`python -m jobyard.child`: what a worker starts for jobs that must not share its process. Nothing for people to call.

A root of its own beside `jobyard.main`, since a job waits for its start: it imports nothing that only a worker needs.
"""

from __future__ import annotations

import os
import sys
from functools import cache

from jobyard import telemetry
from jobyard.config import Settings
from jobyard.loading import built_in, load_own, mailer_of
from jobyard.process import FAILED, OK, StartError
from jobyard.worker.child import Child, prepare
from jobyard.worker.handlers import Handler, Handlers
from jobyard.worker.link import HandlerDatabase
from jobyard.worker.messages import Unfit


def child(settings: Settings) -> int:
    """Run attempts for the worker that has started this process, one at a time, until it closes the line."""
    line = prepare()
    telemetry.configure_logging(settings.log, settings.log_level, settings.secrets)
    try:
        own = load_own(settings)
    except StartError as fault:
        line.send(Unfit(str(fault)))
        return FAILED
    telemetry.hear_python_logging(settings.log_level)

    @cache
    def ours() -> Handlers:
        return built_in(settings, mailer_of(settings))

    def find(type: str) -> Handler:
        return (own if type in own else ours()).get(type)

    url = settings.direct_url
    pooler = settings.pooler is not None and settings.database_direct_url is None
    database = None if url is None else HandlerDatabase(url, 1, settings.max_payload_bytes, pooler=pooler)
    Child(line, find, settings.max_payload_bytes, database).run()
    return OK


if __name__ == "__main__":
    sys.exit(child(Settings.read(os.environ)))
