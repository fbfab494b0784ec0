"""A command on a terminal of a fixed size, and what it has written there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator

JOBYARD = (sys.executable, "-m", "jobyard.cli")
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`written` is all of it, with the sequences that move and colour; `said` is it without them."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process = process
        self._ours = ours
        self._bytes = b""

    @property
    def written(self) -> str:
        return self._bytes.decode(errors="replace")

    @property
    def said(self) -> str:
        return SEQUENCE.sub("", self.written)

    def until(self, *expected: str, seconds: float = 30) -> None:
        """Reads until all of it was said after this call."""
        begin, deadline = len(self.said), time.monotonic() + seconds
        while not all(text in self.said[begin:] for text in expected):
            assert time.monotonic() < deadline, f"{expected} is not in {self.said[begin:]!r}"
            assert self._read(), f"it ended without {expected}: {self.said[begin:]!r}"

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self, seconds: float = 30) -> int:
        """The exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it goes on: {self.said!r}"
        return self.process.wait(30)

    def _read(self) -> bool:
        """False at the end."""
        if select.select([self._ours], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # how Linux says that the other side is closed
                self._bytes += (part := os.read(self._ours, 65_536))
                return bool(part)
            return False
        return True


@contextlib.contextmanager
def on_terminal(
    *arguments: str, rows: int = 24, columns: int = 80, **environment: str
) -> Generator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [*JOBYARD, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=kept | {"TERM": "xterm-256color"} | environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)
