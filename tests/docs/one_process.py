"""API, worker and maintainer in one process, on the database of DATABASE_URL: quick to start, for a page that starts
nothing itself."""

from __future__ import annotations

import asyncio
import os
import sys

from jobyard import main as root
from jobyard.config import Settings
from jobyard.process import run_process


async def everything(stop: asyncio.Event) -> int:
    settings = Settings.read(os.environ)
    roles = (root._serve, root._work, root._maintain)
    return max(await asyncio.gather(*(role(settings, stop) for role in roles)))


if __name__ == "__main__":
    sys.exit(run_process(everything))
