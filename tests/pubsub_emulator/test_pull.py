"""Pulls that find nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from google.pubsub_v1 import types

from jobyard.pubsub_emulator import subscriber
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.pushing import Pushing
from jobyard.pubsub_emulator.registry import Registry
from jobyard.pubsub_emulator.subscriber import Subscriber
from jobyard.pubsub_emulator.tokens import TokenSigner

TOPIC, SUBSCRIPTION = "projects/p/topics/top", "projects/p/subscriptions/sub"


@pytest.fixture
async def service() -> AsyncIterator[Subscriber]:
    faults = Faults()
    registry = Registry(faults)
    registry.create_topic(types.Topic(name=TOPIC))
    registry.create_subscription(types.Subscription(name=SUBSCRIPTION, topic=TOPIC))
    pushing = Pushing(TokenSigner(), faults)
    yield Subscriber(registry, pushing, faults)
    await pushing.aclose()


async def test_a_pull_that_found_nothing_says_so_after_a_while(
    service: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "PULL_SECONDS", 0.01)
    answered = await service.pull(types.PullRequest(subscription=SUBSCRIPTION, max_messages=1))
    assert not answered.received_messages


async def test_a_pull_that_is_not_to_wait_says_so_at_once(service: Subscriber) -> None:
    request = types.PullRequest(subscription=SUBSCRIPTION, max_messages=1, return_immediately=True)
    waiting = service.pull(request)
    with pytest.raises(StopIteration):  # it waited for nothing
        waiting.send(None)
