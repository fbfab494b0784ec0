"""The store does what the model of the lifecycle says, whatever is asked of it in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jobyard.store import database as db
from store.guards import cut_out
from store.machine import Machine
from store.scene import Scene

SUITE = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    # The first failure is told as it was found: to look for a shorter one takes minutes, and is left to the soak.
    phases=[Phase.generate],
    report_multiple_bugs=False,
    # A step is a conversation with a real database, beside other tests: how long it takes says nothing.
    suppress_health_check=[HealthCheck.too_slow],
)
SOAK = settings(
    SUITE,
    max_examples=3000,
    stateful_step_count=100,
    derandomize=False,
    phases=[Phase.generate, Phase.shrink],
)

GUARDS = settings(SUITE, max_examples=1000)
"""As many as it takes to meet what a guard prevents: the first ends it."""

Stage = tuple[asyncio.Runner, Scene]


@pytest.fixture
def stage(worn_database: str) -> Iterator[Stage]:
    """A loop that goes on from step to step, and the connections that live in it."""

    async def opened() -> Scene:
        connection = await db.connect(worn_database, hot=True, name="model")
        pool = await db.open_pool(worn_database, size=1, hot=True, name="model")
        return Scene(worn_database, pool, connection)

    with asyncio.Runner() as runner:
        scene = runner.run(opened())
        yield runner, scene
        runner.run(scene.pool.close())
        runner.run(scene.db.close())


@pytest.mark.parametrize("effort", [SUITE, pytest.param(SOAK, marks=pytest.mark.soak)], ids=["suite", "soak"])
def test_the_store_does_what_the_model_says(stage: Stage, effort: settings):
    run_state_machine_as_test(lambda: Machine(*stage), settings=effort)


LEASE_GUARD = r" AND (a\.)?lease = u\.lease"
REMOVED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "settle without its lease": (("settle",), LEASE_GUARD, ""),
    "hand back without a lease": (("lock_held", "back"), LEASE_GUARD, ""),
    "hand back that overlooks a cancel": (("back",), r"WHERE c\.job = a\.job", "WHERE false"),
    "a cancel that outlives its run": (("back",), r" AND c\.run = a\.run", ""),
    "claim by a dead worker": (("claim",), r" AND expires_at > now\(\)", ""),
    "claim that does not count": (("claim",), r"attempt \+ 1, crashes\n", "attempt, crashes\n"),
    "beat of a dead worker": (("worker_beat",), r" AND expires_at > now\(\)", ""),
    "sweep without deadlines": (("lock_abandoned",), r"a\.deadline <= now\(\)\s+OR ", ""),
    "promote before it is due": (
        ("promote",),
        r"WHERE run_at <= coalesce\(\$2, now\(\)\)",
        "WHERE $2::timestamptz IS NOT NULL",
    ),
    "redrive of a run that did not fail": (("redrive",), r"WHERE d\.status = 'failed'", ""),
    "redrive twice": (
        ("redrive",),
        "ON CONFLICT DO NOTHING ",
        "ON CONFLICT (job, run) DO UPDATE SET at = now() ",
    ),
    "purge of a job that lives again": (("retention_delete",), r"WHERE NOT EXISTS \(.*\)", ""),
    "a key that is used again within its day": (("create",), r"\n\s+WHERE i\.expires_at < now\(\)", ""),
    "progress of a lost lease": (("progress_put",), r"job = u\.job AND lease = u\.lease", "job = u.job"),
    "an attempt that leaves no record": (
        ("back",),
        "FROM ended WHERE reason IS NULL\n\\), forgotten",
        "FROM ended WHERE false\n), forgotten",
    ),
}
"""Statements, what is cut out of them, and what stands there instead."""


RARELY_MET = {
    "a cancel that outlives its run",
    "beat of a dead worker",
    "hand back that overlooks a cancel",
    "purge of a job that lives again",
    "redrive of a run that did not fail",
    "redrive twice",
}
"""What these prevent needs some hundred examples to come about."""


@pytest.mark.parametrize(
    "guard",
    [pytest.param(it, marks=pytest.mark.soak) if it in RARELY_MET else it for it in REMOVED],
)
def test_the_model_notices_a_guard_that_is_missing(stage: Stage, guard: str, monkeypatch: pytest.MonkeyPatch):
    cut_out(monkeypatch, *REMOVED[guard])
    with pytest.raises(Exception) as noticed:
        run_state_machine_as_test(lambda: Machine(*stage), settings=GUARDS)
    print(repr(noticed.value)[:500])  # noqa: T201 - shows with -s what each guard prevents
