"""How topics, subscriptions and messages are written in NATS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from jobyard.ports import Message, Subscription

if TYPE_CHECKING:
    from nats.js.api import ConsumerConfig, StreamConfig

SET_ASIDE = "jobyard-set-aside"
MESSAGE_HEADER = "Jobyard-Message"
ID_HEADER = "Nats-Msg-Id"
DELIVERIES_HEADER = "Jobyard-Deliveries"

SPARE_BYTES = 1000
"""A message that is set aside gets more headers, and has to fit still."""


class _Envelope(msgspec.Struct):
    """What a message has beside its body. Headers of NATS lose spaces and line ends; JSON in one of them keeps all."""

    id: str
    key: str
    attributes: dict[str, str]


class NotOurs(ValueError):
    """Somebody else put it into the topic."""


def stream_name(topic: str) -> str:
    return f"jobyard-topic-{_token(topic)}"


def consumer_name(subscription: str) -> str:
    return _token(subscription)


def subject(topic: str) -> str:
    return f"jobyard.topic.{_token(topic)}"


def set_aside_subject(subscription: Subscription) -> str:
    return f"jobyard.set-aside.{_token(subscription.topic)}.{_token(subscription.name)}"


def _token(name: str) -> str:
    """Names in NATS have no dots, spaces, wildcards and slashes."""
    return quote(name, safe="").replace(".", "%2E")


def stream_config(topic: str, duplicate_window: float) -> StreamConfig:
    from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

    return StreamConfig(
        name=stream_name(topic),
        subjects=[subject(topic)],
        retention=RetentionPolicy.INTEREST,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        duplicate_window=duplicate_window,
    )


def set_aside_config() -> StreamConfig:
    from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

    return StreamConfig(
        name=SET_ASIDE,
        subjects=["jobyard.set-aside.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
    )


def consumer_config(subscription: Subscription) -> ConsumerConfig:
    """Without limits of the server's own: `in_flight` is each subscriber's, where max_ack_pending would be one for all of
    them; and past max_deliver the server would leave a message in the stream with nobody to tell."""
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

    name = consumer_name(subscription.name)
    return ConsumerConfig(
        name=name,
        durable_name=name,
        deliver_policy=DeliverPolicy.NEW,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=subscription.ack_seconds,
        max_deliver=-1,
        max_ack_pending=-1,
    )


def headers_of(message: Message) -> dict[str, str]:
    envelope = {"id": message.id, "key": message.key, "attributes": dict(message.attributes)}
    return {
        ID_HEADER: quote(message.id, safe=""),
        MESSAGE_HEADER: json.dumps(envelope, separators=(",", ":")),
    }


def message_of(body: bytes, headers: Mapping[str, str] | None) -> Message:
    """Raises NotOurs."""
    try:
        envelope = msgspec.json.decode((headers or {})[MESSAGE_HEADER], type=_Envelope)
    except (KeyError, ValueError) as trouble:
        raise NotOurs(MESSAGE_HEADER) from trouble
    return Message(envelope.id, body, envelope.key, envelope.attributes)


def size(body: bytes, headers: Mapping[str, str]) -> int:
    """As the server counts it against max_payload."""
    lines = sum(len(name) + len(": \r\n") + len(value) for name, value in headers.items())
    return len("NATS/1.0\r\n\r\n") + lines + len(body)
