"""What the start of a child process costs: each of its imports is time that a job waits, and memory."""

import subprocess
import sys


def test_a_child_loads_nothing_that_only_other_processes_need() -> None:
    theirs = [
        "aiosmtplib",
        "httpx",
        "starlette",
        "jobyard.main",
        "jobyard.store.upkeep",
        "jobyard.worker.pool",
    ]
    look = f"import sys, jobyard.child; print([name for name in {theirs} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
