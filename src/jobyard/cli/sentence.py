"""How a job stands, in a few words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from jobyard.cli.failure import headline
from jobyard.cli.times import age, duration, moment

if TYPE_CHECKING:
    from jobyard.client import Job


def change(job: Job) -> str:
    """A line for the log of a watcher."""
    said = f"{moment(job.updated_at)}  {job.id}  {job.status:<10}  {tries(job)}"
    progress = how_far(job.progress) if job.progress and job.status == "processing" else ""
    return "  ".join(part for part in (said.rstrip(), progress, headline(job.error)) if part)


def standing(job: Job) -> str:
    """A line for a view that is drawn again and again."""
    return f"{job.status:<10}  " + ", ".join(part for part in (tries(job), _since(job)) if part)


def tries(job: Job) -> str:
    run = f"run {job.run}, " if job.run and job.run > 1 else ""
    reason = f", {job.reason}" if job.reason else ""
    if job.status == "pending":
        return f"{run}{job.attempt or 0} of {job.max_attempts} tries used{_due(job.run_at)}"
    return f"{run}try {job.attempt} of {job.max_attempts}{reason}"


def how_far(told: Any) -> str:
    """What a handler says of its progress, as `77 %, step 538`; either part may be missing."""
    if not isinstance(told, dict):
        return str(told)
    facts = cast("dict[str, Any]", told)
    percent = facts.get("percent")
    share = f"{percent:.0f} %" if isinstance(percent, int | float) else ""
    return ", ".join(filter(None, (share, str(facts.get("message") or ""))))


def _due(at: datetime | None) -> str:
    wait = (at - datetime.now(UTC)).total_seconds() if at else 0
    return f", next in {duration(wait)}" if wait > 0 else ""


def _since(job: Job) -> str:
    """How long it has been so; nothing where the time to come says more."""
    if job.updated_at is None or _due(job.run_at):
        return ""
    return (
        f"{age(job.updated_at)} ago"
        if job.status in ("completed", "failed")
        else f"for {age(job.updated_at)}"
    )
