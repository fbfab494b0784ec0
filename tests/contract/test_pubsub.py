"""What only Google Pub/Sub has: what is made there and checked, what it keeps, its limits, and what it does wrong some day."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from google.pubsub_v1 import types

from contract.adapters import Broker
from contract.pubsub_server import PubsubServer
from contract.test_event_bus import SOON, TOPIC, acked, is_quiet, next_of, shared, some
from jobyard.bus.pubsub import PubsubBus, PubsubMissing
from jobyard.bus.pubsub_connection import Connection, opened
from jobyard.bus.pubsub_wire import DELIVERIES, SOURCE, message_of
from jobyard.clock import SystemClock
from jobyard.ports import BusUnavailable, EventBus, Message, MessageTooLarge
from logged import logged

CUTS_THE_FIRST = 2
"""With this seed half of the streams are cut, beginning with the first response and not the second."""


@pytest.fixture
def bus(pubsub: Broker) -> EventBus:
    return pubsub.another()


@pytest.fixture
async def admin(pubsub_server: PubsubServer, pubsub: Broker) -> AsyncIterator[Connection]:
    at = pubsub_server
    connection = await opened("" if at.is_google else f"{at.host}:{at.port}")
    yield connection
    await connection.channel.close()


@pytest.fixture
def emulator(pubsub_server: PubsubServer) -> Iterator[PubsubServer]:
    """For what only ours can be asked to do."""
    if not pubsub_server.is_ours:
        pytest.skip("another Pub/Sub than the emulator does nothing wrong when it is asked to")
    yield pubsub_server
    pubsub_server.fail()


def names_of(bus: EventBus) -> Any:
    assert isinstance(bus, PubsubBus)
    return bus.names


async def set_aside(admin: Connection, bus: EventBus) -> list[types.PubsubMessage]:
    """The next of what was set aside, which is acked."""
    subscription = names_of(bus).set_aside_subscription
    pulled = await admin.subscriber.pull(subscription=subscription, max_messages=10, timeout=SOON)
    ack_ids = [it.ack_id for it in pulled.received_messages]
    await admin.subscriber.acknowledge(subscription=subscription, ack_ids=ack_ids)
    return [it.message for it in pulled.received_messages]


# What is made, checked and kept


async def test_what_is_made_keeps_order_expires_never_and_sets_aside(
    bus: EventBus, admin: Connection
) -> None:
    with logged() as log:
        for _ in range(2):
            await bus.ensure(TOPIC, [shared("mail.er", ack_seconds=45.5, max_deliveries=7)])
    assert not log.named("subscription.differs")
    names = names_of(bus)
    topic = await admin.publisher.get_topic(topic=names.topic(TOPIC))
    assert topic.message_retention_duration == timedelta(days=7)
    made = await admin.subscriber.get_subscription(subscription=names.subscription(shared("mail.er")))
    assert made.name.endswith("-subscription-orders.mail%2Eer")
    assert made.topic == topic.name
    assert made.ack_deadline_seconds == 46
    assert made.enable_message_ordering
    assert made.message_retention_duration == timedelta(days=31)
    assert not made.expiration_policy.ttl
    assert made.retry_policy.minimum_backoff == timedelta(milliseconds=100)
    assert made.retry_policy.maximum_backoff == timedelta(seconds=10)
    assert made.dead_letter_policy.dead_letter_topic == names.set_aside_topic
    assert made.dead_letter_policy.max_delivery_attempts == 7
    kept = await admin.subscriber.get_subscription(subscription=names.set_aside_subscription)
    assert kept.topic == names.set_aside_topic
    assert not kept.expiration_policy.ttl


async def test_what_pubsub_cannot_count_to_is_as_near_as_it_can(bus: EventBus, admin: Connection) -> None:
    few, many = (
        shared("few", ack_seconds=0.5, max_deliveries=1),
        shared("many", ack_seconds=9000, max_deliveries=999),
    )
    await bus.ensure(TOPIC, [few, many])
    made = [
        await admin.subscriber.get_subscription(subscription=names_of(bus).subscription(it))
        for it in (few, many)
    ]
    assert [it.ack_deadline_seconds for it in made] == [10, 600]
    assert [it.dead_letter_policy.max_delivery_attempts for it in made] == [5, 100]


async def test_many_may_make_it_at_once(pubsub: Broker) -> None:
    several = [pubsub.another() for _ in range(8)]
    await asyncio.gather(*(it.ensure(TOPIC, [shared()]) for it in several))


async def test_a_subscription_that_differs_is_told_and_left_alone(bus: EventBus, admin: Connection) -> None:
    await bus.ensure(TOPIC)
    name, topic = names_of(bus).subscription(shared()), names_of(bus).topic(TOPIC)
    before = await admin.subscriber.create_subscription({"name": name, "topic": topic})
    with logged() as log:
        await bus.ensure(TOPIC, [shared()])
    [told] = log.named("subscription.differs")
    assert (told["level"], told["subscription"]) == ("warning", name)
    assert told["differs"] == (
        "messages of one key come in no order; nothing is set aside; it expires when nobody uses it"
    )
    assert await admin.subscriber.get_subscription(subscription=name) == before


async def test_messages_of_one_key_are_given_out_one_by_one_though_they_come_together(
    bus: EventBus, admin: Connection
) -> None:
    await bus.ensure(TOPIC)
    name, topic = names_of(bus).subscription(shared()), names_of(bus).topic(TOPIC)
    await admin.subscriber.create_subscription({"name": name, "topic": topic})
    await bus.publish(TOPIC, [*some(3, "k"), Message("other", b"")])
    async with bus.subscribe(shared(), 10) as deliveries:
        first, other = await next_of(deliveries), await next_of(deliveries)
        assert [it.message.id for it in (first, other)] == ["k0", "other"]
        await first.nack()
        assert [it.id for it in await acked(deliveries, 3)] == ["k0", "k1", "k2"]


@pytest.mark.parametrize(("most", "by"), [(2, "us"), (5, "Pub/Sub")])
async def test_what_is_set_aside_is_kept_with_all_that_it_was(
    bus: EventBus, admin: Connection, most: int, by: str
) -> None:
    poison = Message("poison", b"\0body", "key", {"odd": " ü\n"})
    subscription = shared("mail.er", max_deliveries=most)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, [poison])
    async with bus.subscribe(subscription, 1) as deliveries:
        for _ in range(most):
            await (await next_of(deliveries)).nack()
        [kept] = await set_aside(admin, bus)
        assert await is_quiet(deliveries)
    assert message_of(kept) == poison
    assert names_of(bus).subscription(subscription).endswith(f"/{kept.attributes[SOURCE]}")
    assert kept.attributes[DELIVERIES] == str(most)


async def test_what_is_no_message_of_ours_is_set_aside_at_once(
    pubsub: Broker, bus: EventBus, admin: Connection
) -> None:
    await bus.ensure(TOPIC, [shared()])
    assert await pubsub.litter(TOPIC)
    async with bus.subscribe(shared(), 2) as deliveries:
        kept: list[types.PubsubMessage] = []
        while len(kept) < 5:
            kept += await set_aside(admin, bus)
        assert await is_quiet(deliveries)
    assert {it.data for it in kept} == {b"\xff"}


# What it takes


@pytest.mark.parametrize(
    "message",
    [
        Message(
            "1", b"body", "k", {"googclient": "1", "jobyard-id": "2", "CloudPubSubDeadLetterSource": "3"}
        ),
        Message("1", b"body", "k", {"long" * 100: "1", "long": "ü" * 1000}),
        Message("1", b"", "", {str(n): "x" for n in range(200)}),
        Message("ü" * 2000, b"{}", "k" * 2000, {}),
        Message("1", b"\0" * 100, "key", {"plain": "one"}),
    ],
    ids=["names of others", "long attributes", "many attributes", "long id and key", "plain"],
)
async def test_what_pubsub_would_refuse_travels_all_the_same(bus: EventBus, message: Message) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, [message])
    async with bus.subscribe(shared(), 1) as deliveries:
        assert await acked(deliveries, 1) == [message]


async def test_others_read_a_plain_message_as_one_of_pubsub(bus: EventBus, admin: Connection) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, [Message("7", b"body", "key", {"type": "job.completed"})])
    name = names_of(bus).subscription(shared())
    [read] = (await admin.subscriber.pull(subscription=name, max_messages=1)).received_messages
    assert (read.message.data, read.message.ordering_key) == (b"body", "key")
    assert dict(read.message.attributes) == {"type": "job.completed", "jobyard-id": "7", "jobyard-key": "key"}


async def test_attributes_count_in_the_size_of_a_message(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared()])
    wordy = Message("wordy", bytes(8_000_000), "", {"a": "x" * 2_000_000})
    with pytest.raises(MessageTooLarge, match="wordy"):
        await bus.publish(TOPIC, [*some(1500), wordy])
    await bus.publish(TOPIC, [Message("after", b"")])
    async with bus.subscribe(shared(), 2) as deliveries:
        assert [it.id for it in await acked(deliveries, 1)] == ["after"]


async def test_more_than_fits_a_request_is_published_in_several(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared()])
    large = [Message(f"large {n}", bytes(4_000_000)) for n in range(3)]
    await bus.publish(TOPIC, [*some(1500), *large])
    async with bus.subscribe(shared(), 1000) as deliveries:
        found = await acked(deliveries, 1503)
    assert {it.id for it in found} == {it.id for it in [*some(1500), *large]}


# Whose it is, and for how long


async def test_a_job_that_takes_longer_than_the_shortest_lease_keeps_its_message(pubsub: Broker) -> None:
    """F28. Pub/Sub leases for ten seconds at first; one message has longer by its subscription, one is extended."""
    bus = pubsub.another()
    long, short = shared("long", ack_seconds=60), shared("short", ack_seconds=1)
    await bus.ensure(TOPIC, [long, short])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(long, 2) as of_long, bus.subscribe(short, 2) as of_short:
        first, other = await next_of(of_long), await next_of(of_short)
        await other.extend(60)
        assert await asyncio.gather(is_quiet(of_long, 11.0), is_quiet(of_short, 11.0)) == [True, True]
        await first.ack()
        await other.ack()


async def test_what_is_late_keeps_its_room_until_it_is_answered(bus: EventBus) -> None:
    subscription = shared(ack_seconds=0.5)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(subscription, 2) as deliveries:
        late = await next_of(deliveries)
        async with asyncio.timeout(5):  # and not after the ten seconds that Pub/Sub would give it
            again = await anext(deliveries)
        assert (again.message, again.attempt) == (late.message, 2)
        await again.extend(60)
        coming = asyncio.ensure_future(anext(deliveries))
        await bus.publish(TOPIC, some(1, begin=1))
        assert not (await asyncio.wait([coming], timeout=0.4))[0]
        await late.ack()
        async with asyncio.timeout(SOON):
            another = await coming
        assert another.message.id == "1"
        await again.ack()
        await another.ack()
        await bus.publish(TOPIC, some(2, begin=2))
        assert {(await next_of(deliveries)).message.id for _ in range(2)} == {"2", "3"}


async def test_what_is_put_off_takes_no_room(bus: EventBus) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(4))
    async with bus.subscribe(shared(), 1) as deliveries:
        for _ in range(3):
            await (await next_of(deliveries)).nack(60)
        await (await next_of(deliveries)).ack()


async def test_what_is_put_off_comes_in_its_time_also_when_who_had_it_has_left(pubsub: Broker) -> None:
    bus = pubsub.another()
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(shared(), 1) as deliveries:
        await (await next_of(deliveries)).nack(1.5)
        began = time.monotonic()
    async with pubsub.another().subscribe(shared(), 1) as others:
        await (await next_of(others)).ack()
    assert 1.5 <= time.monotonic() - began < 5


# What goes wrong some day


async def test_what_comes_twice_is_acked_twice(bus: EventBus, emulator: PubsubServer) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(5))
    emulator.fail(duplicate=0.5, seed=1)
    async with bus.subscribe(shared(), 3) as deliveries:
        found = [it.id for it in await acked(deliveries, 6)]
        emulator.fail()
    assert {it.id for it in some(5)} == set(found)


async def test_a_lost_ack_brings_the_message_again(
    bus: EventBus, emulator: PubsubServer, admin: Connection
) -> None:
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(1))
    async with bus.subscribe(shared(), 1) as deliveries:
        first: Any = await next_of(deliveries)
        emulator.fail(loseAck=1)
        await first.ack()
        emulator.fail()
        # As its time would, which is ten seconds at least.
        await admin.subscriber.modify_ack_deadline(
            subscription=names_of(bus).subscription(shared()), ack_ids=[first.ack_id], ack_deadline_seconds=0
        )
        again = await next_of(deliveries)
        assert (again.message, again.attempt) == (first.message, 2)
        await again.ack()
        assert await is_quiet(deliveries)


async def test_a_cut_stream_is_opened_again_at_once(bus: EventBus, emulator: PubsubServer) -> None:
    await bus.ensure(TOPIC, [shared()])
    async with bus.subscribe(shared(), 3) as deliveries:
        await bus.publish(TOPIC, some(1))
        await acked(deliveries, 1)
        emulator.fail(cutStream=0.5, seed=CUTS_THE_FIRST)
        began = time.monotonic()
        with logged() as log:
            await bus.publish(TOPIC, [Message("lost", b"")])
            await bus.publish(TOPIC, [Message("after", b"")])
            assert (await next_of(deliveries)).message.id == "after"
        assert time.monotonic() - began < 5, "it waited for the lease of what was lost"
        assert not log.facts, "Pub/Sub ends every stream some day"


async def test_a_stream_that_fell_silent_is_opened_anew(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.bus.pubsub_stream.SILENT_SECONDS", 0.2)
    await bus.ensure(TOPIC, [shared()])
    with logged() as log:
        async with bus.subscribe(shared(), 3) as deliveries:
            coming = asyncio.ensure_future(anext(deliveries))
            await asyncio.wait([coming], timeout=0.5)
            await bus.publish(TOPIC, some(1))
            async with asyncio.timeout(SOON):
                await (await coming).ack()
    assert "TimeoutError" in log.named("loop.failed")[0]["error"]


async def test_a_service_that_is_unavailable_at_times_loses_nothing(
    bus: EventBus, emulator: PubsubServer
) -> None:
    await bus.ensure(TOPIC, [shared()])
    emulator.fail(unavailable=0.5, seed=3)
    async with bus.subscribe(shared(), 3) as deliveries:
        await bus.publish(TOPIC, some(10))
        found = await acked(deliveries, 10)
    assert {it.id for it in found} == {it.id for it in some(10)}
    assert bus.healthy


async def test_what_a_publish_met_is_told_when_its_time_is_over(
    bus: EventBus, emulator: PubsubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.bus.pubsub.PATIENCE_SECONDS", 0.5)
    await bus.ensure(TOPIC, [shared()])
    emulator.fail(unavailable=1)
    with pytest.raises(BusUnavailable, match="a fault that was asked for"):
        await bus.publish(TOPIC, some(1))
    emulator.fail()
    async with bus.subscribe(shared(), 1) as deliveries:
        assert await is_quiet(deliveries), "it was kept for later"


async def test_who_leaves_while_it_is_away_does_not_wait_for_it(
    pubsub: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.bus.pubsub.PATIENCE_SECONDS", 0.5)
    bus = pubsub.another()
    await bus.ensure(TOPIC, [shared()])
    await bus.publish(TOPIC, some(3))
    async with AsyncExitStack() as stack:
        deliveries = await stack.enter_async_context(bus.subscribe(shared(), 3))
        await (await next_of(deliveries)).nack(60)
        await next_of(deliveries)
        async with pubsub.away(), asyncio.timeout(5):
            await stack.aclose()


async def test_a_topic_that_is_not_there_is_told_at_once(bus: EventBus) -> None:
    with pytest.raises(BusUnavailable, match="not found"):
        async with asyncio.timeout(2):
            await bus.publish("nowhere", some(1))


async def test_an_emulator_that_was_killed_and_started_again_is_found_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has forgotten everything, as the service never does: so it is made anew, and nobody has to subscribe again."""
    server = PubsubServer("")
    server.start()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"{server.host}:{server.port}")
    bus = PubsubBus("test-project", SystemClock())
    try:
        await bus.ensure(TOPIC, [shared()])
        async with bus.subscribe(shared(), 3) as deliveries:
            await bus.publish(TOPIC, some(1))
            await acked(deliveries, 1)
            server.kill()
            server.start()
            await bus.ensure(TOPIC, [shared()])
            await bus.publish(TOPIC, some(1, begin=1))
            assert [it.id for it in await acked(deliveries, 1)] == ["1"]
    finally:
        await bus.close()
        server.kill()


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.pubsub_v1", None)
    with pytest.raises(PubsubMissing, match=r'pip install "jobyard\[gcp\]"'):
        PubsubBus("project", SystemClock())
