"""An emulator of Google Pub/Sub, for tests and for work without a network.

The official clients find it by PUBSUB_EMULATOR_HOST. What it needs comes with the extra `gcp`, and is imported when it
starts.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from typing import TYPE_CHECKING

from jobyard.process import OK, StartError, run_process

if TYPE_CHECKING:
    from jobyard.pubsub_emulator.emulator import Emulator
    from jobyard.pubsub_emulator.faults import Plan


def serve(host: str, port: int, http_port: int, plan: Plan) -> int:
    """Run until SIGINT or SIGTERM; the exit code."""
    return run_process(functools.partial(_serve, host, port, http_port, plan))


async def _serve(host: str, port: int, http_port: int, plan: Plan, stop: asyncio.Event) -> int:
    # gRPC reads it when it is loaded. It would say a second time, in its own words, what we say in a sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from jobyard.pubsub_emulator.emulator import emulator
    except ModuleNotFoundError as missing:
        raise StartError(
            f"the emulator of Pub/Sub needs {missing.name}, which is not installed; "
            'run `pip install "jobyard[gcp]"` (in a checkout `make install`)'
        ) from missing
    async with emulator(host, port, http_port, plan) as running:
        _tell_how_to_use(running)
        await stop.wait()
    return OK


def _tell_how_to_use(running: Emulator) -> None:
    sys.stderr.write(
        f"Pub/Sub is emulated at {running.address}, in memory; Ctrl-C ends it.\n"
        f"Faults: GET and PUT {running.http}/faults. Keys of push tokens: {running.http}/oauth2/v3/certs.\n"
        "For the official clients, in the shell of your program:\n"
    )
    sys.stdout.write(f"export PUBSUB_EMULATOR_HOST={running.address}\n")
    sys.stdout.flush()
