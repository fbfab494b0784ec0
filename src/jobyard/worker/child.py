"""A child process of a worker: runs one attempt at a time in its main thread, so that whatever kills it has one culprit."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import uvloop

from jobyard import telemetry
from jobyard.domain.lifecycle import Failed, Outcome
from jobyard.store.dispatch import Claimed
from jobyard.worker import attempt
from jobyard.worker.handlers import Handler
from jobyard.worker.link import HandlerDatabase, Link, Told
from jobyard.worker.messages import (
    LENGTH_BYTES,
    Begun,
    FromChild,
    Over,
    Ready,
    Run,
    Said,
    Stop,
    ToChild,
    frame,
    heard_by_child,
    length,
)

R = TypeVar("R")

LAST_SECONDS = 2.0
"""How long a child that is not needed any more may take for its exit handlers."""

FIRST_FOR_THE_OOM_KILLER = "500"
PR_SET_PDEATHSIG = 1


class ToldToStop(BaseException):
    """Raised in a `def` handler whose time is up, which is to be stopped, or whose worker must end: at whatever line it
    stands. No Exception, so that what catches those does not catch it."""


class Line:
    """The child's end of the socket between it and its worker, which is its standard input when it starts."""

    def __init__(self) -> None:
        # Handlers, and what they start, get an empty standard input and never see the socket.
        self._socket = socket.socket(fileno=os.dup(sys.stdin.fileno()))
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, sys.stdin.fileno())
        os.close(empty)
        self._sending = threading.Lock()
        self._incoming: BinaryIO = self._socket.makefile("rb")

    def send(self, message: FromChild) -> None:
        """All of it, from any thread, also in the middle of a handler: the signal that stops one waits meanwhile."""
        text = frame(message)
        with self._sending:
            others = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            try:
                # When the worker is gone nobody hears, and this process is about to end.
                with contextlib.suppress(OSError):
                    self._socket.sendall(text)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, others)

    def hear(self) -> ToChild | None:
        """The next message; None when the worker has closed its end or is gone, or when this is no message."""
        with contextlib.suppress(OSError, ValueError):
            head = self._incoming.read(LENGTH_BYTES)
            if len(head) == LENGTH_BYTES:
                size = length(head)
                text = self._incoming.read(size)
                if len(text) == size:
                    return heard_by_child(text)
        return None


class Child:
    """Runs attempts until the worker closes the line."""

    def __init__(
        self,
        line: Line,
        find: Callable[[str], Handler],
        max_result_bytes: int,
        database: HandlerDatabase | None,
    ) -> None:
        self._line = line
        self._find = find
        self._database = database
        self._max_result_bytes = max_result_bytes
        self._attempts: queue.SimpleQueue[Claimed | None] = queue.SimpleQueue()
        self._loop = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._running_loop = threading.Lock()
        self._context = contextvars.copy_context()
        self._told: int | None = None  # the lease of the attempt that is to stop
        self._current: int | None = None  # that of the attempt that runs
        self._task: asyncio.Task[Outcome] | None = None
        self._may_raise = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._listen, name="jobyard line", daemon=True).start()
        self._line.send(Ready())
        while (claimed := self._attempts.get()) is not None:
            self._current = claimed.lease
            self._line.send(Begun(claimed.lease))
            outcome = self._outcome(claimed)
            self._current = None
            self._line.send(Over.of(claimed.lease, outcome))
        self._loop.close()

    def _outcome(self, claimed: Claimed) -> Outcome:
        """Every way to leave a handler has one: none of them ends the process."""
        # A context of its own: what one job sets there must never show in the next.
        context = self._context.copy()
        context.run(telemetry.about, claimed)
        try:
            if self._find(claimed.type).is_async:
                return self._loop.run(self._awaited(claimed), context=context)
            return context.run(self._called, claimed)
        except BaseException as error:
            return Failed(attempt.describe(error))

    async def _awaited(self, claimed: Claimed) -> Outcome:
        self._task = asyncio.current_task()
        if self._is_told and self._task:
            self._task.cancel()
        return await attempt.awaited(
            self._find(claimed.type), claimed, self._link_of(claimed), self._max_result_bytes
        )

    def _called(self, claimed: Claimed) -> Outcome:
        self._may_raise = True
        try:
            if self._is_told:
                raise ToldToStop
            return attempt.called(
                self._find(claimed.type), claimed, self._link_of(claimed), self._max_result_bytes
            )
        finally:
            self._may_raise = False

    def _link_of(self, claimed: Claimed) -> Callable[[], Link]:
        def tell(told: Told) -> None:
            self._line.send(Said(claimed.lease, told))

        block = self._block_beside if self._find(claimed.type).is_async else self._block_alone
        return lambda: Link(claimed, self._database, tell, lambda: self._told == claimed.lease, block)

    def _block_beside(self, work: Coroutine[Any, Any, R]) -> R:
        """For a thread that an `async def` handler has started: the loop runs in the main thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop.get_loop()).result()

    def _block_alone(self, work: Coroutine[Any, Any, R]) -> R:
        """For a `def` handler and its threads: nobody else runs the loop."""
        with self._running_loop:
            return self._loop.run(work)

    @property
    def _is_told(self) -> bool:
        return self._told is not None and self._told == self._current

    # In the thread that listens

    def _listen(self) -> None:
        while True:
            match self._line.hear():
                case Run(claimed):
                    self._attempts.put(claimed)
                case Stop(lease):
                    self._stop(lease)
                case None:
                    self._end()

    def _stop(self, lease: int) -> None:
        # The main thread looks at this once its handler can be stopped: between the two, none is missed.
        self._told = lease
        if self._is_told:
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            # It ends also a call that waits in the kernel, where no flag would be looked at.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _end(self) -> None:
        """At once in the middle of an attempt; between two the interpreter may say goodbye."""
        if self._current is None:
            self._attempts.put(None)
            time.sleep(LAST_SECONDS)
        os._exit(0)

    # In the main thread

    def _on_signal(self, *_: object) -> None:
        """Signals from elsewhere (of a service manager to the whole group) are the worker's to answer."""
        if self._may_raise and self._is_told:
            self._may_raise = False
            raise ToldToStop


def _ignore(*_: object) -> None:
    """Unlike SIG_IGN it does not pass on to what a handler starts."""


def prepare() -> Line:
    """The first that a child does: from now on it ends with its worker, and no signal meant for that one ends it."""
    line = Line()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory runs out it is this job that is to go, and not the worker with all the others.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(FIRST_FOR_THE_OOM_KILLER, encoding="ascii")
    faulthandler.enable()
    return line
