"""Wake-ups over LISTEN and NOTIFY, with a clock that moves only when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import asyncpg
import pytest

from jobyard.bus.listener import CHANNEL, CHECK_SECONDS, Listener, parse_wake
from jobyard.clock import ManualClock
from jobyard.ports import WakeUp
from jobyard.store.database import Connection
from logged import Log, logged
from worker.yard import until

ANY = WakeUp()


@pytest.mark.parametrize(
    ("message", "wake"),
    [
        ("1,2|3", WakeUp(frozenset({1, 2}), frozenset({3}))),
        ("7|*", WakeUp(frozenset({7}))),
        ("*|*", ANY),
        ("|", ANY),
        ("", ANY),
        ("5", WakeUp(frozenset({5}))),
        ("|9,10", WakeUp(workers=frozenset({9, 10}))),
        ("garbage", ANY),
        ("1,|2", ANY),
        ("1|2|3", ANY),
        ("1.5|2", ANY),
        ('{"lanes":[1]}', ANY),
        ("1,2,\0|3", ANY),
    ],
)
def test_a_message_names_lanes_and_workers_and_garbage_wakes_everybody(message: str, wake: WakeUp) -> None:
    assert parse_wake(message) == wake


@dataclass
class Heard:
    bus: Listener
    clock: ManualClock
    db: Connection
    wakes: list[WakeUp] = field(default_factory=list[WakeUp])

    async def listening(self) -> None:
        await until(lambda: self.bus.healthy, "it listens")

    async def pid(self) -> int | None:
        return await self.db.fetchval(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'jobyard listener'"
        )

    async def notify(self, message: str) -> None:
        await self.db.execute("SELECT pg_notify($1, $2)", CHANNEL, message)

    async def next_wake(self, after: int) -> WakeUp:
        await until(lambda: len(self.wakes) > after, "a wake-up arrives")
        return self.wakes[after]

    async def pass_time_until_it_listens_again(self) -> None:
        """Its checks notice the loss, its pauses pass, and it is back."""
        await until(lambda: self._advance_until(healthy=False), "the loss is noticed")
        await until(lambda: self._advance_until(healthy=True), "it listens again")

    async def _advance_until(self, *, healthy: bool) -> bool:
        await self.clock.advance(CHECK_SECONDS)
        return self.bus.healthy is healthy


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as log:
        yield log


@pytest.fixture
async def heard(log: Log, database: str, connection: Connection) -> AsyncIterator[Heard]:
    clock = ManualClock()
    bus = Listener(database, clock)
    heard = Heard(bus, clock, connection)
    async with bus.subscribe(heard.wakes.append):
        await heard.listening()
        yield heard
    assert not bus.healthy


async def test_it_wakes_once_when_it_begins_and_then_with_every_message(heard: Heard) -> None:
    assert heard.wakes == [ANY]
    await heard.notify("3,4|8")
    assert await heard.next_wake(1) == WakeUp(frozenset({3, 4}), frozenset({8}))
    await heard.notify("what is this?")
    assert await heard.next_wake(2) == ANY


async def test_its_own_checks_wake_nobody(heard: Heard) -> None:
    for _ in range(3):
        await until(lambda: heard.clock.sleepers, "it waits for its next check")
        await heard.clock.advance(CHECK_SECONDS)
        await until(lambda: heard.clock.sleepers, "the check passed")
    assert heard.wakes == [ANY]
    assert heard.bus.healthy


async def test_a_listener_that_was_cut_off_listens_again_and_wakes_for_what_it_missed(heard: Heard) -> None:
    before = await heard.pid()
    await heard.db.execute("SELECT pg_terminate_backend($1)", before)
    await heard.pass_time_until_it_listens_again()
    assert await heard.pid() != before
    assert heard.wakes == [ANY, ANY]
    await heard.notify("1|2")
    assert await heard.next_wake(2) == WakeUp(frozenset({1}), frozenset({2}))


async def test_only_after_a_loss_it_says_that_it_is_back(heard: Heard, log: Log) -> None:
    assert log.facts == []
    await heard.db.execute("SELECT pg_terminate_backend($1)", await heard.pid())
    await heard.pass_time_until_it_listens_again()
    assert [facts["event"] for facts in log.facts] == ["listener.lost", "listener.back"]


async def test_a_connection_that_froze_without_a_reset_is_noticed_by_its_check(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server no longer hears: its LISTEN is gone, and its connection stands."""
    monkeypatch.setattr("jobyard.bus.listener.CHECK_SECONDS", 0.05)
    original = asyncpg.Connection.execute

    async def unheard(self: asyncpg.Connection, query: str, *args: object, **more: object) -> str:
        return "SELECT 1" if "pg_notify" in query else await original(self, query, *args, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", unheard)
    await until(lambda: heard.clock.sleepers, "it waits for its next check")
    await heard.clock.advance(CHECK_SECONDS)
    await until(lambda: not heard.bus.healthy, "the silence is noticed")
    monkeypatch.setattr(asyncpg.Connection, "execute", original)
    await until(lambda: heard._advance_until(healthy=True), "it listens again")
    assert len(heard.wakes) >= 2


async def test_it_waits_for_a_database_that_is_not_there_yet(connection: Connection, database: str) -> None:
    clock = ManualClock()
    bus = Listener(database.replace("/test_", "/absent_"), clock)
    wakes: list[WakeUp] = []
    async with bus.subscribe(wakes.append):
        for _ in range(3):
            await until(lambda: clock.sleepers, "it waits")
            assert not bus.healthy
            await clock.advance(CHECK_SECONDS)
        bus._url = database  # now it is there
        await until(lambda: clock.sleepers, "it waits")
        await clock.advance(CHECK_SECONDS)
        await until(lambda: bus.healthy, "it listens")
    assert wakes == [ANY]


async def test_the_end_of_a_subscription_closes_its_connection(heard: Heard, database: str) -> None:
    async with Listener(database, ManualClock()).subscribe(lambda _: None):
        await until(lambda: heard.db.fetchval(
            "SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jobyard listener'"
        ), "two listen")  # fmt: skip
    await until(lambda: heard.db.fetchval(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'jobyard listener'"
    ), "one listens")  # fmt: skip
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "listener" and task.done()]
