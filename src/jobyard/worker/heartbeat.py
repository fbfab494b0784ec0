"""The worker's one heartbeat, in a thread with a loop and a connection of its own: a handler that blocks the main
loop must not cost the worker its leases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from jobyard.loop import backoff
from jobyard.store import dispatch
from jobyard.store.database import Connection, connect
from jobyard.telemetry import metrics

BEATS_A_LEASE = 3
STOP_SECONDS = 0.2


class Heartbeat:
    """Renews the leases of one worker id from `start` until `stop`. `on_expired` is called in the heartbeat's thread
    with the id whose row was gone. `pooler`: the address passes one."""

    def __init__(
        self, url: str, lease_seconds: float, on_expired: Callable[[int], None], *, pooler: bool = False
    ) -> None:
        self._url = url
        self._pooler = pooler
        self._lease_seconds = lease_seconds
        self._on_expired = on_expired
        self._worker: int | None = None
        self._changing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.failures = 0

    def start(self, worker: int) -> None:
        self._worker = worker
        self._thread.start()

    @property
    def started(self) -> bool:
        return self._worker is not None or self._thread.is_alive()

    def beat_for(self, worker: int) -> None:
        """From now on for this new id."""
        with self._changing:
            self._worker = worker

    def stop(self) -> None:
        """Ends the thread, at once also when the database is frozen."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=STOP_SECONDS)
        else:
            self._loop.close()  # it never ran

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        beating = asyncio.create_task(self._beat_for_ever())
        await self._stop.wait()
        beating.cancel()
        await asyncio.wait([beating], timeout=STOP_SECONDS / 2)

    async def _beat_for_ever(self) -> None:
        connection: Connection | None = None
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await connect(self._url, hot=not self._pooler, name="jobyard heartbeat")
                await self._beat(connection)
                self.failures = 0
                metrics.loop_succeeded("heartbeat")
                await asyncio.sleep(self._lease_seconds / BEATS_A_LEASE)
            except asyncio.CancelledError:
                if connection is not None:
                    connection.terminate()
                raise
            except Exception:
                # Whatever it was, the next beat is the cure; the pool reports what the database says.
                self.failures += 1
                metrics.loop_failed("heartbeat")
                if connection is not None:
                    connection.terminate()
                    connection = None
                await asyncio.sleep(min(backoff(self.failures), self._lease_seconds / BEATS_A_LEASE))

    async def _beat(self, connection: Connection) -> None:
        worker = self._worker
        if worker is None:
            return
        async with asyncio.timeout(self._lease_seconds / BEATS_A_LEASE):
            alive = await dispatch.beat(connection, worker, self._lease_seconds)
        if not alive and self._forget(worker):
            self._on_expired(worker)

    def _forget(self, worker: int) -> bool:
        """Beat no longer for this id, unless a new one has taken its place already."""
        with self._changing:
            if self._worker != worker:
                return False
            self._worker = None
            return True
