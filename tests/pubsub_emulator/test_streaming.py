"""One streaming pull without a network: what the client says while it receives, and a stream with nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.pubsub_v1 import types

from jobyard.pubsub_emulator import streaming
from jobyard.pubsub_emulator.backlog import Message
from jobyard.pubsub_emulator.configs import completed_subscription
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.streaming import Stream
from jobyard.pubsub_emulator.subscription import Subscription

WAIT = 20.0


class Client:
    """Talks to a stream whose time stands still until a test moves it."""

    def __init__(self, **first: Any) -> None:
        self.now = 1000.0
        config = completed_subscription(types.Subscription(name="projects/p/subscriptions/sub"))
        self.subscription = Subscription(config, lambda message, attempts: True, lambda: self.now, Faults())
        self._requests: asyncio.Queue[types.StreamingPullRequest | None] = asyncio.Queue()
        opening = types.StreamingPullRequest(**{"stream_ack_deadline_seconds": 10, **first})
        self._responses = Stream(self.subscription, opening, Faults()).responses(self._said())

    async def _said(self) -> AsyncIterator[types.StreamingPullRequest]:
        while request := await self._requests.get():
            yield request
            self._requests.task_done()

    def say(self, **request: Any) -> None:
        self._requests.put_nowait(types.StreamingPullRequest(**request))

    async def until_heard(self) -> None:
        """Until the stream asks for the next thing it is told."""
        async with asyncio.timeout(WAIT):
            await self._requests.join()

    def leave(self) -> None:
        self._requests.put_nowait(None)

    async def response(self) -> types.StreamingPullResponse:
        async with asyncio.timeout(WAIT):
            return await anext(self._responses)

    async def message(self) -> types.ReceivedMessage:
        while not (response := await self.response()).received_messages:
            pass
        [received] = response.received_messages
        return received

    def publish(self, id: str) -> None:
        self.subscription.add(Message(id, b"x", {}, "", self.now))

    def pass_time(self, seconds: float) -> None:
        """As the timer would, which goes by real time."""
        self.now += seconds
        self.subscription.extend([], 1)


async def test_a_stream_without_messages_is_heard_from_by_a_client_of_protocol_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.001)
    client = Client(protocol_version=1)
    for _ in range(5):
        assert not (await client.response()).received_messages


async def test_an_older_client_hears_of_messages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.001)
    client = Client(protocol_version=0)
    await client.response()
    client.publish("a")
    assert [each.message.message_id for each in (await client.response()).received_messages] == ["a"]


async def test_the_deadline_of_a_stream_may_be_changed_while_it_is_open() -> None:
    client = Client()
    await client.response()
    waiting = asyncio.create_task(client.message())
    client.say(stream_ack_deadline_seconds=60)
    await client.until_heard()
    client.publish("a")
    await waiting
    client.pass_time(59)
    assert client.subscription.take(1) == []
    client.pass_time(1)
    assert len(client.subscription.take(1)) == 1


async def test_a_stream_ends_when_its_client_has_no_more_to_say() -> None:
    client = Client()
    await client.response()
    client.leave()
    with pytest.raises(StopAsyncIteration):
        await client.response()


async def test_what_a_stream_delivered_comes_again_on_another_after_its_deadline() -> None:
    client = Client()
    await client.response()
    client.publish("a")
    await client.message()
    client.leave()
    client.pass_time(9.9)
    assert client.subscription.take(1) == []
    client.pass_time(0.1)
    assert len(client.subscription.take(1)) == 1
