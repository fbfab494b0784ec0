"""`jobyard bench`: figures of this machine, always beside the limit of raw SQL in the same run."""

from __future__ import annotations

import asyncio
import gc
import sys

import msgspec
import uvloop

from jobyard.config import Settings


def run(scenario: str, jobs: int | None, as_json: bool, settings: Settings) -> int:
    """Run one scenario and print its report; the exit code."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # the load's own pauses are not the server's
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(scenario, jobs, as_json, settings))


async def _run(scenario: str, jobs: int | None, as_json: bool, settings: Settings) -> int:
    from jobyard.bench.report import as_text, machine, versions
    from jobyard.bench.scenarios import SCENARIOS
    from jobyard.bench.stage import stage

    play, usual_jobs = SCENARIOS[scenario]
    async with stage(settings) as made:
        report = await play(made, jobs or usual_jobs, settings)
        report.machine, report.versions = machine(), versions(made.postgres_version)
    text = msgspec.json.encode(report).decode() if as_json else as_text(report)
    sys.stdout.write(text + "\n")
    return 0
