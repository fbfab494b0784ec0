"""What the client gives, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.text import Text

from jobyard.cli.failure import headline, with_traceback
from jobyard.cli.sentence import how_far
from jobyard.cli.table import STATUS_STYLES, Column, Row
from jobyard.cli.times import age, ago, duration, moment, until

if TYPE_CHECKING:
    from jobyard.client import Attempt, Counts, Event, Job, LogLine, Pace, Queue, Stats, Worker

JOB_COLUMNS = (
    Column("ID", whole=True),
    Column("STATUS", whole=True),
    Column("TRIES", whole=True, right=True, optional=True),
    Column("NEXT", whole=True, right=True, optional=True),
    Column("TYPE"),
    Column("QUEUE"),
    Column("AGE", whole=True, right=True),
)
ATTEMPT_COLUMNS = (
    Column("#", whole=True, right=True),
    Column("RUN", whole=True, right=True),
    Column("TRY", whole=True, right=True),
    Column("OUTCOME", whole=True),
    Column("STARTED", whole=True),
    Column("TOOK", whole=True, right=True),
    Column("WORKER"),
)
EVENT_COLUMNS = (
    Column("TIME", whole=True),
    Column("AFTER", whole=True, right=True),
    Column("EVENT"),
    Column("WHAT"),
)
LOG_COLUMNS = (
    Column("TIME", whole=True),
    Column("#", whole=True, right=True),
    Column("RUN", whole=True, right=True),
    Column("TRY", whole=True, right=True),
    Column("LEVEL", whole=True),
    Column("TEXT", whole=True),
)
DEAD_LETTER_COLUMNS = (
    Column("ID", whole=True),
    Column("REASON", whole=True),
    Column("RUN", whole=True, right=True, optional=True),
    Column("TYPE"),
    Column("QUEUE", optional=True),
    Column("FAILED", whole=True, right=True),
)
QUEUE_COLUMNS = (
    Column("QUEUE"),
    Column("TYPE"),
    Column("WORKERS", whole=True, right=True),
    Column("READY", whole=True, right=True),
    Column("SCHEDULED", whole=True, right=True),
    Column("PROCESSING", whole=True, right=True),
    Column("OLDEST", whole=True, right=True),
)
WORKER_COLUMNS = (
    Column("ID", whole=True),
    Column("NAME"),
    Column("STATE", whole=True),
    Column("BUSY", whole=True, right=True),
    Column("TYPES"),
    Column("STARTED", whole=True, right=True),
)
OUTCOME_STYLES = {"completed": "green", "failed": "red", "running": "cyan"}
LEVEL_STYLES = {"debug": "dim", "warning": "yellow", "error": "red"}
ALARM = "red"
LABEL_WIDTH = 11
STALE = timedelta(minutes=1)
"""A maintainer counts every 10 seconds."""


def job_row(job: Job) -> Row:
    return Row(
        (
            job.id,
            job.status,
            "" if job.max_attempts is None else f"{job.attempt or 0}/{job.max_attempts}",
            until(job.run_at) if job.status == "pending" else "",
            job.type,
            job.queue or "",
            age(job.created_at) if job.created_at else "",
        ),
        {"STATUS": STATUS_STYLES.get(job.status, "")},
    )


def attempt_rows(oldest_first: Iterable[Attempt], *, traceback: bool) -> Iterator[Row]:
    """Counted, since attempts that were handed back or crashed carry the same try."""
    for number, attempt in enumerate(oldest_first, 1):
        yield _attempt_row(number, attempt, traceback=traceback)


def _attempt_row(number: int, attempt: Attempt, *, traceback: bool) -> Row:
    outcome = f"{attempt.outcome} ({attempt.reason})" if attempt.reason else attempt.outcome
    took = ""
    if attempt.started_at and attempt.ended_at:
        took = duration((attempt.ended_at - attempt.started_at).total_seconds())
    return Row(
        (
            str(number),
            str(attempt.run),
            str(attempt.attempt),
            outcome,
            moment(attempt.started_at),
            took,
            attempt.worker or "",
        ),
        {"OUTCOME": OUTCOME_STYLES.get(attempt.outcome, "yellow")},
        note="" if traceback else headline(attempt.error),
        block=with_traceback(attempt.error) if traceback else "",
    )


def event_rows(events: list[Event]) -> Iterator[Row]:
    """From the oldest to the newest; AFTER counts from the first."""
    for event in events:
        since = (event.time - events[0].time).total_seconds()
        data: dict[str, Any] = event.data or {}
        yield Row(
            (
                moment(event.time),
                f"+{duration(since)}",
                event.type.removeprefix("job."),
                ", ".join(_facts(data, event.time)),
            ),
            {"EVENT": OUTCOME_STYLES.get(event.type.removeprefix("job."), "")},
            note=headline(data.get("error")),
        )


def _facts(data: dict[str, Any], time: datetime) -> Iterator[str]:
    if data.get("run", 1) > 1:
        yield f"run {data['run']}"
    if data.get("attempt"):  # 0: it ended before anybody tried
        yield f"try {data['attempt']}"
    if "worker" in data:
        yield f"worker {data['worker']}"
    yield from (str(data[name]) for name in ("cause", "reason") if name in data)
    if told := how_far(data):
        yield told
    if "retryAt" in data:
        yield f"next in {duration((datetime.fromisoformat(data['retryAt']) - time).total_seconds())}"


def log_rows(lines: list[LogLine], oldest_first: Iterable[Attempt]) -> Iterator[Row]:
    """Each with its attempt, counted as `attempt_rows` does; a text of several lines goes on beneath itself."""
    of_lease = {it.lease: (str(at), str(it.run), str(it.attempt)) for at, it in enumerate(oldest_first, 1)}
    for line in lines:
        first, *others = line.text.splitlines() or [""]
        attempt = of_lease.get(line.lease, ("", "", ""))
        styles = {"LEVEL": LEVEL_STYLES.get(line.level, "")}
        yield Row((moment(line.at), *attempt, line.level, first), styles)
        yield from (Row(("", "", "", "", "", other), {}) for other in others)


def dead_letter_row(job: Job) -> Row:
    """RUN where it is not the first: somebody has run it again before, in vain."""
    run = str(job.run) if job.run and job.run > 1 else ""
    return Row(
        (job.id, job.reason or "", run, job.type, job.queue or "", ago(job.updated_at)),
        {"REASON": ALARM},
        note=headline(job.error),
    )


def queue_rows(queue: Queue) -> Iterator[Row]:
    """A row a type."""
    for it in queue.types:
        styles = {} if it.workers else {"WORKERS": ALARM}
        yield Row((queue.name, it.type, str(it.workers), *_counts(it)), styles)
    if not queue.types:
        yield Row((queue.name, "", "", *_counts(queue)), {})


def _counts(counts: Counts) -> tuple[str, str, str, str]:
    return (
        f"{counts.ready:,}",
        f"{counts.scheduled:,}",
        f"{counts.processing:,}",
        ago(counts.oldest_ready_at),
    )


def worker_row(worker: Worker) -> Row:
    state = ("busy" if worker.in_flight else "idle") if worker.alive else "gone"
    return Row(
        (
            worker.id,
            worker.name,
            state,
            f"{worker.in_flight}/{worker.concurrency}",
            ", ".join(worker.types),
            ago(worker.started_at),
        ),
        {"STATE": "" if worker.alive else ALARM},
    )


def stats_lines(stats: Stats) -> Iterator[Text]:
    jobs, workers = stats.jobs, stats.workers
    suspects = f", {jobs.suspects:,} suspect" if jobs.suspects else ""
    yield _fact(
        "jobs",
        f"{jobs.ready:,} ready, {jobs.scheduled:,} scheduled, {jobs.processing:,} processing{suspects}",
    )
    yield _fact(
        "oldest", f"ready for {age(jobs.oldest_ready_at)}" if jobs.oldest_ready_at else "none is ready"
    )
    if stats.last_minute and stats.last_minute.seconds >= 1:
        yield _fact(f"last {stats.last_minute.seconds:.0f} s", _pace(stats.last_minute))
    yield _fact(
        "workers",
        f"{workers.live:,} live, {workers.slots:,} slots, {workers.idle:,} idle",
        "" if workers.live else ALARM,
    )
    yield _counted(stats.sampled_at)


def _pace(pace: Pace) -> str:
    return (
        f"{pace.created:,} created, {pace.started:,} started, {pace.completed:,} completed, "
        f"{pace.failed:,} failed, {pace.retry_scheduled:,} retried"
    )


def _counted(at: datetime | None) -> Text:
    if at is None:
        return _fact("counted", "not yet: is `jobyard maintain` running?", ALARM)
    if datetime.now(UTC) - at > STALE:
        return _fact("counted", f"{ago(at)}: is `jobyard maintain` running?", ALARM)
    return _fact("counted", ago(at))


def _fact(name: str, said: str, style: str = "") -> Text:
    return Text(f"{name:<{LABEL_WIDTH}}", "bold").append(said, style or "not bold")
