"""What only NATS has: what was set aside lies in a stream, the server has limits of its own, and an extra is needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import nats as client
import pytest

from contract.adapters import Broker
from contract.nats_server import NatsServer
from contract.test_event_bus import SOON, TOPIC, is_quiet, next_of, shared
from jobyard.bus.nats import NatsBus, NatsMissing
from jobyard.bus.nats_wire import SET_ASIDE, message_of
from jobyard.clock import SystemClock
from jobyard.ports import BusUnavailable, Message, MessageTooLarge


@pytest.fixture
async def admin(nats_server: NatsServer, nats: Broker) -> AsyncIterator[client.NATS]:
    async with await client.connect(nats_server.url) as connection:
        yield connection


async def set_aside(admin: client.NATS) -> list[tuple[str, Message, str]]:
    """Subject, message and deliveries of each."""
    stream = admin.jetstream()
    last = (await stream.stream_info(SET_ASIDE)).state.last_seq
    found = [await stream.get_msg(SET_ASIDE, seq) for seq in range(1, last + 1)]
    return [
        (it.subject or "", message_of(it.data or b"", it.headers), (it.headers or {})["Jobyard-Deliveries"])
        for it in found
    ]


async def test_what_is_set_aside_lies_in_a_stream_with_all_that_it_was(
    nats: Broker, admin: client.NATS
) -> None:
    bus, poison = nats.another(), Message("poison", b"\0body", "key", {"odd": " ü\n"})
    subscription = shared("mail.er", max_deliveries=2)
    await bus.ensure(TOPIC, [subscription])
    await bus.publish(TOPIC, [poison])
    async with bus.subscribe(subscription, 1) as deliveries:
        for _ in range(2):
            await (await next_of(deliveries)).nack()
        assert await is_quiet(deliveries)
    assert await set_aside(admin) == [("jobyard.set-aside.orders.mail%2Eer", poison, "2")]
    assert (await admin.jetstream().stream_info("jobyard-topic-orders")).state.messages == 0


async def test_what_is_no_message_of_ours_is_set_aside_at_once(nats: Broker, admin: client.NATS) -> None:
    bus = nats.another()
    await bus.ensure(TOPIC, [shared()])
    await nats.litter(TOPIC)
    await bus.publish(TOPIC, [Message("good", b"")])
    async with bus.subscribe(shared(), 1) as deliveries:
        await (await next_of(deliveries)).ack()
    stream = admin.jetstream()
    assert (await stream.stream_info("jobyard-topic-orders")).state.messages == 0
    kept = await stream.get_msg(SET_ASIDE, 1)
    assert (kept.subject, kept.data) == ("jobyard.set-aside.orders.mailer", b"\xff")


async def test_who_waits_for_an_answer_is_told_when_the_connection_is_lost(
    nats: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobyard.bus.nats.PATIENCE_SECONDS", 60.0)
    bus = nats.another()
    await bus.ensure(TOPIC)
    async with nats.away():
        with pytest.raises(BusUnavailable):
            async with asyncio.timeout(SOON):
                await bus.publish(TOPIC, [Message("1", b"")])


async def test_headers_count_in_the_size_of_a_message(nats: Broker) -> None:
    bus = nats.another()
    await bus.ensure(TOPIC, [shared()])
    with pytest.raises(MessageTooLarge, match="wordy"):
        await bus.publish(TOPIC, [Message("0", b""), Message("wordy", b"", "", {"a": "ü" * 200_000})])
    await bus.publish(TOPIC, [Message("1", b"")])
    async with bus.subscribe(shared(), 2) as deliveries:
        assert (await next_of(deliveries)).message.id == "1"


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(NatsMissing, match=r'pip install "jobyard\[nats\]"'):
        NatsBus("nats://localhost", SystemClock())
