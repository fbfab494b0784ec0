"""The limits that Google documents for messages and requests, as errors."""

from __future__ import annotations

from collections.abc import Sequence

from google.pubsub_v1 import types

from jobyard.pubsub_emulator.refusals import InvalidArgument
from jobyard.pubsub_emulator.wire import raw

MEGABYTE = 1_000_000
REQUEST_BYTES = 10 * MEGABYTE
REQUEST_MESSAGES = 1000
MESSAGE_BYTES = 10 * MEGABYTE
ATTRIBUTES = 100
ATTRIBUTE_KEY_BYTES = 256
ATTRIBUTE_VALUE_BYTES = 1024
ORDERING_KEY_BYTES = 1024
ACK_REQUEST_BYTES = 512 * 1024
ACK_SECONDS = range(10, 601)
EXTENSION_SECONDS = range(601)


def check_publish(request: types.PublishRequest) -> None:
    """Raises InvalidArgument."""
    count = len(request.messages)
    if not 1 <= count <= REQUEST_MESSAGES:
        raise InvalidArgument(
            f"a publish request has 1 to {REQUEST_MESSAGES:,} messages; this one has {count:,}"
        )
    _check_most("a publish request", raw(request).ByteSize(), REQUEST_BYTES)
    for message in request.messages:
        _check_message(message)


def check_ack_ids(request: types.AcknowledgeRequest | types.ModifyAckDeadlineRequest) -> None:
    """Raises InvalidArgument."""
    if not request.ack_ids:
        raise InvalidArgument("no ack ids specified")
    _check_most("a request with ack ids", raw(request).ByteSize(), ACK_REQUEST_BYTES)


def check_extensions(seconds: Sequence[int]) -> None:
    """Raises InvalidArgument."""
    for each in seconds:
        if each not in EXTENSION_SECONDS:
            raise InvalidArgument(f"an ack deadline is modified to 0 to 600 seconds, not {each}")


def check_ack_seconds(seconds: int) -> None:
    """Raises InvalidArgument."""
    if seconds not in ACK_SECONDS:
        raise InvalidArgument(f"an ack deadline is 10 to 600 seconds, not {seconds}")


def _check_message(message: types.PubsubMessage) -> None:
    if not message.data and not message.attributes:
        raise InvalidArgument("a message must have data or at least one attribute")
    _check_most("the data of a message", len(message.data), MESSAGE_BYTES)
    _check_most("an ordering key", len(message.ordering_key.encode()), ORDERING_KEY_BYTES)
    if len(message.attributes) > ATTRIBUTES:
        raise InvalidArgument(
            f"a message has at most {ATTRIBUTES} attributes; this one has {len(message.attributes)}"
        )
    for key, value in message.attributes.items():
        _check_attribute(key, value)


def _check_attribute(key: str, value: str) -> None:
    if not key:
        raise InvalidArgument("the key of an attribute must not be empty")
    if key.startswith("goog"):
        raise InvalidArgument(f"the key of an attribute must not begin with goog: {key}")
    _check_most("the key of an attribute", len(key.encode()), ATTRIBUTE_KEY_BYTES)
    _check_most("the value of an attribute", len(value.encode()), ATTRIBUTE_VALUE_BYTES)


def _check_most(what: str, size: int, most: int) -> None:
    if size > most:
        raise InvalidArgument(f"{what} has at most {most:,} bytes; this one has {size:,}")
