"""The handlers that the scenarios run: one that does nothing, and one that tells when it started."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from jobyard.worker.handlers import handler

NOOP, STAMP = "bench.noop", "bench.stamp"
STAMP_SOCKET = "JOBYARD_BENCH_SOCKET"


@handler(NOOP)
async def do_nothing(payload: Any) -> None:
    return None


_told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@handler(STAMP)
async def tell_start(payload: Any) -> None:
    """Send the time of the handler's first line to the scenario, on the clock that all processes share."""
    _told.sendto(str(time.monotonic_ns()).encode(), os.environ[STAMP_SOCKET])
