"""No order of the statements of two or three operations breaks a rule, and the rules are missed when they are gone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from jobyard.store import dead_letters, dispatch, upkeep, verbs
from jobyard.store.statements import statement
from store.interleaved import OPERATIONS, WORLDS, pairs_of, through_every_order
from store.scene import Scene

TRIPLES = {
    ("beat", "sweep", "claim"): "expiring",
    ("try again", "redrive", "claim"): "live",
}
LONG_TRIPLES = {
    ("cancel running", "release", "claim of another"): "live",
    ("cancel due", "promote", "claim"): "live",
    ("cancel ready", "claim", "claim of another"): "live",
    ("settle", "release", "sweep"): "overdue",
    ("cancel running", "settle", "sweep"): "overdue",
    ("cancel running", "retry", "sweep"): "dead",
    ("cancel running", "cancel running", "release"): "live",
    ("try again", "redrive", "purge"): "live",
}
"""Up to thousands of orders each."""


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("kind", WORLDS)
async def test_no_order_of_two_operations_breaks_a_rule(
    scene: Scene, kind: str, first: str, record_property: Callable[[str, object], None]
):
    explored = {
        pair: await through_every_order(scene, kind, pair) for pair in pairs_of(kind) if pair[0] == first
    }
    record_property("orders", sum(explored.values()))
    # Fewest are four: one of two that end in a wait for the other, both ways round.
    assert all(orders >= 4 for orders in explored.values()), explored


@pytest.mark.parametrize(
    ("names", "kind"),
    [*TRIPLES.items(), *(pytest.param(*it, marks=pytest.mark.soak) for it in LONG_TRIPLES.items())],
    ids=str,
)
async def test_no_order_of_three_operations_breaks_a_rule(
    scene: Scene, names: tuple[str, ...], kind: str, record_property: Callable[[str, object], None]
):
    explored = await through_every_order(scene, kind, names)
    record_property("orders", explored)
    assert explored > 20


LEASE_GUARD = r" AND (a\.)?lease = u\.lease"
REMOVED = {
    "settle without its lease": (("settle",), LEASE_GUARD, "late", ("settle", "beat")),
    "settle without its lock": (("settle",), "FOR UPDATE", "live", ("settle", "release")),
    "hand back without a lease": (("lock_held", "back"), LEASE_GUARD, "late", ("retry", "beat")),
    "hand back without a lock": (("lock_held", "back"), "FOR UPDATE", "live", ("retry", "settle")),
    "sweep without a lock": (("lock_abandoned", "back"), "FOR UPDATE", "dead", ("settle", "sweep")),
    "claim without a lock on its worker": (("claim",), " FOR KEY SHARE", "expiring", ("claim", "sweep")),
    "cancel without a lock": (("cancel_running",), " FOR KEY SHARE", "live", ("cancel running", "release")),
    "redrive twice": (("redrive",), r"\n    ON CONFLICT DO NOTHING", "live", ("redrive", "try again")),
    "verbs without a lock": (("lock_jobs",), " FOR NO KEY UPDATE", "live", ("purge", "redrive")),
    "purge of a job that lives again": (
        ("retention_delete",),
        r"WHERE NOT EXISTS \(.*\)\n",
        "live",
        ("purge", "redrive"),
    ),
    "settle that tells nobody": (("settle",), r"\), told AS \(\n(    .*\n)+", "live", ("settle", "beat")),
}
"""Statements, what is cut out of them, and a world and a pair in which it is missed."""


@pytest.mark.parametrize("guard", REMOVED)
async def test_the_harness_notices_a_guard_that_is_missing(
    scene: Scene, guard: str, monkeypatch: pytest.MonkeyPatch
):
    names, text, kind, pair = REMOVED[guard]

    def without(name: str) -> str:
        cut, found = re.subn(text, "", statement(name))
        assert bool(found) or name not in names
        return cut if name in names else statement(name)

    await through_every_order(scene, kind, pair)
    monkeypatch.setattr(dispatch, "statement", without)
    monkeypatch.setattr(upkeep, "statement", without)
    monkeypatch.setattr(verbs, "statement", without)
    monkeypatch.setattr(dead_letters, "statement", without)
    with pytest.raises(AssertionError) as noticed:
        await through_every_order(scene, kind, pair)
    print(noticed.value)  # noqa: T201 - shows with -s what each guard prevents
