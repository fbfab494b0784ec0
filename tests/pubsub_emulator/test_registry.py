"""Topics and subscriptions together, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.pubsub_v1 import types

from jobyard.pubsub_emulator.backlog import AT_ONCE, Backoff, Receiver
from jobyard.pubsub_emulator.configs import completed_subscription, rules_of
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.refusals import InvalidArgument, NotFound
from jobyard.pubsub_emulator.registry import Registry
from jobyard.pubsub_emulator.subscription import Subscription

TOPIC, DEAD, SUBSCRIPTION = "projects/p/topics/top", "projects/p/topics/dead", "projects/p/subscriptions/sub"
BURIES = {"dead_letter_topic": DEAD, "max_delivery_attempts": 5}


@pytest.fixture
def registry() -> Registry:
    registry = Registry(Faults())
    for name in (TOPIC, DEAD):
        registry.create_topic(types.Topic(name=name))
    return registry


def subscribe(registry: Registry, topic: str = TOPIC, **config: Any) -> Subscription:
    name = f"{SUBSCRIPTION}-{topic.rpartition('/')[2]}"
    return registry.create_subscription(types.Subscription(name=name, topic=topic, **config))


def fail(subscription: Subscription, times: int) -> None:
    for _ in range(times):
        [lease] = subscription.take(1)
        subscription.extend([lease.ack_id], 0)


async def test_a_dead_letter_is_a_new_message_that_says_where_it_is_from(registry: Registry) -> None:
    grave = subscribe(registry, DEAD)
    subscription = subscribe(registry, dead_letter_policy=BURIES)
    [id] = registry.publish(TOPIC, [types.PubsubMessage(data=b"x", ordering_key="k", attributes={"a": "b"})])
    fail(subscription, 5)
    assert subscription.take(1) == []
    [dead] = grave.take(1)
    assert dead.message.id != id
    assert (dead.message.data, dead.message.ordering_key) == (b"x", "k")
    assert {"a", "CloudPubSubDeadLetterSourceTopicPublishTime"} < dead.message.attributes.keys()


async def test_while_the_dead_letter_topic_is_gone_a_message_is_delivered_on(registry: Registry) -> None:
    subscription = subscribe(registry, dead_letter_policy=BURIES)
    registry.publish(TOPIC, [types.PubsubMessage(data=b"x")])
    registry.delete_topic(DEAD)
    fail(subscription, 6)
    registry.create_topic(types.Topic(name=DEAD))
    grave = subscribe(registry, DEAD)
    fail(subscription, 1)
    [dead] = grave.take(1)
    assert dead.message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "7"


async def test_a_dead_letter_policy_needs_its_topic(registry: Registry) -> None:
    registry.delete_topic(DEAD)
    with pytest.raises(NotFound):
        subscribe(registry, dead_letter_policy=BURIES)
    plain = subscribe(registry)
    wanted = types.Subscription(name=plain.name, dead_letter_policy=BURIES)
    with pytest.raises(NotFound):
        registry.change_subscription(
            types.UpdateSubscriptionRequest(
                subscription=wanted, update_mask={"paths": ["dead_letter_policy"]}
            )
        )


async def test_a_change_passes_the_same_checks_and_is_made_whole_or_not_at_all(registry: Registry) -> None:
    subscription = subscribe(registry)
    wanted = types.Subscription(name=subscription.name, ack_deadline_seconds=601, labels={"a": "b"})
    with pytest.raises(InvalidArgument):
        registry.change_subscription(
            types.UpdateSubscriptionRequest(
                subscription=wanted, update_mask={"paths": ["labels", "ack_deadline_seconds"]}
            )
        )
    assert (subscription.config.ack_deadline_seconds, dict(subscription.config.labels)) == (10, {})


async def test_a_change_holds_for_the_next_delivery(registry: Registry) -> None:
    subscription = subscribe(registry)
    registry.publish(TOPIC, [types.PubsubMessage(data=b"x")])
    wanted = types.Subscription(name=subscription.name, dead_letter_policy=BURIES)
    registry.change_subscription(
        types.UpdateSubscriptionRequest(subscription=wanted, update_mask={"paths": ["dead_letter_policy"]})
    )
    fail(subscription, 5)
    assert subscription.take(1) == []


async def test_a_topic_forgets_a_subscription_that_left_it(registry: Registry) -> None:
    subscription = subscribe(registry)
    registry.detach_subscription(subscription.name)
    assert registry.subscriptions_of_topic(TOPIC, 0, "") == ([], "")
    registry.delete_subscription(subscription.name)
    again = subscribe(registry)
    registry.delete_subscription(again.name)
    assert registry.subscriptions_of_topic(TOPIC, 0, "") == ([], "")


async def test_whoever_waits_is_told_that_the_subscription_is_gone(registry: Registry) -> None:
    subscription = subscribe(registry)
    waiting = asyncio.create_task(subscription.next(1))
    await asyncio.sleep(0)
    registry.delete_subscription(subscription.name)
    with pytest.raises(NotFound):
        await asyncio.wait_for(waiting, 20)


async def test_whoever_waits_is_given_what_another_did_not_ack_in_time(registry: Registry) -> None:
    subscription = subscribe(registry)
    registry.publish(TOPIC, [types.PubsubMessage(data=b"x")])
    [lost] = subscription.take(1, Receiver(ack_seconds=0.01))
    [again] = await asyncio.wait_for(subscription.next(1), 20)
    assert again.message.id == lost.message.id


async def test_pages_have_every_topic_once(registry: Registry) -> None:
    for number in range(5):
        registry.create_topic(types.Topic(name=f"projects/p/topics/more-{number}"))
    registry.create_topic(types.Topic(name="projects/p-2/topics/other"))
    found: list[str] = []
    token = ""
    while True:
        topics, token = registry.topics_of("projects/p", 3, token)
        found += [topic.config.name for topic in topics]
        if not token:
            break
    assert found == sorted({TOPIC, DEAD, *(f"projects/p/topics/more-{number}" for number in range(5))})


@pytest.mark.parametrize(
    ("config", "backoff"),
    [
        ({}, AT_ONCE),
        ({"push_config": {"push_endpoint": "http://localhost:1"}}, Backoff(0.1, 60)),
        ({"retry_policy": {}}, Backoff(10, 600)),
        ({"retry_policy": {"minimum_backoff": {"seconds": 1}}}, Backoff(1, 600)),
        ({"retry_policy": {"maximum_backoff": {"seconds": 20, "nanos": 500_000_000}}}, Backoff(10, 20.5)),
    ],
)
def test_how_long_a_message_is_put_off(config: dict[str, Any], backoff: Backoff) -> None:
    assert rules_of(completed_subscription(types.Subscription(**config))).backoff == backoff
