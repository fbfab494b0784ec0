"""What whoever uses an event bus may rely on, whichever it is."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from contract.adapters import Broker, those_that
from jobyard.ports import BusUnavailable, Delivery, EventBus, Message, MessageTooLarge, Subscription
from processes.program import environment, running
from worker.yard import until

TESTS = Path(__file__).parents[1]
TOPIC = "orders"
SOON = 15.0
"""Seconds in which what must come has come. Pub/Sub leaves what was lost on a connection to it for ten."""

PROMPTLY = 5.0
"""Seconds in which what needs nobody's time to be over has come."""

QUIET = 0.4
"""Seconds after which what did not come does not come."""


def some(count: int, key: str = "", begin: int = 0) -> list[Message]:
    return [Message(f"{key}{n}", f"body {n}".encode(), key) for n in range(begin, begin + count)]


def shared(name: str = "mailer", **terms: float) -> Subscription:
    return Subscription(TOPIC, name, **terms)  # type: ignore[arg-type]


async def next_of(deliveries: AsyncIterator[Delivery]) -> Delivery:
    async with asyncio.timeout(SOON):
        return await anext(deliveries)


async def acked(deliveries: AsyncIterator[Delivery], count: int) -> list[Message]:
    """The next so many messages, each acked."""
    found: list[Message] = []
    for _ in range(count):
        delivery = await next_of(deliveries)
        await delivery.ack()
        found.append(delivery.message)
    return found


async def is_quiet(deliveries: AsyncIterator[Delivery], seconds: float = QUIET) -> bool:
    """Nothing comes. Ends the iterator."""
    try:
        async with asyncio.timeout(seconds):
            await anext(deliveries)
    except TimeoutError:
        return True
    return False


async def test_what_is_published_comes_to_each_subscription_as_it_was(bus: EventBus) -> None:
    subscriptions = [shared("mailer"), shared("billing")]
    await bus.ensure(TOPIC, subscriptions)
    messages = [
        Message("1", b"", "", {}),
        Message("2", b"\0\xff", "key ü", {"type": "job.completed", "odd": "ü\n\"'"}),
        Message("3", b"x" * 200_000, "k" * 200),
        Message("4", b"1", " *.> /\r\n", {" a: b ": " padded\t", "": ""}),
        Message("5 *.>\n", bytes(min(bus.capabilities.largest_message, 1_000_000))),
    ]
    await bus.publish(TOPIC, messages)
    for subscription in subscriptions:
        async with bus.subscribe(subscription, 10) as deliveries:
            found = await acked(deliveries, 5)
        assert sorted(found, key=lambda it: it.id) == messages


async def test_a_subscription_has_what_is_published_from_its_making_on(bus: EventBus) -> None:
    await bus.ensure(TOPIC)
    await bus.publish(TOPIC, some(3))
    await bus.ensure(TOPIC, [shared()])
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(2, begin=3))
    async with bus.subscribe(shared(), 10) as deliveries:
        assert {it.id for it in await acked(deliveries, 2)} == {"3", "4"}
        assert await is_quiet(deliveries)


@pytest.mark.parametrize("name", ["a.b *>/\\é\n", "..", "Jobs", "jobs", "%2E"])
async def test_topics_and_subscriptions_may_have_any_name(bus: EventBus, name: str) -> None:
    odd, plain = Subscription(name, name), Subscription("2E", "2E")
    await bus.ensure(name, [odd])
    await bus.ensure("2E", [plain])
    await bus.publish(name, some(1))
    async with bus.subscribe(odd, 1) as deliveries, bus.subscribe(plain, 1) as others:
        assert await acked(deliveries, 1) == some(1)
        assert await is_quiet(others)


async def test_what_a_consumer_had_that_was_killed_comes_to_another(broker: Broker, tmp_path: Path) -> None:
    bus, subscription = broker.another(), shared(ack_seconds=1.0)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, some(3))
    command = [sys.executable, "-m", "contract.consumer", *broker.address]
    with running(command, environment(**broker.environment), tmp_path / "output", TESTS) as killed:
        await until(lambda: len(killed.said.split()) == 3, "it has all of them", SOON)
        killed.tell(signal.SIGKILL)
        await killed.end()
    async with bus.subscribe(subscription, 10) as deliveries:
        assert sorted(await acked(deliveries, 3), key=lambda it: it.id) == some(3)


async def test_to_ensure_it_again_with_other_terms_changes_and_loses_nothing(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared(ack_seconds=0.5)])
    await bus.publish(TOPIC, some(2))
    await bus.ensure(TOPIC, [shared(ack_seconds=60), shared("late")])
    async with bus.subscribe(shared(ack_seconds=60), 10) as deliveries:
        assert {(await next_of(deliveries)).message.id for _ in range(2)} == {"0", "1"}
        assert {(await next_of(deliveries)).message.id for _ in range(2)} == {"0", "1"}
    async with bus.subscribe(shared("late"), 10) as deliveries:
        assert await is_quiet(deliveries)


async def test_subscribers_of_one_subscription_share_its_messages(broker: Broker) -> None:
    first, second = broker.another(), broker.another()
    await first.ensure(TOPIC, [shared()])
    async with first.subscribe(shared(), 5) as one, second.subscribe(shared(), 5) as other:
        await first.publish(TOPIC, some(10))
        found = [await next_of(deliveries) for _ in range(5) for deliveries in (one, other)]
        assert {it.message.id for it in found} == {str(n) for n in range(10)}
        for delivery in found:
            await delivery.ack()


async def test_what_is_acked_never_comes_again(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared(ack_seconds=0.3)])
    await bus.publish(TOPIC, some(5))
    async with bus.subscribe(shared(), 10) as deliveries:
        await acked(deliveries, 5)
        assert await is_quiet(deliveries, 0.8)
    async with broker.another().subscribe(shared(), 10) as deliveries:
        assert await is_quiet(deliveries)


async def test_what_is_neither_acked_nor_extended_comes_again_to_another(broker: Broker) -> None:
    bus = broker.another()
    subscription = shared(ack_seconds=0.5)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(subscription, 1) as deliveries:
        first = await next_of(deliveries)
        async with broker.another().subscribe(subscription, 1) as others:
            again = await next_of(others)
            assert (again.message, first.attempt, again.attempt) == (first.message, 1, 2)
            await first.ack()
            await first.nack()
            await first.extend(60)
            await again.ack()
            await again.ack()
            assert await is_quiet(others, 0.8)


@pytest.mark.parametrize(
    "say",
    [lambda it: it.ack(), lambda it: it.nack(), lambda it: it.extend(60)],
    ids=["ack", "nack", "extend"],
)
async def test_what_is_said_too_late_changes_nothing(
    bus: EventBus, say: Callable[[Delivery], Awaitable[None]]
) -> None:
    subscription = shared(ack_seconds=0.6)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(subscription, 3) as deliveries:
        first, second = await next_of(deliveries), await next_of(deliveries)
        began = time.monotonic()
        await say(first)
        third = await next_of(deliveries)
        assert time.monotonic() - began > 0.3, "it came again before the time of who has it was over"
        assert [it.attempt for it in (first, second, third)] == [1, 2, 3]
        await third.ack()


async def test_what_is_extended_stays_in_the_same_hands(bus: EventBus) -> None:
    subscription = shared(ack_seconds=0.5)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(subscription, 2) as deliveries:
        delivery = await next_of(deliveries)
        await delivery.extend(30)
        assert await is_quiet(deliveries, 1.2)
        await delivery.ack()


@pytest.mark.parametrize("delay", [0.0, 0.6])
async def test_what_is_handed_back_comes_again_after_its_time(bus: EventBus, delay: float) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(shared(), 2) as deliveries:
        first = await next_of(deliveries)
        began = time.monotonic()
        await first.nack(delay)
        again = await next_of(deliveries)
        assert again.attempt == 2
        if bus.capabilities.delays:
            assert time.monotonic() - began >= delay - 0.05
        await again.ack()


async def test_no_more_are_out_than_were_asked_for(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(10))
    async with bus.subscribe(shared(), 3) as deliveries:
        out = [await next_of(deliveries) for _ in range(3)]
        async with asyncio.timeout(SOON), broker.another().subscribe(shared(), 10) as others:
            rest = [await next_of(others) for _ in range(7)]
        assert len({it.message.id for it in (*out, *rest)}) == 10


@pytest.mark.parametrize("broker", those_that("orders"), indirect=True)
async def test_messages_of_one_key_come_in_order_where_the_bus_can(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, [it for pair in zip(some(20, "a"), some(20, "b"), strict=True) for it in pair])
    seen: dict[str, list[str]] = {"a": [], "b": []}
    is_back: set[str] = set()
    async with AsyncExitStack() as stack:
        sources = [
            await stack.enter_async_context(it.subscribe(shared(), 10)) for it in (bus, broker.another())
        ]

        async def read(deliveries: AsyncIterator[Delivery]) -> None:
            async for delivery in deliveries:
                message = delivery.message
                if message.id not in is_back and message.id in ("a7", "b3"):
                    is_back.add(message.id)
                    await delivery.nack(0.05)
                    continue
                seen[message.key].append(message.id)
                await delivery.ack()
                if sum(map(len, seen.values())) == 40:
                    over.set()

        over = asyncio.Event()
        readers = [asyncio.create_task(read(deliveries)) for deliveries in sources]
        async with asyncio.timeout(2 * SOON):
            await over.wait()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    assert seen == {key: [f"{key}{n}" for n in range(20)] for key in "ab"}


@pytest.mark.parametrize("broker", those_that("deduplicates"), indirect=True)
async def test_a_repeated_id_comes_once_where_the_bus_can(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared()])
    for _ in range(3):
        await bus.publish(TOPIC, some(2))
    async with bus.subscribe(shared(), 10) as deliveries:
        await acked(deliveries, 2)
        await bus.publish(TOPIC, some(2))
        assert await is_quiet(deliveries)


@pytest.mark.parametrize("broker", those_that("sets_aside"), indirect=True)
async def test_poison_is_set_aside_and_holds_up_nobody(bus: EventBus) -> None:
    subscription = shared(max_deliveries=2)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, [Message("poison", b"", "k"), Message("good", b"", "k"), *some(3)])
    attempts: list[int] = []
    good: set[str] = set()
    async with bus.subscribe(subscription, 10) as deliveries:
        while len(good) < 4 or len(attempts) < 2:
            delivery = await next_of(deliveries)
            if delivery.message.id == "poison":
                attempts.append(delivery.attempt)
                await delivery.nack()
            else:
                good.add(delivery.message.id)
                await delivery.ack()
        assert await is_quiet(deliveries)
    assert (attempts, good) == ([1, 2], {"good", "0", "1", "2"})


async def test_one_message_that_is_too_large_keeps_its_whole_batch_back(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared()])
    large = Message("large", bytes(bus.capabilities.largest_message + 1))
    with pytest.raises(MessageTooLarge, match="large"):
        await bus.publish(TOPIC, [*some(2), large])
    async with bus.subscribe(shared(), 10) as deliveries:
        assert await is_quiet(deliveries)


async def test_who_leaves_hands_on_what_is_open(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared(ack_seconds=60)])
    await bus.publish(TOPIC, some(3))
    async with bus.subscribe(shared(ack_seconds=60), 10) as deliveries:
        await next_of(deliveries)
    async with broker.another().subscribe(shared(), 10) as others, asyncio.timeout(PROMPTLY):
        assert len(await acked(others, 3)) == 3


async def test_after_its_connections_were_cut_it_goes_on_and_nothing_is_lost(broker: Broker) -> None:
    bus = broker.another()
    subscription = shared(ack_seconds=1)
    await bus.ensure(TOPIC, [subscription])
    async with bus.subscribe(subscription, 4) as deliveries:
        await bus.publish(TOPIC, some(10))
        found = {it.id for it in await acked(deliveries, 3)}
        async with broker.cut():
            pass
        while len(found) < 10:
            delivery = await next_of(deliveries)
            found.add(delivery.message.id)
            await delivery.ack()


async def test_while_it_is_away_a_publish_says_so_and_then_all_goes_on(broker: Broker) -> None:
    bus, newcomer = broker.another(), broker.another()
    await bus.ensure(TOPIC, [shared()])
    async with bus.subscribe(shared(), 4) as deliveries:
        await bus.publish(TOPIC, some(1))
        await acked(deliveries, 1)
        assert bus.healthy
        async with broker.away():
            async with asyncio.timeout(SOON):
                told = await asyncio.gather(
                    *(it.publish(TOPIC, some(1, begin=1)) for it in (bus, newcomer)), return_exceptions=True
                )
            assert [type(it) for it in told] == [BusUnavailable] * 2
            assert (bus.healthy, newcomer.healthy) == (False, False)
        async with asyncio.timeout(SOON):
            while True:
                try:
                    await bus.publish(TOPIC, some(1, begin=2))
                    break
                except BusUnavailable:
                    continue
        while (await acked(deliveries, 1))[0].id != "2":
            continue
        assert bus.healthy


async def test_what_publish_returned_for_outlives_the_broker(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared(ack_seconds=1)])
    await bus.publish(TOPIC, some(20))
    async with bus.subscribe(shared(ack_seconds=1), 5) as deliveries:
        done = {it.id for it in await acked(deliveries, 5)}
        async with broker.away():
            pass
        left: set[str] = set()
        while len(done | left) < 20:
            left |= {it.id for it in await acked(deliveries, 1)}
    assert not done & left


async def test_what_others_put_into_the_topic_stops_nobody(broker: Broker) -> None:
    bus = broker.another()
    await bus.ensure(TOPIC, [shared()])
    could = await broker.litter(TOPIC)
    await bus.publish(TOPIC, some(3))
    async with bus.subscribe(shared(), 2) as deliveries:
        assert {it.id for it in await acked(deliveries, 3)} == {"0", "1", "2"}
        assert not could or await is_quiet(deliveries)
