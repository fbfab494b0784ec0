"""One streaming pull: deliveries out, acks and extensions in, both at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1 import types

from jobyard.pubsub_emulator import limits
from jobyard.pubsub_emulator.backlog import Lease, Receiver
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.refusals import InvalidArgument, Unavailable
from jobyard.pubsub_emulator.subscription import Subscription

BATCH = 1000
HEARTBEAT_SECONDS = 30
"""A client of protocol version 1 hears at least so often from a stream that has nothing to deliver."""


class Stream:
    def __init__(self, subscription: Subscription, first: types.StreamingPullRequest, faults: Faults) -> None:
        limits.check_ack_seconds(first.stream_ack_deadline_seconds)
        self._subscription = subscription
        self._faults = faults
        self._receiver = Receiver(
            _limit(first.max_outstanding_messages),
            _limit(first.max_outstanding_bytes),
            first.stream_ack_deadline_seconds,
        )
        self._heartbeat = HEARTBEAT_SECONDS if first.protocol_version >= 1 else None
        self._answer(first)

    async def responses(
        self, requests: AsyncIterator[types.StreamingPullRequest]
    ) -> AsyncIterator[types.StreamingPullResponse]:
        """Until the client has no more to say. Raises Refusal."""
        yield self._response()
        reading = asyncio.create_task(self._read(requests))
        delivering = asyncio.create_task(self._deliveries())
        try:
            while not reading.done():
                await asyncio.wait(
                    {reading, delivering}, timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED
                )
                if delivering.done():
                    yield await self._delivered(delivering.result())
                    delivering = asyncio.create_task(self._deliveries())
                elif not reading.done():
                    yield self._response()
            reading.result()
        finally:
            reading.cancel()
            delivering.cancel()

    async def _deliveries(self) -> list[Lease]:
        return await self._subscription.next(BATCH, self._receiver)

    async def _delivered(self, leases: list[Lease]) -> types.StreamingPullResponse:
        await self._faults.delay()
        if self._faults.strikes("cut_stream"):
            raise Unavailable("The stream was cut (a fault that was asked for).")
        return self._response(leases)

    def _response(self, leases: Iterable[Lease] = ()) -> types.StreamingPullResponse:
        ordered = self._subscription.config.enable_message_ordering
        return types.StreamingPullResponse(
            received_messages=received(self._subscription, leases),
            subscription_properties={"message_ordering_enabled": ordered},
        )

    async def _read(self, requests: AsyncIterator[types.StreamingPullRequest]) -> None:
        async for request in requests:
            if request.subscription or request.max_outstanding_messages or request.max_outstanding_bytes:
                raise InvalidArgument("subscription and flow control belong in the first request of a stream")
            if request.stream_ack_deadline_seconds:
                limits.check_ack_seconds(request.stream_ack_deadline_seconds)
                self._receiver.ack_seconds = request.stream_ack_deadline_seconds
            self._answer(request)

    def _answer(self, request: types.StreamingPullRequest) -> None:
        """Do what the client says to its deliveries."""
        if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
            raise InvalidArgument("modify_deadline_ack_ids and modify_deadline_seconds must be of one length")
        limits.check_extensions(request.modify_deadline_seconds)
        if request.ack_ids:
            self._subscription.ack(request.ack_ids)
        for ack_id, seconds in zip(
            request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True
        ):
            self._subscription.extend([ack_id], seconds)


def received(subscription: Subscription, leases: Iterable[Lease]) -> list[types.ReceivedMessage]:
    """As it is sent."""
    return [
        types.ReceivedMessage(
            ack_id=lease.ack_id,
            message=types.PubsubMessage(
                data=lease.message.data,
                attributes=lease.message.attributes,
                message_id=lease.message.id,
                publish_time=_timestamp(lease.message.published),
                ordering_key=lease.message.ordering_key,
            ),
            delivery_attempt=lease.attempt if subscription.counts_attempts else 0,
        )
        for lease in leases
    ]


def _timestamp(moment: float) -> Timestamp:
    return Timestamp(seconds=int(moment), nanos=int(moment % 1 * 1_000_000) * 1000)


def _limit(given: int) -> int | None:
    return given if given > 0 else None
