"""All topics and subscriptions, and the way of a message from the one to the others."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from google.pubsub_v1 import types

from jobyard.pubsub_emulator import names
from jobyard.pubsub_emulator.backlog import Message
from jobyard.pubsub_emulator.configs import changed, completed_subscription, completed_topic
from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.refusals import AlreadyExists, InvalidArgument, NotFound
from jobyard.pubsub_emulator.subscription import Clock, Subscription

DEAD_LETTER = "CloudPubSubDeadLetterSource"
PAGE = 100


@dataclass(slots=True)
class Topic:
    config: types.Topic
    subscriptions: dict[str, Subscription]


T = TypeVar("T")


class Registry:
    """Every method raises Refusal."""

    def __init__(self, faults: Faults, clock: Clock = time.time) -> None:
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._faults = faults
        self._clock = clock
        self._ids = itertools.count(1)

    def topic(self, name: str) -> Topic:
        return _found(self._topics, names.check("topics", name))

    def create_topic(self, config: types.Topic) -> Topic:
        _check_free(self._topics, names.check("topics", config.name))
        topic = self._topics[config.name] = Topic(completed_topic(config), {})
        return topic

    def change_topic(self, request: types.UpdateTopicRequest) -> Topic:
        topic = self.topic(request.topic.name)
        topic.config = completed_topic(changed(topic.config, request.topic, request.update_mask))
        return topic

    def delete_topic(self, name: str) -> None:
        for subscription in self.topic(name).subscriptions.values():
            subscription.config.topic = names.DELETED_TOPIC
        del self._topics[name]

    def publish(self, name: str, messages: Sequence[types.PubsubMessage]) -> list[str]:
        topic = self.topic(name)
        return [
            self._publish(topic, message.data, dict(message.attributes), message.ordering_key)
            for message in messages
        ]

    def subscription(self, name: str) -> Subscription:
        return _found(self._subscriptions, names.check("subscriptions", name))

    def create_subscription(self, config: types.Subscription) -> Subscription:
        _check_free(self._subscriptions, names.check("subscriptions", config.name))
        topic = self.topic(config.topic)
        self._check_dead_letter_topic(config)
        bury = partial(self._bury, config.name)
        subscription = Subscription(completed_subscription(config), bury, self._clock, self._faults)
        self._subscriptions[config.name] = topic.subscriptions[config.name] = subscription
        return subscription

    def change_subscription(self, request: types.UpdateSubscriptionRequest) -> Subscription:
        subscription = self.subscription(request.subscription.name)
        config = changed(subscription.config, request.subscription, request.update_mask)
        self._check_dead_letter_topic(config)
        subscription.configure(completed_subscription(config))
        return subscription

    def detach_subscription(self, name: str) -> Subscription:
        subscription = self.subscription(name)
        self._part(subscription)
        subscription.detach()
        return subscription

    def delete_subscription(self, name: str) -> Subscription:
        subscription = self.subscription(name)
        self._part(subscription)
        del self._subscriptions[name]
        subscription.delete()
        return subscription

    def topics_of(self, project: str, size: int, token: str) -> tuple[list[Topic], str]:
        return _page(_of(self._topics, project), size, token)

    def subscriptions_of(self, project: str, size: int, token: str) -> tuple[list[Subscription], str]:
        return _page(_of(self._subscriptions, project), size, token)

    def subscriptions_of_topic(self, topic: str, size: int, token: str) -> tuple[list[Subscription], str]:
        return _page(self.topic(topic).subscriptions, size, token)

    def _publish(self, topic: Topic, data: bytes, attributes: Mapping[str, str], key: str) -> str:
        message = Message(str(next(self._ids)), data, attributes, key, self._clock())
        for subscription in topic.subscriptions.values():
            subscription.add(message)
        return message.id

    def _part(self, subscription: Subscription) -> None:
        if topic := self._topics.get(subscription.config.topic):
            topic.subscriptions.pop(subscription.name, None)

    def _check_dead_letter_topic(self, config: types.Subscription) -> None:
        if "dead_letter_policy" in config:
            self.topic(config.dead_letter_policy.dead_letter_topic)

    def _bury(self, subscription_name: str, message: Message, attempts: int) -> bool:
        """Publish to the dead letter topic, saying where from; not where that topic is gone."""
        policy = self._subscriptions[subscription_name].config.dead_letter_policy
        topic = self._topics.get(policy.dead_letter_topic)
        if topic is None:
            return False
        told = {
            f"{DEAD_LETTER}DeliveryCount": str(attempts),
            f"{DEAD_LETTER}Subscription": names.id_of(subscription_name),
            f"{DEAD_LETTER}SubscriptionProject": names.project_of(subscription_name),
            f"{DEAD_LETTER}TopicPublishTime": datetime.fromtimestamp(message.published, UTC).isoformat(),
        }
        self._publish(topic, message.data, {**message.attributes, **told}, message.ordering_key)
        return True


def _found(held: Mapping[str, T], name: str) -> T:
    if name not in held:
        raise NotFound(f"Resource not found (resource={names.id_of(name)}).")
    return held[name]


def _check_free(held: Mapping[str, object], name: str) -> None:
    if name in held:
        raise AlreadyExists(f"Resource already exists in the project (resource={names.id_of(name)}).")


def _of(held: Mapping[str, T], project: str) -> dict[str, T]:
    prefix = names.check_project(project) + "/"
    return {name: thing for name, thing in held.items() if name.startswith(prefix)}


def _page(held: Mapping[str, T], size: int, token: str) -> tuple[list[T], str]:
    """By name, after the one that the token is; with the token of the next page, empty at the end."""
    if size < 0:
        raise InvalidArgument(f"page_size must not be negative: {size}")
    size = size or PAGE
    rest = sorted(name for name in held if name > token)
    return [held[name] for name in rest[:size]], rest[size - 1] if len(rest) > size else ""
