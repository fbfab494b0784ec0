"""API, worker and maintainer in one process, on the database of DATABASE_URL: what stands in for `make run` on all pages
but the README, since it starts in a quarter of the time. It greets with the words of `make run`."""

from __future__ import annotations

import asyncio
import os
import sys

from jobyard import main as root
from jobyard.config import Settings
from jobyard.dev import Dev
from jobyard.process import run_process


async def everything(stop: asyncio.Event) -> int:
    settings = Settings.read(os.environ)
    Dev(settings)._greet(None)
    roles = (root._serve, root._work, root._maintain)
    return max(await asyncio.gather(*(role(settings, stop) for role in roles)))


if __name__ == "__main__":
    sys.exit(run_process(everything))
