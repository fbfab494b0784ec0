"""Which jobs a test means, and what to say when they are not the ones it expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, cast

import msgspec

from jobyard.testing.jobs import Job

LISTED = 20
"""Jobs that a message lists, at most."""

SHOWN_CHARACTERS = 200
"""Of one value in a message, at most."""

ANYTHING: Any = object()


class Facts(TypedDict, total=False):
    """What else may be asked of a job. `tags` and `metadata` have to be there among others, the rest to be equal."""

    queue: str
    priority: int
    status: str
    reason: str | None
    run_at: datetime | None
    attempt: int
    max_attempts: int
    timeout_seconds: float
    result: Any
    error: Any
    tags: Sequence[str]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The jobs of a type, with a payload that holds at least this, and these facts. Raises TypeError for a fact that
    no job has."""

    type: str | None
    payload: Any
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        if unknown := sorted(self.facts.keys() - Facts.__annotations__.keys()):
            raise TypeError(
                f"jobs are not told apart by {', '.join(unknown)}; by {', '.join(Facts.__annotations__)} they are"
            )

    def among(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not self.differences(job)]

    def differences(self, job: Job) -> list[str]:
        """Where the job is another than the wanted one, the most telling first."""
        found: list[str] = []
        if self.type is not None and job.type != self.type:
            found.append(f"type is {job.type!r}, not {self.type!r}")
        if self.payload is not ANYTHING:
            found += _differences("payload", self.payload, job.payload)
        for name, value in self.facts.items():
            found += _differences(name, value, getattr(job, name))
        return found

    def __str__(self) -> str:
        kind = "job" if self.type is None else f"{self.type!r} job"
        asked = [] if self.payload is ANYTHING else [f"payload {_shown(self.payload)}"]
        asked += [f"{name} {_shown(value)}" for name, value in self.facts.items()]
        return " with ".join([kind, ", ".join(asked)]) if asked else kind


def listed(jobs: Sequence[Job], title: str) -> str:
    """The jobs, one a line, under a title that counts them."""
    if not jobs:
        return "No job was created at all."
    lines = [f"{title} ({len(jobs)}):"]
    lines += [f"  {job.type} {_shown(job.payload)}{_where(job)}" for job in jobs[:LISTED]]
    if len(jobs) > LISTED:
        lines.append(f"  and {len(jobs) - LISTED} more")
    return "\n".join(lines)


def nearest_miss(wanted: Wanted, jobs: Sequence[Job]) -> str:
    """The job that differs least, and where."""
    if not jobs:
        return ""
    nearest = min(jobs, key=lambda job: (job.type != wanted.type, len(wanted.differences(job))))
    return "\n".join(
        [f"The nearest is {nearest}, but:", *(f"  {each}" for each in wanted.differences(nearest))]
    )


def _where(job: Job) -> str:
    queue = "" if job.queue == "default" else f" in queue {job.queue}"
    return f"{queue} ({job.reason or job.status})"


def _differences(path: str, wanted: Any, held: Any) -> Iterator[str]:
    if isinstance(wanted, msgspec.Struct):
        wanted = msgspec.to_builtins(wanted)
    if isinstance(wanted, Mapping) and isinstance(held, Mapping):
        members, there = cast("Mapping[str, Any]", wanted), cast("Mapping[str, Any]", held)
        for name, value in members.items():
            if name in there:
                yield from _differences(f"{path}.{name}", value, there[name])
            else:
                yield f"{path} has no {name!r}"
    elif path == "tags":
        yield from (f"tags have no {tag!r}" for tag in cast("list[str]", wanted) if tag not in (held or ()))
    elif not wanted == held:  # noqa: SIM201 - what a test wants may be a matcher that answers to == alone
        yield f"{path} is {_shown(held)}, not {_shown(wanted)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
