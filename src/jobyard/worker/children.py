"""The child processes of a worker: started when an attempt needs one, used again until one crashes or has run its share,
and gone with the worker, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobyard import telemetry
from jobyard.domain.lifecycle import Crashed, Failed, Outcome
from jobyard.loop import backoff
from jobyard.store.dispatch import Claimed
from jobyard.telemetry import LogEvent, metrics
from jobyard.worker.link import Told
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
    Unfit,
    frame,
    heard_by_worker,
    length,
)

START_SECONDS = 60.0
"""Within which a child imports what it needs."""

IDLE_SECONDS = 60.0
"""After which a child that nobody needs is let go: each holds the memory of the whole application."""

GOODBYE_SECONDS = 3.0
"""How long a child that was let go may take to end; a little more than it takes itself."""

LAST_WORDS_SECONDS = 1.0
"""How long what a child said before its end may take to be read: what it forked may hold its line open for ever."""

LAST_DEATHS_SECONDS = 1.0
"""How long a worker that ends waits for the children it has killed."""


Heard = Callable[[Told], None]


class CannotStart(Exception):
    """A child ended before it took an attempt: one sentence."""


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """How to start a child, and after how many jobs another takes its place."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    jobs: int


def _future() -> asyncio.Future[str | None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Child:
    """One process, and the conversation with it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: asyncio.Future[str | None] = field(default_factory=_future)  # None, or why it cannot start
    jobs: int = 0
    attempt: Claimed | None = None
    over: asyncio.Future[Outcome | None] | None = None
    heard: Heard | None = None  # what to do with what the attempt says
    begun: Callable[[], None] | None = None  # what to call once the attempt has begun; None from then on
    stopped: bool = False
    let_go: bool = False
    killed: bool = False
    nonsense: str | None = None
    idle_too_long: asyncio.TimerHandle | None = None

    async def run(self, claimed: Claimed, begun: Callable[[], None], heard: Heard) -> Outcome | None:
        """How the attempt ended; None if the child was gone before it began. Cancelled, it stops the handler and answers
        what comes of that."""
        self.jobs += 1
        self.attempt, self.begun, self.heard = claimed, begun, heard
        self.over = asyncio.get_running_loop().create_future()
        self._tell(Run(claimed))
        try:
            return await asyncio.shield(self.over)
        except asyncio.CancelledError:
            self.stopped = True
            self._tell(Stop(claimed.lease))
            if (outcome := await asyncio.shield(self.over)) is None:
                raise
            return outcome
        finally:
            self.attempt = self.begun = self.heard = None

    def kill(self) -> None:
        """The process, and what it has started."""
        if self.process.returncode is None:
            self.killed = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def crashed(self) -> bool:
        """For one that has ended: whether it did so by itself, after its start."""
        ours = (self.killed and self.nonsense is None) or self.let_go
        return self.ready.done() and not ours

    async def attend(self) -> str:
        """Hear it out; how it ended, as the rest of a sentence about it."""
        listening = asyncio.create_task(self._listen())
        ended = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({listening, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not (ended.done() or self.nonsense):
                await asyncio.wait([ended], timeout=GOODBYE_SECONDS if self.let_go else LAST_WORDS_SECONDS)
                if not (ended.done() or self.let_go or self.killed):
                    self.nonsense = "closed the line to its worker"
            self.kill()
            code = await ended
            await asyncio.wait([listening], timeout=LAST_WORDS_SECONDS)
        finally:
            listening.cancel()
            ended.cancel()
            self.writer.close()
        return self.nonsense or how_it_ended(code)

    def gone(self, how: str) -> None:
        """It has ended, and all it said is heard."""
        self._say_ready(f"it {how} before it was ready")
        self._end(Crashed(f"the process running this job {how}") if self.begun is None else None)

    def _tell(self, message: ToChild) -> None:
        # One that is gone hears nothing: whoever attends to it will notice.
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write(frame(message))

    async def _listen(self) -> None:
        try:
            while True:
                size = length(await self.reader.readexactly(LENGTH_BYTES))
                self._hear(heard_by_worker(await self.reader.readexactly(size)))
        except ValueError as nonsense:
            self.nonsense = f"said what its worker does not understand ({nonsense})"
        except (OSError, EOFError):
            return

    def _hear(self, message: FromChild) -> None:
        mine = None if self.attempt is None else self.attempt.lease
        match message:
            case Ready():
                self._say_ready(None)
            case Unfit(why):
                self._say_ready(why)
            case Begun(lease) if lease == mine and self.begun is not None:
                begun, self.begun = self.begun, None
                begun()
            case Said(lease, told) if lease == mine and self.heard is not None:
                self.heard(told)
            case Over(lease) if lease == mine:
                self._end(message.outcome)
            case _:
                pass  # of an attempt that is not its own any more

    def _say_ready(self, trouble: str | None) -> None:
        if not self.ready.done():
            self.ready.set_result(trouble)

    def _end(self, outcome: Outcome | None) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_result(outcome)


def how_it_ended(code: int) -> str:
    """The exit code of a process as the rest of a sentence about it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Children:
    """All children of one worker. `close` ends every one of them; if the worker dies first, they end by themselves."""

    def __init__(self, options: ChildOptions) -> None:
        self._options = options
        self._alive: dict[Child, asyncio.Task[None]] = {}
        self._idle: list[Child] = []
        self._starting: set[asyncio.Task[Child]] = set()
        self._closed = False
        self._failures = 0

    async def run(self, claimed: Claimed, begun: Callable[[], None], heard: Heard) -> Outcome:
        """Run the attempt in a child that runs no other meanwhile. `begun` is called when the handler is: a start takes
        its time. `heard` takes what it says while it runs.

        An attempt for which no child can start has Failed; one whose child ends under it has Crashed. Cancelled, it
        waits until the handler lets go, for as long as nobody calls `kill`.
        """
        try:
            while (outcome := await self._run(claimed, begun, heard)) is None:
                pass  # the child ended while nobody used it: not this attempt's doing
        except CannotStart as trouble:
            self._failures += 1
            telemetry.error(LogEvent.CHILD_CANNOT_START, error=str(trouble))
            message = f"the process for this job cannot start: {trouble}"
            return Failed({"type": "CannotStart", "message": message})
        self._failures = 0
        return outcome

    def kill(self, lease: int) -> None:
        """End the child that runs the attempt with this lease, if there is one."""
        for child in self._alive:
            if child.attempt is not None and child.attempt.lease == lease:
                child.kill()

    async def close(self) -> None:
        """Kill them all, those that are about to be there too, and start no more."""
        self._closed = True
        if self._starting:
            await asyncio.wait(self._starting, timeout=LAST_DEATHS_SECONDS)
        for child in self._alive:
            child.kill()
        if self._alive:
            await asyncio.wait(self._alive.values(), timeout=LAST_DEATHS_SECONDS)

    async def _run(self, claimed: Claimed, begun: Callable[[], None], heard: Heard) -> Outcome | None:
        fresh = not self._idle
        child = await self._start() if fresh else self._idle[-1]
        self._is_idle_no_more(child)
        outcome = await child.run(claimed, begun, heard)
        if outcome is None and fresh:
            raise CannotStart("it ended before it began the job")
        if child in self._alive:
            self._keep_or_let_go(child)
        return outcome

    def _keep_or_let_go(self, child: Child) -> None:
        # What was stopped in the middle may have left anything half done.
        if child.stopped or child.jobs >= self._options.jobs:
            self._let_go(child)
        else:
            self._idle.append(child)
            loop = asyncio.get_running_loop()
            child.idle_too_long = loop.call_later(IDLE_SECONDS, self._let_go, child)

    def _is_idle_no_more(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
        if child.idle_too_long is not None:
            child.idle_too_long.cancel()

    def _let_go(self, child: Child) -> None:
        """It ends by itself, with its exit handlers, once its line is closed."""
        self._is_idle_no_more(child)
        child.let_go = True
        child.writer.close()

    async def _start(self) -> Child:
        """A child that takes attempts. After a failure the next start waits, longer each time. Raises CannotStart."""
        if self._failures:
            await asyncio.sleep(backoff(self._failures))
        try:
            child = await self._spawned()
        except OSError as trouble:
            raise CannotStart(str(trouble)) from trouble
        try:
            async with asyncio.timeout(START_SECONDS):
                trouble = await asyncio.shield(child.ready)
        except TimeoutError:
            trouble = f"it was not ready after {START_SECONDS:g} s"
        except asyncio.CancelledError:
            child.kill()
            raise
        if trouble is not None:
            child.kill()
            raise CannotStart(trouble)
        return child

    async def _spawned(self) -> Child:
        """Whoever is cancelled meanwhile leaves a child that is known, and not one that nobody ends."""
        if self._closed:
            raise CannotStart("the worker ends")
        starting = asyncio.create_task(self._spawn(), name="child start")
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_kill_started)
            raise

    async def _spawn(self) -> Child:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # A session of its own: Ctrl-C reaches only the worker, which then ends its attempts in order.
                process = await asyncio.create_subprocess_exec(
                    *self._options.command,
                    env=self._options.environment,
                    cwd=self._options.folder,
                    stdin=theirs.fileno(),
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        child = Child(process, reader, writer)
        self._alive[child] = asyncio.create_task(self._attend(child), name="child")
        metrics.CHILDREN.set(len(self._alive))
        return child

    async def _attend(self, child: Child) -> None:
        how = await child.attend()
        del self._alive[child]
        metrics.CHILDREN.set(len(self._alive))
        self._is_idle_no_more(child)
        if child.crashed:
            _tell_crash(child, how)
        child.gone(how)


def _kill_started(starting: asyncio.Task[Child]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill()


def _tell_crash(child: Child, how: str) -> None:
    metrics.CHILD_CRASHES.add()
    about = {} if child.attempt is None else telemetry.facts_of(child.attempt)
    telemetry.error(LogEvent.CHILD_CRASHED, **about, pid=child.process.pid, how=how)
