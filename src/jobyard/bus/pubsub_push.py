"""What Google Pub/Sub pushes, as a message."""

from __future__ import annotations

import base64
import binascii

import msgspec

from jobyard.bus import pubsub_wire as wire
from jobyard.ports import Message


class _PushedMessage(msgspec.Struct, rename="camel"):
    data: str = ""
    attributes: dict[str, str] = {}
    message_id: str = ""


class _Push(msgspec.Struct, rename="camel"):
    message: _PushedMessage
    subscription: str = ""
    delivery_attempt: int = 0


class NoPush(ValueError):
    """The body is not what Pub/Sub pushes."""


class Pushed(msgspec.Struct, frozen=True):
    """`message` is None where somebody else put it into the topic. `attempt`: 0 where Pub/Sub does not count."""

    id: str
    message: Message | None
    subscription: str
    attempt: int


def pushed(body: bytes) -> Pushed:
    """Raises NoPush."""
    from google.pubsub_v1 import types

    try:
        push = msgspec.json.decode(body, type=_Push)
        data = base64.b64decode(push.message.data, validate=True)
        found = types.PubsubMessage({"data": data, "attributes": push.message.attributes})
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as wrong:
        raise NoPush(f"no push of Pub/Sub: {type(wrong).__name__}") from wrong
    try:
        message = wire.message_of(found)
    except wire.NotOurs:
        message = None
    return Pushed(push.message.message_id, message, push.subscription, push.delivery_attempt)
