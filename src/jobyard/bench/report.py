"""What a scenario measured, and how it is told."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version

import msgspec

NOT_MEASURED = None


class Report(msgspec.Struct, rename="camel", kw_only=True):
    """One run of one scenario. Figures that a scenario does not have are null.

    `ratio` is ours over the raw limit of the same run, or what the scenario's own description says.
    """

    scenario: str
    jobs: int
    jobs_per_second: float | None = NOT_MEASURED
    raw_jobs_per_second: float | None = NOT_MEASURED
    ratio: float | None = NOT_MEASURED
    p50_ms: float | None = NOT_MEASURED
    p99_ms: float | None = NOT_MEASURED
    wal_bytes_per_job: float | None = NOT_MEASURED
    cpu_microseconds_per_job: float | None = NOT_MEASURED
    details: dict[str, float | str] = {}
    machine: dict[str, str | int] = {}
    versions: dict[str, str] = {}


def machine() -> dict[str, str | int]:
    return {"cores": os.cpu_count() or 0, "system": platform.system(), "architecture": platform.machine()}


def versions(postgres: str) -> dict[str, str]:
    return {"jobyard": version("jobyard"), "python": platform.python_version(), "postgresql": postgres}


def percentile(milliseconds: Sequence[float], percent: int) -> float | None:
    if len(milliseconds) < 2:
        return NOT_MEASURED
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[percent - 1]


def as_text(report: Report) -> str:
    """A line a figure, for people."""
    rows = [
        ("jobs", f"{report.jobs:,}"),
        ("jobs/s", _number(report.jobs_per_second)),
        ("raw limit jobs/s", _number(report.raw_jobs_per_second)),
        ("ratio", _number(report.ratio, 2)),
        ("p50 ms", _number(report.p50_ms, 2)),
        ("p99 ms", _number(report.p99_ms, 2)),
        ("WAL bytes a job", _number(report.wal_bytes_per_job)),
        ("worker CPU us a job", _number(report.cpu_microseconds_per_job, 1)),
        *(
            (name, value if isinstance(value, str) else _number(value, 2))
            for name, value in report.details.items()
        ),
    ]
    shown = [f"  {name:<24} {value}" for name, value in rows if value]
    place = " ".join(f"{name} {value}" for name, value in {**report.machine, **report.versions}.items())
    return "\n".join([f"{report.scenario}  ({place})", *shown])


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
