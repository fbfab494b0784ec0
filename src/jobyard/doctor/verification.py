"""Tells every broken promise that the rows and the log of a database show, while it goes on working."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import aclosing

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jobyard.doctor.patient import Patient
from jobyard.process import FAILED, OK
from jobyard.store import audit, audit_log
from jobyard.store.audit import MEANING, Found

SHOWN = 100
"""Violations told one by one; the others are counted."""

WALKS = {"jobs": audit.jobs, "places": audit.places, "events": audit_log.events}
GOOD = "each job is in exactly one place, and each attempt had one owner and one end"
ADVICE = "docs/reliability.md says what to do"


async def verify(patient: Patient, as_json: bool) -> int:
    report = await _read(patient)
    sys.stdout.write(report.as_json() if as_json else report.as_text())
    return FAILED if report.counts else OK


class Report:
    """What was looked at and what was found. Only the first violations are kept, so memory stays flat."""

    def __init__(self) -> None:
        self.examined = dict.fromkeys(WALKS, 0)
        self.counts: Counter[str] = Counter()
        self.found: list[Found] = []

    def add(self, what: str, page: audit.Page) -> None:
        self.examined[what] += page.examined
        self.counts.update(found.violation.value for found in page.found)
        self.found += page.found[: SHOWN - len(self.found)]

    def as_json(self) -> str:
        return (
            json.dumps(
                {
                    "examined": self.examined,
                    "violations": dict(self.counts),
                    "found": msgspec.to_builtins(self.found),
                }
            )
            + "\n"
        )

    def as_text(self) -> str:
        lines = [f"{_whose(found)}  {found.evidence}: {MEANING[found.violation]}" for found in self.found]
        if (more := self.counts.total() - len(self.found)) > 0:
            lines.append(f"and {more:,} more")
        counts = [f"{count:,} {what}" for what, count in self.examined.items()]
        looked = f"{', '.join(counts[:-1])} and {counts[-1]}"
        verdict = f"{self.counts.total():,} violations; {ADVICE}" if self.counts else GOOD
        return "\n".join([*lines, f"looked at {looked}: {verdict}"]) + "\n"


def _whose(found: Found) -> str:
    return f"{found.job} run {found.run}" if found.run else str(found.job)


async def _read(patient: Patient) -> Report:
    report = Report()
    with Progress(
        TextColumn("looking at {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        for what, walk in WALKS.items():
            bar = progress.add_task(what, total=await audit.about_how_many(patient.connection, what))
            async with aclosing(walk(patient.connection)) as pages:
                async for page in pages:
                    report.add(what, page)
                    progress.advance(bar, page.examined)
    return report
