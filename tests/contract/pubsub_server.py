"""Our emulator of Google Pub/Sub as a real process, which can be killed and started again; or what JOBYARD_TEST_PUBSUB
names, as for the tests of the emulator: `host:port` of another one, or `projects/NAME`, a real project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import httpx

from processes.program import free_port

GIVEN = os.environ.get("JOBYARD_TEST_PUBSUB", "")
DEADLINE = 10.0


class PubsubServer:
    """`host` and `port` are empty for Google itself."""

    def __init__(self, given: str = GIVEN) -> None:
        self.is_ours = not given
        self.is_google = given.startswith("projects/")
        self.project = given.removeprefix("projects/") if self.is_google else "test-project"
        self.host, _, port = ("127.0.0.1", "", str(free_port())) if self.is_ours else given.rpartition(":")
        self.port = 0 if self.is_google else int(port)
        self.http = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """On the same port again, and with nothing of what it knew: it keeps all in memory."""
        if not self.is_ours:
            return
        command = [
            sys.executable, "-m", "jobyard.cli", "pubsub-emulator", "--port", str(self.port), "--http-port", "0",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        said = self._process.stdout.readline()
        assert said == f"export PUBSUB_EMULATOR_HOST={self.host}:{self.port}\n", (
            said + self._process.stderr.read()
        )
        told = "".join(self._process.stderr.readline() for _ in range(3))
        [self.http] = re.findall(r"PUT (\S+)/faults", told)

    def fail(self, **faults: Any) -> None:
        """From now on; with none, no more."""
        httpx.put(f"{self.http}/faults", json=faults, trust_env=False).raise_for_status()

    def kill(self) -> None:
        """At once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=DEADLINE)
