"""`jobyard dev` as a user starts it: one process that starts the others, on a home and a port of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from processes.program import free_port

JOBYARD = (sys.executable, "-m", "jobyard.cli")


def eventually(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until it holds; fail naming what did not come about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass(slots=True)
class Running:
    url: str
    home: Path
    process: subprocess.Popen[str]
    environment: dict[str, str]
    output: Path

    def cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*JOBYARD, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def pid_of(self, role: str) -> int | None:
        """The process of this role among the children of the supervisor."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == self.process.pid and role.encode() in words:
                    return int(entry.name)
        return None

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def running_dev(**settings: str) -> Generator[Running]:
    with new_home() as home:
        running = start([*JOBYARD, "dev"], home, free_port(), **settings)
        try:
            eventually(lambda: is_ready(running), "the API is ready", 60)
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def new_home() -> Generator[Path]:
    # As root PostgreSQL runs as `nobody`, who cannot reach below pytest's own folders.
    home = Path(tempfile.mkdtemp(prefix="jobyard-e2e-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def start(
    command: Sequence[str], home: Path, port: int, folder: Path | None = None, **settings: str
) -> Running:
    """A process that serves the API at this port, e.g. `jobyard dev`, in this folder; not yet ready."""
    url = f"http://localhost:{port}"
    places = {"JOBYARD_HOME": str(home), "PORT": str(port), "JOBYARD_URL": url}
    environment = without_settings(os.environ) | places | settings
    output = home / "output"
    with output.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=out, text=True, start_new_session=True
        )
    return Running(url, home, process, environment, output)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("JOBYARD_", "DATABASE_")) and name not in ("HOST", "PORT")
    }


def is_ready(running: Running) -> bool:
    assert running.process.poll() is None, running.output.read_text()
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{running.url}/readyz", trust_env=False).is_success
    return False
