"""Tells why a pending job will go on waiting, where nobody could run it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jobyard.cli.terminal import complain

if TYPE_CHECKING:
    from jobyard.client import Client


def warn_if_nobody_runs(client: Client, status: str, type_: str) -> None:
    """For whoever looks at a job that waits. What they asked is answered already, so no failure is told here."""
    from jobyard.client import ClientError

    if status != "pending":
        return
    with contextlib.suppress(ClientError):
        if not any(worker.alive and type_ in worker.types for worker in client.workers()):
            complain(f"no worker runs type {type_!r}: `jobyard workers` shows who is there and what they run")
