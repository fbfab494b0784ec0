"""What a client asks for, and the limits within which it may ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from jobyard.domain.retry import Backoff

DEFAULT_TENANT = 1
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
DEFAULT_MAX_ATTEMPTS = 5
DEFAULT_TIMEOUT_SECONDS = 3600.0

MAX_PRIORITY = 9
MAX_ATTEMPTS = 100
MAX_NAME_LENGTH = 128
MAX_TAGS = 20
MAX_TAG_LENGTH = 64
MAX_METADATA_BYTES = 4096
MAX_TIMEOUT_SECONDS = 7 * 86400.0
MAX_DELAY_SECONDS = 366 * 86400.0
MAX_BACKOFF_SECONDS = 30 * 86400.0
MAX_BULK_JOBS = 1000
MAX_LANES_PER_TENANT = 10_000
MAX_ERROR_MESSAGE_BYTES = 64 * 1024
IDEMPOTENCY_HOURS = 24

NAME_PATTERN = r"^[A-Za-z0-9_.:/@+-]+$"
"""Of types and queues: no character that a log line, an URL or a metric label would have to escape."""


class LaneKey(NamedTuple):
    """What a claim chooses between: pause, priority, fairness and suspicion are choices about lanes."""

    tenant: int
    queue: str
    type: str
    priority: int
    suspect: int = 0

    def at_level(self, suspect: int) -> LaneKey:
        return (
            self
            if suspect == self.suspect
            else LaneKey(self.tenant, self.queue, self.type, self.priority, suspect)
        )


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """`digest` is the sha256 of method, path and raw body: the same key with another digest is refused."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as asked for. `payload` is the client's own JSON text; `tags` and `metadata` are JSON text or None."""

    id: UUID
    type: str
    payload: str
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    backoff: Backoff = Backoff()
    run_at: datetime | None = None
    delay_seconds: float | None = None
    tags: str | None = None
    metadata: str | None = None
    trace: str | None = None
    idempotency: IdempotencyKey | None = None
    tenant: int = DEFAULT_TENANT

    @property
    def lane(self) -> LaneKey:
        return LaneKey(self.tenant, self.queue, self.type, self.priority)
