"""Wake-ups by LISTEN and NOTIFY: the default bus, with nothing to install."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from jobyard import telemetry
from jobyard.loop import backoff, end_if_cancelled
from jobyard.ports import Clock, WakeUp
from jobyard.servers import connected
from jobyard.telemetry import LogEvent, metrics

CHANNEL = "jobyard_ready"
CHECK_SECONDS = 5.0
"""How often the listener sends itself a notification, and how long it waits for it: a connection that froze without
a reset is noticed within twice this."""

CONNECT_SECONDS = 5.0

SESSION = {"application_name": "jobyard listener", "tcp_user_timeout": "20s"}
"""Of the listener. Of one that does not read, as a process that is stopped, the session stands in the middle of a message
and keeps vacuum from its work, unless the server may end it."""


def parse_wake(message: str) -> WakeUp:
    """`lanes|workers`, each a comma-separated list of numbers, or `*` for any. Garbage wakes everybody."""
    lanes, _, workers = message.partition("|")
    try:
        return WakeUp(_numbers(lanes), _numbers(workers))
    except ValueError:
        return WakeUp()


def _numbers(text: str) -> frozenset[int]:
    return frozenset() if text in ("", "*") else frozenset(map(int, text.split(",")))


class PostgresBus:
    """One listening connection a process. It needs an address that passes no transaction pooler."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._healthy = False

    @property
    def healthy(self) -> bool:
        return self._healthy

    @asynccontextmanager
    async def subscribe(self, on_wake: Callable[[WakeUp], None]) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._listen_for_ever(on_wake), name="listener")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen_for_ever(self, on_wake: Callable[[WakeUp], None]) -> None:
        failures = 0
        while True:
            try:
                await self._listen(on_wake, was_lost=failures > 0)
            except Exception as trouble:
                # Whatever it was, waiting and listening again is the cure.
                end_if_cancelled()
                metrics.loop_failed("listener")
                failures = 1 if self._healthy else failures + 1
                if failures == 1:
                    telemetry.warning(LogEvent.LISTENER_LOST, error=f"{type(trouble).__name__}: {trouble}")
            finally:
                self._healthy = False
            await self._clock.sleep(backoff(failures))

    async def _listen(self, on_wake: Callable[[WakeUp], None], *, was_lost: bool) -> None:
        """Listen until the connection is lost, which raises."""
        connection = await connected(self._url, timeout=CONNECT_SECONDS, server_settings=SESSION)
        try:
            heard = asyncio.Event()
            own_channel = f"jobyard_check_{connection.get_server_pid()}"

            def hear(_connection: object, _pid: int, channel: str, payload: object) -> None:
                if channel == own_channel:
                    heard.set()
                else:
                    on_wake(parse_wake(str(payload)))

            await connection.add_listener(CHANNEL, hear)
            await connection.add_listener(own_channel, hear)
            if was_lost:
                telemetry.info(LogEvent.LISTENER_BACK)
            self._healthy = True
            on_wake(WakeUp())
            while True:
                await self._check(connection, own_channel, heard)
                metrics.loop_succeeded("listener")
                await self._clock.sleep(CHECK_SECONDS)
        finally:
            # Without a farewell, for which a frozen server would make us wait.
            connection.terminate()

    async def _check(self, connection: Any, channel: str, heard: asyncio.Event) -> None:
        heard.clear()
        async with asyncio.timeout(CHECK_SECONDS):
            await connection.execute("SELECT pg_notify($1, '')", channel)
            await heard.wait()
