"""A worker whose leases are lost takes its slots back from handlers that do not let go, and writes nothing for them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jobyard.worker.slots import Ended
from worker.yard import MakeBench, until


async def test_a_handler_that_swallows_its_cancellation_loses_its_slot_after_a_lost_lease(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.worker.runner.CANCEL_PATIENCE_SECONDS", 0.05)
    let_go, started = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    yard = bench(stubborn, 1)
    yard.start(lease=1)
    await started.wait()
    yard.runner.end_all(Ended.BY_LEASE_LOSS)
    await until(lambda: not yard.runner.slots.running, "the slot is free")
    assert yard.runner.handlers_at_work
    assert yard.endings == [], "what is lost is another worker's to write"
    let_go.set()
    await until(lambda: not yard.runner.handlers_at_work, "the handler has let go")
    assert yard.endings == []


async def test_a_thread_that_goes_on_after_a_lost_lease_counts_as_stuck_until_it_returns(
    bench: MakeBench,
) -> None:
    let_go, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        let_go.wait(20)

    yard = bench(block, 1)
    yard.start(lease=1, timeout_seconds=0.2)
    try:
        await until(started.is_set, "the thread runs")
        yard.runner.end_all(Ended.BY_LEASE_LOSS)
        await until(lambda: not yard.runner.slots.running, "the slot is free at its time limit")
        assert yard.runner.stuck_threads == 1
    finally:
        let_go.set()
    await until(lambda: yard.runner.stuck_threads == 0, "the thread has returned")
    assert yard.endings == []
