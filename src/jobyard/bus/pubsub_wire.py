"""How topics, subscriptions and messages are written in Google Pub/Sub."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from jobyard.ports import Message, Subscription

if TYPE_CHECKING:
    from google.pubsub_v1 import types

ID, KEY, ENVELOPE = "jobyard-id", "jobyard-key", "jobyard-envelope"
ACK_LABEL = "jobyard-ack-milliseconds"
SOURCE, DELIVERIES = "CloudPubSubDeadLetterSourceSubscription", "CloudPubSubDeadLetterSourceDeliveryCount"
"""What Pub/Sub itself writes on a dead letter, and we on what we set aside."""

OF_OTHERS = ("goog", "jobyard-", "CloudPubSub")
"""How no attribute of a message begins that travels as one of Pub/Sub."""

ATTRIBUTE_KEY_BYTES, ATTRIBUTE_VALUE_BYTES, ORDERING_KEY_BYTES = 256, 1024, 1024
ATTRIBUTES = 90
"""Of 100: a dead letter gets more."""

ACK_SECONDS = (10, 600)
DELIVERIES_BOUNDS = (5, 100)
DAY = 24 * 3600
TOPIC_DAYS, SUBSCRIPTION_DAYS = 7, 31
LEAST_BACKOFF_SECONDS, MOST_BACKOFF_SECONDS = 0.1, 10


class _Envelope(msgspec.Struct):
    id: str
    key: str
    attributes: dict[str, str]


class NotOurs(ValueError):
    """Somebody else put it into the topic."""


@dataclass(frozen=True, slots=True)
class Names:
    """A subscription of Pub/Sub belongs to the project and not to its topic, so its name says both."""

    project: str
    namespace: str

    def topic(self, topic: str) -> str:
        return f"{self._topics}/{self.namespace}-topic-{_token(topic)}"

    def subscription(self, subscription: Subscription) -> str:
        topic, name = _token(subscription.topic), _token(subscription.name)
        return f"projects/{self.project}/subscriptions/{self.namespace}-subscription-{topic}.{name}"

    @property
    def set_aside_topic(self) -> str:
        return f"{self._topics}/{self.namespace}-set-aside"

    @property
    def set_aside_subscription(self) -> str:
        return f"projects/{self.project}/subscriptions/{self.namespace}-set-aside"

    @property
    def _topics(self) -> str:
        return f"projects/{self.project}/topics"


def _token(name: str) -> str:
    """Without dots, one of which stands between a topic and its subscription."""
    return quote(name, safe="").replace(".", "%2E")


# Topics and subscriptions


def topic_config(name: str) -> dict[str, Any]:
    return {"name": name, "message_retention_duration": {"seconds": TOPIC_DAYS * DAY}}


def set_aside_config(names: Names) -> dict[str, Any]:
    return {
        "name": names.set_aside_subscription,
        "topic": names.set_aside_topic,
        "message_retention_duration": {"seconds": SUBSCRIPTION_DAYS * DAY},
        "expiration_policy": {},
    }


def subscription_config(names: Names, subscription: Subscription) -> dict[str, Any]:
    """The label keeps what Pub/Sub has no room for: less than ten seconds, and parts of one."""
    return {
        "name": names.subscription(subscription),
        "topic": names.topic(subscription.topic),
        "labels": {ACK_LABEL: str(round(subscription.ack_seconds * 1000))},
        "ack_deadline_seconds": within(ACK_SECONDS, math.ceil(subscription.ack_seconds)),
        "enable_message_ordering": True,
        "message_retention_duration": {"seconds": SUBSCRIPTION_DAYS * DAY},
        "expiration_policy": {},
        "retry_policy": {
            "minimum_backoff": {"nanos": int(LEAST_BACKOFF_SECONDS * 1e9)},
            "maximum_backoff": {"seconds": MOST_BACKOFF_SECONDS},
        },
        "dead_letter_policy": {
            "dead_letter_topic": names.set_aside_topic,
            "max_delivery_attempts": within(DELIVERIES_BOUNDS, subscription.max_deliveries),
        },
    }


def within(bounds: tuple[int, int], value: int) -> int:
    least, most = bounds
    return max(least, min(most, value))


def differences(found: types.Subscription, names: Names, subscription: Subscription) -> list[str]:
    """What of a subscription that was there before keeps it from doing what the port says."""
    expiry = cast("Any", found.expiration_policy).ttl
    said = {
        "its topic is another": found.topic != names.topic(subscription.topic),
        "it is detached": found.detached,
        "messages of one key come in no order": not found.enable_message_ordering,
        "nothing is set aside": not found.dead_letter_policy.dead_letter_topic,
        "it expires when nobody uses it": bool(expiry),
        "it filters": bool(found.filter),
    }
    return [difference for difference, is_so in said.items() if is_so]


def ack_seconds(found: types.Subscription) -> float:
    """How long a delivery may take, as it was said when the subscription was made."""
    label = found.labels.get(ACK_LABEL, "")
    return int(label) / 1000 if label.isdecimal() else float(found.ack_deadline_seconds)


# Messages


def sealed(message: Message) -> dict[str, Any]:
    """As Pub/Sub takes it. What it would not take as an attribute stands as JSON before the body, and an attribute says
    how long that is."""
    attributes = {ID: message.id, **message.attributes}
    if message.key:
        attributes[KEY] = message.key
    data, key = message.body, message.key
    if not _fits(message):
        envelope = {"id": message.id, "key": message.key, "attributes": dict(message.attributes)}
        text = json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode()
        attributes, data = {ENVELOPE: str(len(text))}, text + data
        if len(key.encode()) > ORDERING_KEY_BYTES:
            key = hashlib.sha256(key.encode()).hexdigest()
    return {"data": data, "attributes": attributes, "ordering_key": key}


def _fits(message: Message) -> bool:
    of_ours = max(len(message.id.encode()), len(message.key.encode())) <= ATTRIBUTE_VALUE_BYTES
    return (
        of_ours and len(message.attributes) <= ATTRIBUTES and all(map(_is_plain, message.attributes.items()))
    )


def _is_plain(attribute: tuple[str, str]) -> bool:
    key, value = attribute
    return (
        bool(key)
        and not key.startswith(OF_OTHERS)
        and len(key.encode()) <= ATTRIBUTE_KEY_BYTES
        and len(value.encode()) <= ATTRIBUTE_VALUE_BYTES
    )


def message_of(found: types.PubsubMessage) -> Message:
    """Raises NotOurs. What Pub/Sub writes on a dead letter is no attribute of ours."""
    given = dict(found.attributes)
    if ENVELOPE in given:
        return _opened(found.data, given[ENVELOPE])
    if ID not in given:
        raise NotOurs(ID)
    attributes = {key: value for key, value in given.items() if not key.startswith(OF_OTHERS)}
    return Message(given[ID], found.data, given.get(KEY, ""), attributes)


def _opened(data: bytes, length: str) -> Message:
    try:
        size = int(length)
        envelope = msgspec.json.decode(data[:size], type=_Envelope)
    except ValueError as trouble:
        raise NotOurs(ENVELOPE) from trouble
    return Message(envelope.id, data[size:], envelope.key, envelope.attributes)
