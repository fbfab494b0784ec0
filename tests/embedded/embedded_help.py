"""What the tests of the embedded PostgreSQL share: homes, processes, and waiting for what must come."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

FAST = {"fsync": "off"}
IS_ROOT = os.geteuid() == 0
SERVER_UID = pwd.getpwnam("nobody").pw_uid if IS_ROOT else os.geteuid()

only_as_root = pytest.mark.skipif(not IS_ROOT, reason="what root does can only be had as root")


def new_home() -> Path:
    """An empty folder that every user can enter, as pytest's own are not."""
    home = Path(tempfile.mkdtemp(prefix="jobyard-embedded-", dir="/tmp"))
    home.chmod(0o755)
    return home


@contextmanager
def removed_at_the_end(home: Path) -> Iterator[Path]:
    """The home, whose server does not outlive the test even if that fails."""
    try:
        yield home
    finally:
        kill_server(home)
        shutil.rmtree(home, ignore_errors=True)


def kill_server(home: Path) -> None:
    for pid in pids_of_server(home):
        kill_if_there(pid)


def kill_if_there(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 9)


def postmasters_of(folder: Path) -> list[int]:
    """The postmasters whose data is in `folder`; a child that has just been forked bears the name of its parent still."""
    named = [pid for pid in pids() if b"postgres\0-D\0" + os.fsencode(folder) in command_line(pid)]
    return [pid for pid in named if parent_of(pid) not in named]


def pids_of_server(folder: Path) -> list[int]:
    """The postmasters whose data is in `folder`, and their children."""
    postmasters = postmasters_of(folder)
    return postmasters + [pid for pid in pids() if parent_of(pid) in postmasters]


def pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def program_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/exe").readlink()


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """A zombie has ended, whoever has yet to hear of it."""
    return command_line(pid) != b""


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


async def fetch(address: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(address)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


async def value(address: str, sql: str) -> object:
    return (await fetch(address, sql))[0][0]


def output_of(command: list[str], **how: Any) -> str:
    """What a program that must succeed writes."""
    ran = subprocess.run(command, capture_output=True, text=True, **how)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Member:
    """A process of its own that uses the server of a home (member.py)."""

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("member.py")), str(home), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        """Makes the member leave the server, and waits for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        assert self.hears() == "stopped"
        self.process.wait(timeout=30)

    def kill(self) -> None:
        with self.process:
            self.process.kill()
