"""What the service does, through the official clients. JOBYARD_TEST_PUBSUB points these tests at another emulator or at a
real project (see conftest.py); they were never run against Google's."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from queue import Queue
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.types import FlowControl, StreamingPullRequest
from service import DEADLINE, Service, datas


@pytest.fixture
def topic(service: Service) -> str:
    return service.topic()


# Publish and pull


def test_a_message_arrives_whole(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    [id] = service.publish(topic, b"\x00data", colour="blue", empty="")
    [received] = service.pull(subscription)
    message = received.message
    assert (message.message_id, message.data) == (id, b"\x00data")
    assert dict(message.attributes) == {"colour": "blue", "empty": ""}
    assert abs(datetime.now(UTC) - message.publish_time) < timedelta(minutes=1)
    assert received.delivery_attempt == 0


def test_every_subscription_gets_every_message(service: Service, topic: str) -> None:
    subscriptions = [service.subscription(topic) for _ in range(2)]
    service.publish(topic, b"a", b"b")
    for subscription in subscriptions:
        assert sorted(datas(service.pull_all(subscription, 2))) == [b"a", b"b"]


def test_a_subscription_gets_what_is_published_after_it_was_made(service: Service, topic: str) -> None:
    service.publish(topic, b"before")
    subscription = service.subscription(topic)
    service.publish(topic, b"after")
    assert datas(service.pull(subscription)) == [b"after"]


def test_a_pull_brings_no_more_than_it_asks_for(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publish(topic, b"a", b"b")
    assert len(service.pull(subscription, 1)) == 1


def test_a_pull_waits_for_a_message(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    pulled: Queue[list[bytes]] = Queue()
    waiting = threading.Thread(target=lambda: pulled.put(datas(service.pull(subscription))))
    waiting.start()
    service.publish(topic, b"at last")
    assert pulled.get(timeout=DEADLINE) == [b"at last"]
    waiting.join()


# Acks and deadlines


def test_what_was_nacked_comes_again_and_what_was_acked_does_not(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publish(topic, b"done", b"again")
    found = {message.message.data: message for message in service.pull_all(subscription, 2, ack=False)}
    service.ack(subscription, found[b"done"])
    service.nack(subscription, found[b"again"])
    assert datas(service.pull(subscription)) == [b"again"]


def test_a_message_comes_again_when_its_deadline_has_passed(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    [id] = service.publish(topic, b"a")
    [first] = service.pull(subscription)
    service.extend(subscription, 1, first)
    [again] = service.pull(subscription)
    assert again.message.message_id == id
    assert again.ack_id != first.ack_id


def test_an_ack_of_something_unknown_is_no_error(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publish(topic, b"a")
    [message] = service.pull(subscription)
    service.ack(subscription, message)
    service.ack(subscription, message)


# Order


def test_the_streaming_subscriber_gets_each_key_in_order(service: Service, topic: str) -> None:
    subscription = service.subscription(topic, enable_message_ordering=True)
    seen: dict[str, list[bytes]] = defaultdict(list)
    all_seen = threading.Event()

    def take(message: Any) -> None:
        seen[message.ordering_key].append(message.data)
        message.ack()
        if sum(map(len, seen.values())) == 30:
            all_seen.set()

    wanted = [b"%02d" % number for number in range(10)]
    for key in ("a", "b", "c"):
        service.publish(topic, *wanted, key=key)
    with service.streaming(subscription, take):
        assert all_seen.wait(DEADLINE)
    assert seen == {"a": wanted, "b": wanted, "c": wanted}


def test_a_key_waits_for_its_message_that_was_nacked(service: Service, topic: str) -> None:
    subscription = service.subscription(topic, enable_message_ordering=True)
    service.publish(topic, b"1", b"2", key="k")
    first = service.pull(subscription, 1)
    assert datas(first) == [b"1"]
    service.nack(subscription, *first)
    assert datas(service.pull_all(subscription, 2)) == [b"1", b"2"]


# Streaming


def test_the_streaming_subscriber_keeps_to_its_flow_control(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    running: list[str] = []
    most, count, lock, all_done = 0, 0, threading.Lock(), threading.Event()
    two_at_once = threading.Barrier(2)

    def take(message: Any) -> None:
        nonlocal most, count
        with lock:
            running.append(message.message_id)
            most = max(most, len(running))
        two_at_once.wait(DEADLINE)
        with lock:
            running.remove(message.message_id)
            count += 1
            if count == 8:
                all_done.set()
        message.ack()

    service.publish(topic, *[b"%d" % number for number in range(8)])
    flow = FlowControl(max_messages=2)
    with service.streaming(subscription, take, flow_control=flow):
        assert all_done.wait(DEADLINE)
    assert most == 2


def test_a_stream_delivers_no_more_than_may_be_outstanding(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publish(topic, b"a", b"b", b"c")
    asked: Queue[StreamingPullRequest | None] = Queue()
    asked.put(
        StreamingPullRequest(
            subscription=subscription, stream_ack_deadline_seconds=60, max_outstanding_messages=2
        )
    )

    def requests() -> Iterator[StreamingPullRequest]:
        while (request := asked.get()) is not None:
            yield request

    stream = service.subscriber.streaming_pull(requests(), timeout=DEADLINE)
    arrived = (message for response in stream for message in response.received_messages)
    first, second = next(arrived), next(arrived)
    asked.put(StreamingPullRequest(ack_ids=[first.ack_id]))
    third = next(arrived)
    assert {m.message.data for m in (first, second, third)} == {b"a", b"b", b"c"}
    asked.put(StreamingPullRequest(modify_deadline_ack_ids=[second.ack_id], modify_deadline_seconds=[0]))
    assert next(arrived).message.data == second.message.data
    asked.put(None)
    stream.cancel()


def test_a_stream_tells_whether_keys_are_in_order(service: Service, topic: str) -> None:
    for ordered in (True, False):
        stream = service.stream(service.subscription(topic, enable_message_ordering=ordered))
        assert next(stream).subscription_properties.message_ordering_enabled is ordered


# Dead letters


def test_a_message_that_is_nacked_too_often_becomes_a_dead_letter(service: Service, topic: str) -> None:
    graves = service.topic()
    grave = service.subscription(graves)
    policy = {"dead_letter_topic": graves, "max_delivery_attempts": 5}
    subscription = service.subscription(topic, dead_letter_policy=policy)
    service.publish(topic, b"poison", colour="green")
    for attempt in range(1, 6):
        [received] = service.pull(subscription)
        assert received.delivery_attempt == attempt
        service.nack(subscription, received)
    [dead] = service.pull(grave)
    assert dead.message.data == b"poison"
    attributes = dict(dead.message.attributes)
    assert attributes["colour"] == "green"
    assert attributes["CloudPubSubDeadLetterSourceSubscription"] == subscription.split("/")[-1]
    assert attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] == service.project
    assert attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
    assert datetime.fromisoformat(attributes["CloudPubSubDeadLetterSourceTopicPublishTime"])


# Topics and subscriptions


def test_a_subscription_has_the_defaults_of_the_service(service: Service, topic: str) -> None:
    name = service.subscription(topic)
    found = service.subscriber.get_subscription(subscription=name)
    assert (found.name, found.topic, found.ack_deadline_seconds) == (name, topic, 10)
    assert found.message_retention_duration == timedelta(days=7)


def test_what_is_there_is_listed(service: Service, topic: str) -> None:
    project = f"projects/{service.project}"
    subscriptions = {service.subscription(topic) for _ in range(3)}
    pages = service.publisher.list_topic_subscriptions(request={"topic": topic, "page_size": 2})
    assert set(pages) == subscriptions
    listed = service.subscriber.list_subscriptions(request={"project": project, "page_size": 2})
    assert subscriptions <= {each.name for each in listed}
    assert topic in {each.name for each in service.publisher.list_topics(project=project)}


def test_a_field_that_the_mask_names_is_changed_and_no_other(service: Service, topic: str) -> None:
    name = service.subscription(topic, labels={"team": "a"})
    wanted = {"name": name, "ack_deadline_seconds": 60, "labels": {"team": "b"}}
    service.subscriber.update_subscription(
        request={"subscription": wanted, "update_mask": {"paths": ["ack_deadline_seconds"]}}
    )
    found = service.subscriber.get_subscription(subscription=name)
    assert (found.ack_deadline_seconds, dict(found.labels)) == (60, {"team": "a"})


def test_a_topic_can_be_changed(service: Service, topic: str) -> None:
    wanted = {"name": topic, "labels": {"team": "b"}}
    service.publisher.update_topic(request={"topic": wanted, "update_mask": {"paths": ["labels"]}})
    assert dict(service.publisher.get_topic(topic=topic).labels) == {"team": "b"}


def test_a_subscription_outlives_its_topic(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publish(topic, b"last")
    service.publisher.delete_topic(topic=topic)
    assert service.subscriber.get_subscription(subscription=subscription).topic == "_deleted-topic_"
    assert datas(service.pull(subscription)) == [b"last"]


def test_a_detached_subscription_cannot_be_pulled(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    service.publisher.detach_subscription(request={"subscription": subscription})
    with pytest.raises(exceptions.FailedPrecondition):
        service.pull(subscription)


def test_what_is_not_there_is_not_found(service: Service, topic: str) -> None:
    nothing = f"projects/{service.project}/topics/not-there"
    no_subscription = f"projects/{service.project}/subscriptions/not-there"
    with pytest.raises(exceptions.NotFound):
        service.publisher.get_topic(topic=nothing)
    with pytest.raises(exceptions.NotFound):
        service.publish(nothing, b"a")
    with pytest.raises(exceptions.NotFound):
        service.subscription(nothing)
    with pytest.raises(exceptions.NotFound):
        service.pull(no_subscription)
    with pytest.raises(exceptions.NotFound):
        service.subscriber.delete_subscription(subscription=no_subscription)


def test_a_name_can_be_taken_once(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    with pytest.raises(exceptions.AlreadyExists):
        service.publisher.create_topic(name=topic)
    with pytest.raises(exceptions.AlreadyExists):
        service.subscriber.create_subscription(name=subscription, topic=topic)


def test_the_topic_of_a_subscription_cannot_be_changed(service: Service, topic: str) -> None:
    wanted = {"name": service.subscription(topic), "topic": service.topic()}
    with pytest.raises(exceptions.InvalidArgument):
        service.subscriber.update_subscription(
            request={"subscription": wanted, "update_mask": {"paths": ["topic"]}}
        )


def test_a_stream_ends_when_its_subscription_is_deleted(service: Service, topic: str) -> None:
    subscription = service.subscription(topic)
    arrived = threading.Event()
    streaming = service.subscriber.subscribe(subscription, callback=lambda message: arrived.set())
    service.publish(topic, b"a")
    assert arrived.wait(DEADLINE)
    service.subscriber.delete_subscription(subscription=subscription)
    with pytest.raises(exceptions.NotFound):
        streaming.result(DEADLINE)
