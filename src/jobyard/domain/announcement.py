"""What is said over an event bus of a job that has become ready, and under which names things travel there."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from uuid import UUID

LARGEST_NUMBER = 2**63 - 1
LARGEST_LANE = 2**31 - 1


class NotAnAnnouncement(ValueError):
    """Somebody else put it into the topic."""


class Announcement(NamedTuple):
    """The job stands in this lane at this place, or stood there when it was said. Only a hint: who hears it claims what is
    really there."""

    job: UUID
    lane: int
    seq: int

    def encoded(self) -> bytes:
        return b'{"job":"%s","lane":%d,"seq":%d}' % (str(self.job).encode(), self.lane, self.seq)

    @classmethod
    def decoded(cls, body: bytes) -> Announcement:
        """Raises NotAnAnnouncement."""
        try:
            said: Any = json.loads(body)
            job, lane, seq = UUID(said["job"]), said["lane"], said["seq"]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as trouble:
            raise NotAnAnnouncement(type(trouble).__name__) from trouble
        if not (_is_number(lane, LARGEST_LANE) and _is_number(seq, LARGEST_NUMBER)):
            raise NotAnAnnouncement("no place")
        return cls(job, lane, seq)


def _is_number(value: object, largest: int) -> bool:
    return type(value) is int and 0 < value <= largest


def jobs_topic(namespace: str, type: str) -> str:
    """Where jobs of this type are announced."""
    return f"{namespace}.jobs.{type}"


def workers_subscription(namespace: str, type: str) -> str:
    """Which all workers of this type share."""
    return f"{namespace}.workers.{type}"


def events_topic(namespace: str) -> str:
    """Where the events of all jobs go."""
    return f"{namespace}.events"
