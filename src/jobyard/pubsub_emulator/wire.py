"""What the message classes of the official client can do, which come without types for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

T = TypeVar("T")


def raw(message: object) -> Message:
    """The message under it: what is written there, is written here."""
    return cast("Any", type(message)).pb(message)


def reader(kind: type[T]) -> Callable[[bytes], T]:
    return cast("Any", kind).deserialize


def writer(kind: type[T]) -> Callable[[T], bytes]:
    return cast("Any", kind).serialize
