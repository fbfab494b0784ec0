"""`python -m jobyard.cli ...` as a process of its own, with an environment that holds only what a test sets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "jobyard.cli")
HANDLERS_FOLDER = Path(__file__).parents[1] / "worker"


def environment(**settings: str) -> dict[str, str]:
    kept = {
        n: v
        for n, v in os.environ.items()
        if not n.startswith(("JOBYARD_", "DATABASE_", "OTEL_")) and n not in ("PORT", "HOST")
    }
    return kept | settings


def run(*arguments: str, seconds: float = 30, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
    )


@dataclass(slots=True)
class Program:
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, seconds: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + seconds
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still running after {seconds} s:\n{self.said}"
            await asyncio.sleep(0.01)
        return code

    async def end_after(self, number: signal.Signals) -> tuple[int, float]:
        """Its exit code and how many seconds it took from the signal to its end."""
        began = time.monotonic()
        self.tell(number)
        return await self.end(), time.monotonic() - began


@contextlib.contextmanager
def program(folder: Path, *arguments: str, **settings: str) -> Generator[Program]:
    """Runs while the context is open; killed at its end if it has not ended by itself."""
    output = folder / f"{'-'.join(arguments)}.{time.monotonic_ns()}.output"
    with running([*COMMAND, *arguments], environment(**settings), output, HANDLERS_FOLDER) as started:
        yield started


@contextlib.contextmanager
def running(
    command: list[str], environment: dict[str, str], output: Path, folder: Path | None = None
) -> Generator[Program]:
    """Any command, in the same way."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield Program(process, output)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Below the ports that the system gives out by itself: nobody is given this one before it is used."""
    while True:
        port = random.SystemRandom().randint(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
