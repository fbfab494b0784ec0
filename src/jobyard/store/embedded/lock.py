"""Locks that the kernel drops with their holder, however it died (flock)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def open_lock(path: Path) -> int:
    """The file as a descriptor that no program we start inherits unless it is passed on purpose. Closing it drops
    the lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def share(lock: int) -> None:
    """Waits until nobody has the lock alone, then holds it beside any number of others."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def take_alone(lock: int) -> bool:
    """Holds the lock alone if nobody else holds it. If somebody does, a share we had is lost too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def held_alone(path: Path) -> Generator[int]:
    """Waits for the lock and holds it while inside, and on as long as a program lives that inherited it."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def is_held(path: Path) -> bool:
    """Whether anyone holds the lock right now."""
    lock = open_lock(path)
    try:
        return not take_alone(lock)
    finally:
        os.close(lock)
