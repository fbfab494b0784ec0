"""One run: start everything, let clients create and the monkey break, then be quiet, and count.

`python -m chaos.run --seconds 60 --seed 7` in the folder of the tests runs it by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop

from chaos.audit import audit, note
from chaos.brokers import Brokers, a_bad_one, none, several
from chaos.clients import Clients, Ledger, Pace
from chaos.fleet import Fleet, fleet
from chaos.follower import Follower
from chaos.monkey import LONGEST_STOP_SECONDS, Monkey
from chaos.report import Report
from chaos.switcher import Switcher
from e2e.server_process import new_home
from processes.program import COMMAND, environment

READY_SECONDS = 60.0
STUCK_SECONDS = 60.0
"""Without a single job becoming final, once the faults have ended: what is left then will never end."""

UNFINISHED = """
SELECT (SELECT count(*) FROM jobyard.ready) + (SELECT count(*) FROM jobyard.active)
     + (SELECT count(*) FROM jobyard.scheduled)
"""


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float
    jobs: int
    seed: int
    per_second: float
    single: int = 4
    bulk: int = 1
    bulk_jobs: int = 50
    fault_every_seconds: float = 2.0
    lease_seconds: float = 2.0
    concurrency: int = 4
    """Of each worker: after a crash it runs as many children at a time, which cost far more than the jobs."""
    durable: bool = False
    broker: bool = False
    """Jobs are announced over a message broker, a bad one, which is killed now and then, too."""
    switches: bool = False
    """No faults, but from one bus to another and back, by rolling restarts."""


def silently(_: str) -> None:
    pass


def run(plan: Plan, say: Callable[[str], None] = silently) -> Report:
    with new_home() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_run(plan, folder, say))
        except Exception as trouble:
            trouble.add_note(f"{plan}")
            raise


async def _run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Report:
    async with (
        _brokers(plan, folder) as brokers,
        fleet(
            folder,
            lease_seconds=plan.lease_seconds,
            concurrency=plan.concurrency,
            durable=plan.durable,
            brokers=brokers,
        ) as under_fire,
    ):
        await _ready(under_fire)
        began = time.monotonic()
        pace = Pace(plan.per_second, plan.seconds, plan.jobs)
        clients = Clients(under_fire.api_urls, pace, plan.seed)
        if brokers.switches:
            monkey = Switcher(under_fire, brokers.switches)
        else:
            monkey = Monkey(under_fire, plan.seed, plan.fault_every_seconds)
        telling = asyncio.create_task(_tell(say, pace, clients.ledger, monkey))
        async with asyncio.TaskGroup() as all_at_once:
            all_at_once.create_task(clients.run(single=plan.single, bulk=plan.bulk, bulk_jobs=plan.bulk_jobs))
            all_at_once.create_task(monkey.run(lambda: pace.over))
        seconds = time.monotonic() - began
        telling.cancel()
        say("no more faults; waiting for the end of all jobs")
        drained_seconds = await _until_quiet(under_fire)
        say("counting")
        report = await _report(plan, under_fire, clients.ledger, monkey, seconds, drained_seconds)
        if brokers.meddler is not None and brokers.follower is not None:
            report.meddled = dict(brokers.meddler.done)
            await _hear_out(brokers.follower, under_fire, report)
        return report


async def _hear_out(follower: Follower, under_fire: Fleet, report: Report) -> None:
    connection = await under_fire.connect()
    missing = await follower.missing(connection)
    await connection.close()
    report.events, report.repeated_events = len(follower.heard), follower.repeats
    if missing:
        report.overdue.append(f"events that nobody was told of ({len(missing)}): {', '.join(missing[:5])}")


def _brokers(plan: Plan, folder: Path) -> AbstractAsyncContextManager[Brokers]:
    if plan.broker:
        return a_bad_one(folder, plan.seed)
    return several(folder) if plan.switches else none()


async def _ready(under_fire: Fleet) -> None:
    async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as http:
        for url in under_fire.api_urls:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"{url}/readyz")).is_success:
                        break
                await asyncio.sleep(0.05)


async def _tell(say: Callable[[str], None], pace: Pace, ledger: Ledger, monkey: Monkey | Switcher) -> None:
    while True:
        await asyncio.sleep(30)
        passed = time.monotonic() - pace.began
        say(f"{passed:.0f} s: {len(ledger.accepted):,} accepted, {len(monkey.done)} faults")


async def _until_quiet(under_fire: Fleet) -> float:
    """How many seconds it took until no job was pending or processing, or none ended any more."""
    began = progressed = time.monotonic()
    left = -1
    connection = await under_fire.connect()
    while left and time.monotonic() - progressed < STUCK_SECONDS:
        await asyncio.sleep(0.2)
        now_left = await connection.fetchval(UNFINISHED)
        if now_left != left:
            left, progressed = now_left, time.monotonic()
    await connection.close()
    return time.monotonic() - began


async def _report(
    plan: Plan,
    under_fire: Fleet,
    ledger: Ledger,
    monkey: Monkey | Switcher,
    seconds: float,
    drained_seconds: float,
) -> Report:
    connection = await under_fire.connect()
    await note(connection, ledger.accepted, ledger.seen)
    await connection.copy_records_to_table(
        "fault",
        schema_name="chaos",
        records=[(fault.kind, fault.pid, fault.began, fault.ended) for fault in monkey.done],
    )
    found = await audit(connection)
    await connection.close()
    verified, verdict = await _verify(under_fire.url)
    ends: dict[str, Counter[int]] = {}
    for member in under_fire.members:
        ends.setdefault(member.role, Counter()).update(member.ends)
    slowest_stop = max(monkey.stop_seconds, default=0.0)
    return Report(
        plan.seed,
        seconds,
        found,
        ledger.refused,
        ledger.asked_again,
        ledger.unanswered,
        verdict,
        verified,
        {role: dict(counts) for role, counts in ends.items()},
        slowest_stop,
        drained_seconds,
        [f"a process took {slowest_stop:.1f} s to end by SIGTERM"]
        if slowest_stop > LONGEST_STOP_SECONDS
        else [],
    )


async def _verify(url: str) -> tuple[bool, str]:
    """What `jobyard verify` says of the database."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "verify",
        env=environment(DATABASE_URL=url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode == 0, output.decode().strip()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--jobs", type=int, default=0)
    options.add_argument("--per-second", type=float, default=100)
    options.add_argument("--bulk-jobs", type=int, default=50)
    options.add_argument("--fault-every", type=float, default=2.0)
    options.add_argument("--concurrency", type=int, default=4)
    options.add_argument("--broker", action="store_true", help="announce jobs over a bad message broker")
    options.add_argument("--switches", action="store_true", help="change the bus, without other faults")
    options.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = options.parse_args()
    plan = Plan(
        given.seconds,
        given.jobs,
        given.seed,
        given.per_second,
        bulk_jobs=given.bulk_jobs,
        fault_every_seconds=given.fault_every,
        concurrency=given.concurrency,
        broker=given.broker,
        switches=given.switches,
    )
    report = run(plan, lambda text: print(text, file=sys.stderr))  # noqa: T201 - it is a program
    print(report.as_text(), report.as_json(), sep="\n")  # noqa: T201
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
