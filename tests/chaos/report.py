"""What a run of the harness found, as text for people and as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from chaos.audit import Audit

INTENDED = "retry after NotYet"
"""The cause of second starts that handlers ask for by failing."""


@dataclass(slots=True)
class Report:
    seed: int
    seconds: float
    audit: Audit
    refused: list[str]
    asked_again: int
    unanswered: int
    verify: str
    verified: bool
    ends: dict[str, dict[int, int]]
    """How often a process of each role ended with which code."""
    slowest_stop: float
    drained_seconds: float
    """From the last fault's end until all jobs were final."""
    overdue: list[str] = field(default_factory=list[str])
    meddled: dict[str, int] = field(default_factory=dict[str, int])
    """What became of so many announcements."""
    events: int = 0
    repeated_events: int = 0
    """That another service heard of, and of those again."""

    @property
    def faults(self) -> int:
        return sum(fault["count"] for fault in self.audit.faults)

    @property
    def violations(self) -> list[str]:
        found = [
            f"{what} ({count}): {', '.join(jobs)}" for what, (count, jobs) in self.audit.violations.items()
        ]
        found += [f"an answer that no fault excuses: {answer}" for answer in self.refused[:10]]
        found += self.overdue
        return found if self.verified else [*found, f"jobyard verify: {self.verify}"]

    def _count(self, word: str) -> int:
        return sum(count for what, (count, _) in self.audit.violations.items() if what.startswith(word))

    def _per_million(self, count: int) -> float:
        return round(count * 1e6 / max(1, self.audit.figures["accepted"]), 1)

    @property
    def second_starts(self) -> dict[str, float]:
        """Per million accepted jobs, by cause."""
        counts: dict[str, int] = {}
        for cause, _, count in self.audit.second_starts:
            if cause != INTENDED:
                counts[cause] = counts.get(cause, 0) + count
        return {cause: self._per_million(count) for cause, count in counts.items()}

    def as_json(self) -> str:
        known: dict[str, Any] = asdict(self) | {
            "violations": self.violations,
            "lost": self._count("lost"),
            "two_outcomes": self._count("two outcomes"),
            "second_starts_per_million": self.second_starts,
        }
        return json.dumps(known, default=str)

    def as_text(self) -> str:
        f = self.audit.figures
        again = self.second_starts
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s under {self.faults} faults",
            f"  jobs accepted               {f['accepted']:>10,}   ({f['per_second']:,.0f} ended a second)",
            f"  lost                        {self._count('lost'):>10,}",
            f"  not final                   {self._count('not final'):>10,}",
            f"  with two outcomes in a run  {self._count('two outcomes'):>10,}",
            f"  transactions done twice     {self._count('done twice'):>10,}   of {f['payments']:,}",
            f"  completed / failed          {f['completed']:>10,} / {f['failed']:,}   (crashed: {f['crashed']:,})",
            f"  second starts per million   {sum(again.values()):>10,.0f}   "
            + ", ".join(f"{cause} {count:,.0f}" for cause, count in again.items()),
            *(
                f"    {cause + ', ' + after:<50} {count:>7,}"
                for cause, after, count in self.audit.second_starts
                if cause != INTENDED
            ),
            f"  time to the end             p50 {f['p50']:.3f} s, p99 {f['p99']:.2f} s, slowest {f['slowest']:.1f} s",
            f"  worst recovery              {f['worst_recovery']:.1f} s from a worker's kill to the next start of its jobs",
            f"  longest pause               {f['longest_pause']:.1f} s with no job ending; all final {self.drained_seconds:.1f} s after the faults",
            f"  slowest end by SIGTERM      {self.slowest_stop:.1f} s",
            f"  clients                     {self.unanswered:,} requests without answer, {self.asked_again:,} jobs or requests asked for again",
            *(
                [
                    f"  announcements               {', '.join(f'{n:,} {way}' for way, n in self.meddled.items())}",
                    f"  events told to others       {self.events:>10,}   ({self.repeated_events:,} of them again)",
                ]
                if self.meddled
                else []
            ),
            "  faults                      how often, the longest, and the longest wait for the next completed job",
            *(
                f"    {it['kind']:<24} {it['count']:>5}   {it['lasted']:>5.1f} s   {it['next_completed']:>5.1f} s"
                for it in self.audit.faults
            ),
            f"  processes ended             {self._ends()}",
            f"  jobyard verify              {self.verify}",
            f"  violations                  {len(self.violations):>10,}",
            *(f"    {violation}" for violation in self.violations),
        ]
        return "\n".join(lines)

    def _ends(self) -> str:
        return "; ".join(
            f"{role} " + ", ".join(f"{count} x {code}" for code, count in sorted(ends.items()))
            for role, ends in sorted(self.ends.items())
        )
