from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from deploy.box import Box, build


@pytest.fixture(scope="session")
def box(run_folder: Path, server: object) -> Box:
    """Built once a run. `server` keeps the folder of the run until the last process of it has left."""
    folder = run_folder / "box"
    with (run_folder / "box.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return Box(folder)
        making = run_folder / "box-making"
        making.mkdir(mode=0o755)
        build(making)
        return Box(making.rename(folder))
