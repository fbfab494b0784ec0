"""What a subscriber says to Google Pub/Sub about deliveries; where nobody hears it their time ends, and they come again."""

# The official client leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from jobyard.bus import pubsub_wire as wire
from jobyard.bus.pubsub_connection import Connection
from jobyard.ports import BusUnavailable

T = TypeVar("T")

LONGEST_LEASE_SECONDS = 600
ACK_IDS = 1000
"""In one request, which has at most 512 KiB."""

BOUNDS: dict[str, Any] = {"retry": None, "timeout": 5.0}


class Doing(Protocol):
    async def do(self, action: Callable[[Connection], Awaitable[T]]) -> T: ...


class Words:
    def __init__(self, bus: Doing, subscription: str) -> None:
        self._bus = bus
        self._subscription = subscription

    async def terms(self, told: float) -> float:
        """How long a delivery may take. Where we may not ask, as we were told. Raises BusUnavailable."""
        from google.api_core.exceptions import PermissionDenied

        async def ask(connection: Connection) -> float:
            try:
                found = await connection.subscriber.get_subscription(
                    subscription=self._subscription, **BOUNDS
                )
            except PermissionDenied:
                return told
            return wire.ack_seconds(found)

        return await self._bus.do(ask)

    async def ack(self, ack_ids: Callable[[], Sequence[str]]) -> None:
        """Those that it answers: asked again with each try, since their time may be over by then."""

        async def say(connection: Connection) -> None:
            for some in _parts(ack_ids()):
                await connection.subscriber.acknowledge(
                    subscription=self._subscription, ack_ids=some, **BOUNDS
                )

        await self._tell(say)

    async def lease(self, ack_ids: Sequence[str], seconds: int) -> None:
        """For so long from now on; 0 gives them back."""

        async def say(connection: Connection) -> None:
            for some in _parts(ack_ids):
                await connection.subscriber.modify_ack_deadline(
                    subscription=self._subscription, ack_ids=some, ack_deadline_seconds=seconds, **BOUNDS
                )

        await self._tell(say)

    async def _tell(self, say: Callable[[Connection], Awaitable[None]]) -> None:
        with contextlib.suppress(BusUnavailable):
            await self._bus.do(say)


def _parts(ack_ids: Sequence[str]) -> Iterable[list[str]]:
    for begin in range(0, len(ack_ids), ACK_IDS):
        yield list(ack_ids[begin : begin + ACK_IDS])
