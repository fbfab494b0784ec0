"""A real nats-server with its store in a folder, which can be killed and started again."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("nats-server")
DEADLINE = 10.0


class NatsServer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """On any free port, and on the same one again."""
        command = [
            PROGRAM, "--jetstream", "--addr", "127.0.0.1", "--port", str(self.port), "--ports_file_dir", self._folder,
            "--store_dir", self._folder, "--log", self._folder / "log",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ports = self._folder / f"nats-server_{self._process.pid}.ports"
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self._process.poll() is None:
            # The file may be there before its text is.
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(ports.read_text(encoding="utf-8"))
                self.port = int(told["nats"][0].rpartition(":")[2])
                return
            time.sleep(0.01)
        raise AssertionError((self._folder / "log").read_text(encoding="utf-8"))

    def kill(self) -> None:
        """At once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
