"""Operations of the store, each on a connection of its own, taken statement by statement through every order.

    sessions = [Session(connection, observer) for ...]
    orders = await every_order(lambda prefix: play(prefix, sessions, operations))

Each operation runs in one transaction. Its steps are its statements and the commit. A statement that has to wait
for another session's lock is left waiting while the others go on, as in life.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from jobyard.store.database import Connection

PATIENCE = 0.003
"""How long a statement may take before the server is asked whether it waits for a lock."""

Operation = Callable[[Any], Awaitable[Any]]
Order = tuple[int, ...]


class Session:
    """A connection to the store's functions; its statements wait for their turn."""

    def __init__(self, connection: Connection, observer: Connection) -> None:
        self._connection, self._observer = connection, observer
        self._turn, self._at_rest = asyncio.Event(), asyncio.Event()
        self._waits_for_turn = False
        self._task: asyncio.Task[Any] | None = None

    # What the store sees of a connection

    async def fetch(self, *statement: Any) -> list[asyncpg.Record]:
        await self._my_turn()
        return await self._connection.fetch(*statement)

    async def fetchrow(self, *statement: Any) -> asyncpg.Record | None:
        await self._my_turn()
        return await self._connection.fetchrow(*statement)

    async def fetchval(self, *statement: Any) -> Any:
        await self._my_turn()
        return await self._connection.fetchval(*statement)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield  # the whole operation is in one already

    def is_in_transaction(self) -> bool:
        return True

    # What the harness does with it

    def begin(self, operation: Operation) -> None:
        self._at_rest.clear()
        self._task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: Operation) -> Any:
        try:
            async with self._connection.transaction():
                answer = await operation(self)
                await self._my_turn()
            return answer
        except asyncpg.PostgresError as refusal:
            # Not one of those that the store would repeat: in these tests nothing may be undone by the server.
            raise AssertionError(f"the server refused: {refusal!r}") from refusal
        finally:
            self._at_rest.set()

    async def _my_turn(self) -> None:
        self._waits_for_turn = True
        self._at_rest.set()
        await self._turn.wait()
        self._turn.clear()

    @property
    def is_over(self) -> bool:
        return self._task is not None and self._task.done()

    @property
    def may_go(self) -> bool:
        return self._waits_for_turn and not self.is_over

    @property
    def answer(self) -> Any:
        assert self._task is not None
        return self._task.result()

    def go(self) -> None:
        self._waits_for_turn = False
        self._at_rest.clear()
        self._turn.set()

    async def rest(self) -> None:
        """Returns when this session is over, waits for its turn, or waits for a lock."""
        while True:
            try:
                await asyncio.wait_for(self._at_rest.wait(), PATIENCE)
                return
            except TimeoutError:
                pid = self._connection.get_server_pid()
                if await self._observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
                    return

    async def stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


async def play(
    prefix: Order, sessions: Sequence[Session], operations: Sequence[Operation], after_each: Operation
) -> list[tuple[int, set[int]]]:
    """Take the operations through the order that starts with this prefix. Returns who went at each step, and who
    could have gone."""
    steps = list[tuple[int, set[int]]]()
    try:
        for session, operation in zip(sessions, operations, strict=True):
            session.begin(operation)
        await _all_rest(sessions)
        while could := {number for number, session in enumerate(sessions) if session.may_go}:
            goes = prefix[len(steps)] if len(steps) < len(prefix) else min(could)
            assert goes in could, f"{prefix} does not repeat: at step {len(steps)} only {could} could go"
            steps.append((goes, could))
            sessions[goes].go()
            await _all_rest(sessions)
            await after_each([session.answer if session.is_over else None for session in sessions])
        assert all(session.is_over for session in sessions), "each waits for another: a deadlock"
        return steps
    finally:
        for session in sessions:
            await session.stop()


async def _all_rest(sessions: Sequence[Session]) -> None:
    """Until a look at each finds nothing new: whoever ends may free one that was seen waiting for its lock."""
    seen, found = None, _standings(sessions)
    while found != seen:
        seen = found
        for session in sessions:
            await session.rest()
        found = _standings(sessions)


def _standings(sessions: Sequence[Session]) -> list[tuple[bool, bool]]:
    return [(session.may_go, session.is_over) for session in sessions]


async def every_order(playing: Callable[[Order], Awaitable[list[tuple[int, set[int]]]]]) -> list[Order]:
    """Every order there is, each played once: where one step could have been another's, that is tried too."""
    untried, played = [Order()], list[Order]()
    while untried:
        prefix = untried.pop()
        steps = await playing(prefix)
        order = tuple(goes for goes, _ in steps)
        played.append(order)
        for at in range(len(prefix), len(steps)):
            goes, could = steps[at]
            untried += [(*order[:at], other) for other in could - {goes}]
    return played


def is_serial(order: Order) -> bool:
    """Whether each session went from its first step to its last without another in between."""
    changes = sum(before != after for before, after in itertools.pairwise(order))
    return changes == len(set(order)) - 1
