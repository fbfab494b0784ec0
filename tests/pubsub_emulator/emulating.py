"""The emulator as a process, as its users start it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Running:
    address: str
    http: str
    process: subprocess.Popen[str]


@contextmanager
def emulator_process(*options: str) -> Generator[Running]:
    """Ends it in the end, which has to be a clean one."""
    command = [
        sys.executable,
        "-m",
        "jobyard.cli",
        "pubsub-emulator",
        "--port",
        "0",
        "--http-port",
        "0",
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said = process.stdout.readline()
        found = re.fullmatch(r"export PUBSUB_EMULATOR_HOST=(127\.0\.0\.1:\d+)\n", said)
        assert found, said + process.stderr.read()
        told = "".join(process.stderr.readline() for _ in range(3))
        [http] = re.findall(r"PUT (\S+)/faults", told)
        yield Running(found[1], http, process)
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)
        assert (code, process.stderr.read()) == (0, "")
    finally:
        process.kill()
        process.communicate()
