"""The way to Google Pub/Sub: one channel for the clients of topics and of subscriptions, and what its trouble means."""

# The official client leaves the types of some parameters open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import grpc.aio
    from google.pubsub_v1.services.publisher import PublisherAsyncClient
    from google.pubsub_v1.services.subscriber import SubscriberAsyncClient

CONNECT_MILLISECONDS = 2000
LONGEST_BACKOFF_MILLISECONDS = 5000
SILENT_MILLISECONDS = 30_000

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", SILENT_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC would give a first connection 20 s, and come back after up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MILLISECONDS),
    ("grpc.max_reconnect_backoff_ms", LONGEST_BACKOFF_MILLISECONDS),
    ("grpc.use_local_subchannel_pool", 1),  # whoever has lost it shares no pause with another
]


@dataclass(frozen=True, slots=True)
class Connection:
    channel: grpc.aio.Channel
    publisher: PublisherAsyncClient
    subscriber: SubscriberAsyncClient


async def opened(emulator: str) -> Connection:
    """To the emulator at this address, or else to Google with the credentials that its libraries find by themselves.
    Connects when it is used. Raises GoogleAuthError."""
    # It takes half a second to load, which nobody else is to wait for.
    await asyncio.to_thread(importlib.import_module, "google.pubsub_v1")
    from google.pubsub_v1.services import publisher, subscriber
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

    channel = _emulated(emulator) if emulator else await _authorized()
    return Connection(
        channel,
        publisher.PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel)),
        subscriber.SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel)),
    )


def _emulated(address: str) -> grpc.aio.Channel:
    import grpc.aio

    return grpc.aio.insecure_channel(address, options=[*OPTIONS, ("grpc.enable_http_proxy", 0)])


async def _authorized() -> grpc.aio.Channel:
    import google.auth
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport as Transport

    # It may ask the machine's metadata server.
    found = await asyncio.to_thread(cast("Any", google.auth).default, scopes=Transport.AUTH_SCOPES)
    return Transport.create_channel(credentials=found[0], options=OPTIONS)


def passing() -> tuple[type[Exception], ...]:
    """What may be gone when it is tried again."""
    from google.api_core import exceptions as google

    return (
        google.Aborted,
        google.Cancelled,
        google.DeadlineExceeded,
        google.InternalServerError,
        google.ResourceExhausted,
        google.ServiceUnavailable,
        google.Unknown,
    )


def troubles() -> tuple[type[Exception], ...]:
    """All that a call may meet."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return (GoogleAPIError, GoogleAuthError, OSError)
