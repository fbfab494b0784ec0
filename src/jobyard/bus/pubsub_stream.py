"""One streaming pull: asks for messages, hears them, and ends without leaving any on the way."""

# The official client leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from jobyard.bus.pubsub_connection import Connection, passing

if TYPE_CHECKING:
    from google.pubsub_v1 import types

HEARTBEAT_SECONDS = 25.0
"""Pub/Sub ends a stream whose client says nothing."""

SILENT_SECONDS = 75.0
"""It says something every 30 s at least."""

LAST_WORDS_SECONDS = 1.0
"""How long what is on its way when a stream ends may take."""


class Stream:
    """`limit`: how many messages the server may have out on it. `lease_seconds`: how long each of them is ours."""

    def __init__(self, subscription: str, limit: int, lease_seconds: int) -> None:
        self.limit = limit
        self.was_heard = False
        self.is_to_end = False
        self.over = asyncio.Event()
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._ending = asyncio.Event()
        self._patience: asyncio.Timeout | None = None

    async def read(
        self, connection: Connection, hear: Callable[[Iterable[types.ReceivedMessage]], None]
    ) -> None:
        """Until it ends. Raises GoogleAPIError and TimeoutError; not where it had been open, since Pub/Sub ends every stream
        some day."""
        try:
            async with asyncio.timeout(SILENT_SECONDS) as self._patience:
                metadata = [("x-goog-request-params", f"subscription={self._subscription}")]
                stream = await connection.subscriber.streaming_pull(
                    requests=self._requests(), retry=None, timeout=None, metadata=metadata
                )
                async for response in stream:
                    self.was_heard = True
                    if not self.is_to_end:
                        self._wait(SILENT_SECONDS)
                    hear(response.received_messages)
        except passing():
            if not self.was_heard:
                raise
        except TimeoutError:
            if not self.is_to_end:
                raise
        finally:
            self._patience = None
            self._ending.set()
            self.over.set()

    def end(self) -> None:
        """What is on its way is heard still."""
        if not self.is_to_end:
            self.is_to_end = True
            self._ending.set()
            self._wait(LAST_WORDS_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _requests(self) -> AsyncIterator[types.StreamingPullRequest]:
        from google.pubsub_v1 import types

        yield types.StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._lease_seconds,
            max_outstanding_messages=self.limit,
            protocol_version=1,
        )
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._ending.wait()
            if self._ending.is_set():
                return
            yield types.StreamingPullRequest()
