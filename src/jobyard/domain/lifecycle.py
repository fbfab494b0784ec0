"""The state machine: what a job's status may become, why, and who decides.

Everything here is pure. Functions take values and return a Change; none reads a clock, a database or a log.
`MOVES` is the whole truth about the states: the documentation draws it, the store is tested against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, assert_never

from jobyard.domain.errors import WrongState
from jobyard.domain.retry import Backoff


class Status(StrEnum):
    """Where a job stands. A closed type: no other value is ever stored or shown."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a job is failed; set with that status and with no other."""

    NON_RETRYABLE = "non_retryable"
    EXHAUSTED = "exhausted"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEPENDENCY_FAILED = "dependency_failed"


class Cause(StrEnum):
    """What made a job move. Every Reason is also the cause of the move that set it."""

    CLAIM = "claim"
    RETURNED = "returned"
    RETRY = "retry"
    RELEASE = "release"
    ORPHAN = "orphan"
    CRASH = "crash"
    REDRIVE = "redrive"
    NON_RETRYABLE = "non_retryable"
    EXHAUSTED = "exhausted"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEPENDENCY_FAILED = "dependency_failed"


MOVES: Mapping[tuple[Status, Status], frozenset[Cause]] = {
    (Status.PENDING, Status.PROCESSING): frozenset({Cause.CLAIM}),
    (Status.PROCESSING, Status.COMPLETED): frozenset({Cause.RETURNED}),
    (Status.PROCESSING, Status.FAILED): frozenset(
        {Cause.NON_RETRYABLE, Cause.EXHAUSTED, Cause.TIMEOUT, Cause.CRASHED, Cause.CANCELLED}
    ),
    (Status.PROCESSING, Status.PENDING): frozenset({Cause.RETRY, Cause.RELEASE, Cause.ORPHAN, Cause.CRASH}),
    (Status.PENDING, Status.FAILED): frozenset({Cause.CANCELLED, Cause.EXPIRED, Cause.DEPENDENCY_FAILED}),
    (Status.FAILED, Status.PENDING): frozenset({Cause.REDRIVE}),
}

DEAD_LETTER_REASONS = frozenset({Reason.EXHAUSTED, Reason.NON_RETRYABLE, Reason.TIMEOUT, Reason.CRASHED})
"""A job failed for one of these is a dead letter until it is redriven or purged."""

CRASHES_ALLOWED = 3
"""The charged crash with this number fails the job."""

TRUSTED, SUSPECT, SOLITARY = 0, 1, 2
"""Suspect levels: none; was in flight when a worker or its own process died, and runs in a process of its own from now
on; was so when a worker died twice, and from now on a worker runs one such at a time, and its death is charged to it."""


CANCELLED_WHILE_PENDING = {"type": "Cancelled", "message": "cancelled before it ran"}
CANCELLED_WHILE_RUNNING = {"type": "Cancelled", "message": "cancelled while it ran"}
"""What is kept as the error of a cancelled job."""


def is_final(status: Status) -> bool:
    return status in (Status.COMPLETED, Status.FAILED)


def cancel(status: Status) -> Status:
    """What a cancel makes of a job: FAILED at once, or PROCESSING still, where an attempt has to be asked. Raises
    WrongState."""
    if is_final(status):
        raise WrongState(f"the job is {status.value}; only a pending or processing job can be cancelled")
    return Status.FAILED if status is Status.PENDING else Status.PROCESSING


def redrive(status: Status) -> Status:
    """What a redrive makes of a job. Raises WrongState."""
    if status is not Status.FAILED:
        raise WrongState(f"the job is {status.value}; only a failed job can be tried again")
    return Status.PENDING


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned. `result` is JSON text, or None for nothing to keep."""

    result: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised. Tried again while tries are left."""

    error: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Retry:
    """A handler's value: try again `after` seconds from now (None: by the job's backoff). It counts as a try."""

    after: float | None = None
    message: str = "the handler asked for a retry"


@dataclass(frozen=True, slots=True)
class Fail:
    """A handler's value: this job can never succeed, do not try again."""

    message: str
    type: str = "Fail"


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt ran longer than the job's `timeoutSeconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt was asked to end, and did so without completing the job."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process that ran this attempt, and no other, died of it. `how`: a sentence that says in which way."""

    how: str


Outcome = Succeeded | Failed | Retry | Fail | TimedOut | Cancelled | Crashed


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rules need to know of an attempt in flight, read from its locked row or held by its worker."""

    attempt: int
    max_attempts: int
    crashes: int
    suspect: int
    backoff: Backoff

    @property
    def is_last(self) -> bool:
        return self.attempt >= self.max_attempts


class Change(NamedTuple):
    """What becomes of a job when an attempt ends.

    `attempt` is the number of tries that count from now on; `run_in` is seconds until it may run again
    (None when it is final); `error` is what the attempt leaves on record.
    """

    status: Status
    cause: Cause
    attempt: int
    crashes: int = 0
    suspect: int = TRUSTED
    run_in: float | None = None
    result: str | None = None
    error: Mapping[str, Any] | None = None

    @property
    def reason(self) -> Reason | None:
        return Reason(self.cause.value) if self.status is Status.FAILED else None


def settle(standing: Standing, outcome: Outcome, chance: float) -> Change:
    """The Change for an attempt that ended in its worker's hands, which also ends any suspicion of it, except by a
    crash.

    `chance` is a random number in [0, 1) that spreads retries.
    """
    match outcome:
        case Succeeded(result):
            return complete(standing.attempt, standing.crashes, result)
        case Fail(message, kind):
            return _failed(standing, Cause.NON_RETRYABLE, {"type": kind, "message": message})
        case Failed(error):
            return _try_again(standing, Cause.EXHAUSTED, error, chance)
        case Retry(after, message):
            return _try_again(standing, Cause.EXHAUSTED, {"type": "Retry", "message": message}, chance, after)
        case TimedOut(seconds):
            error = {"type": "Timeout", "message": f"the attempt ran longer than {seconds:g} s"}
            return _try_again(standing, Cause.TIMEOUT, error, chance)
        case Cancelled():
            return _failed(standing, Cause.CANCELLED, CANCELLED_WHILE_RUNNING)
        case Crashed(how):
            return crash(standing, chance, how)
        case _:
            assert_never(outcome)


def complete(attempt: int, crashes: int, result: str | None) -> Change:
    """The Change for an attempt whose handler returned."""
    return Change(Status.COMPLETED, Cause.RETURNED, attempt, crashes, TRUSTED, None, result)


def release(standing: Standing) -> Change:
    """Hand an attempt back unburnt: same count, same suspicion, at once."""
    return Change(
        Status.PENDING, Cause.RELEASE, standing.attempt - 1, standing.crashes, standing.suspect, run_in=0.0
    )


def abandon(standing: Standing, chance: float) -> Change:
    """The Change for an attempt whose worker is gone.

    Nobody knows which of a dead worker's attempts was to blame, so all go back at once and uncharged, one
    suspect level up. One that stood under suspicion twice already is charged.
    """
    if standing.suspect < SOLITARY:
        return Change(
            Status.PENDING,
            Cause.ORPHAN,
            standing.attempt - 1,
            standing.crashes,
            standing.suspect + 1,
            run_in=0.0,
            error={"type": "Orphan", "message": "the worker stopped renewing its lease"},
        )
    return crash(standing, chance, "the worker died while running this job")


def crash(standing: Standing, chance: float, how: str) -> Change:
    """The Change for an attempt that is known to have killed the process it ran in: charged, but no try.

    `how` is a sentence without its full stop; the error on record adds which crash it was.
    """
    crashes = standing.crashes + 1
    error = {"type": "Crash", "message": f"{how} (crash {crashes} of {CRASHES_ALLOWED})"}
    level = max(standing.suspect, SUSPECT)
    if crashes >= CRASHES_ALLOWED:
        return Change(Status.FAILED, Cause.CRASHED, standing.attempt, crashes, level, error=error)
    return Change(
        Status.PENDING,
        Cause.CRASH,
        standing.attempt - 1,
        crashes,
        level,
        run_in=standing.backoff.delay(crashes, chance),
        error=error,
    )


def _try_again(
    standing: Standing, last: Cause, error: Mapping[str, Any], chance: float, after: float | None = None
) -> Change:
    if standing.is_last:
        return _failed(standing, last, error)
    delay = standing.backoff.delay(standing.attempt, chance) if after is None else after
    return Change(Status.PENDING, Cause.RETRY, standing.attempt, standing.crashes, run_in=delay, error=error)


def _failed(standing: Standing, cause: Cause, error: Mapping[str, Any]) -> Change:
    return Change(Status.FAILED, cause, standing.attempt, standing.crashes, error=error)
