"""What a worker and its child processes tell each other, and how it travels: frames of msgpack, each after its length.

Whoever adds a kind of message adds a Struct with a tag to one of the two unions, and a case where they are heard.
"""

from __future__ import annotations

import msgspec

from jobyard.domain.lifecycle import Fail, Failed, Outcome, Retry, Succeeded
from jobyard.store.dispatch import Claimed
from jobyard.worker.link import Told

LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 1 << 30
"""Larger than any payload or result that can be allowed: a length beyond it is not ours."""


class Run(msgspec.Struct, tag="run", frozen=True):
    """To a child: run this attempt."""

    attempt: Claimed


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """To a child: let go of the attempt with this lease, if it is still the one that runs."""

    lease: int


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """From a child: it has its handlers, and takes attempts."""


class Unfit(msgspec.Struct, tag="unfit", frozen=True):
    """From a child: it cannot start, and ends."""

    why: str


class Begun(msgspec.Struct, tag="begun", frozen=True):
    """From a child: from now on what becomes of it is this attempt's doing."""

    lease: int


class Over(msgspec.Struct, tag="over", frozen=True, omit_defaults=True):
    """From a child: how the attempt ended; one of the outcomes is there."""

    lease: int
    succeeded: Succeeded | None = None
    failed: Failed | None = None
    retry: Retry | None = None
    fail: Fail | None = None

    @classmethod
    def of(cls, lease: int, outcome: Outcome) -> Over:
        match outcome:
            case Succeeded():
                return cls(lease, succeeded=outcome)
            case Failed():
                return cls(lease, failed=outcome)
            case Retry():
                return cls(lease, retry=outcome)
            case Fail():
                return cls(lease, fail=outcome)
            case _:
                raise TypeError(f"only a worker can say that an attempt ended so: {outcome}")

    @property
    def outcome(self) -> Outcome:
        """Raises ValueError where there is none."""
        for outcome in (self.succeeded, self.failed, self.retry, self.fail):
            if outcome is not None:
                return outcome
        raise ValueError("the end of an attempt without its outcome")


class Said(msgspec.Struct, tag="said", frozen=True):
    """From a child: what the attempt tells while it runs."""

    lease: int
    told: Told


ToChild = Run | Stop
FromChild = Ready | Unfit | Begun | Said | Over

_encode = msgspec.msgpack.Encoder().encode
_to_child: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)

heard_by_child = _to_child.decode
"""What the bytes of a message to a child say. Raises ValueError where they are none."""

heard_by_worker = _from_child.decode
"""What the bytes of a message from a child say. Raises ValueError where they are none."""


def frame(message: ToChild | FromChild) -> bytes:
    """The message as it travels."""
    text = _encode(message)
    return len(text).to_bytes(LENGTH_BYTES) + text


def length(head: bytes) -> int:
    """How many bytes follow this head of a frame. Raises ValueError where it is none of ours."""
    size = int.from_bytes(head)
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return size
