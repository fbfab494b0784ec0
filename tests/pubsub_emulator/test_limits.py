"""The documented limits: at the limit all is well, one beyond it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import types
from service import Service

from jobyard.pubsub_emulator import configs, limits, names
from jobyard.pubsub_emulator.refusals import InvalidArgument, Refusal, Unimplemented

TOPIC = "projects/p/topics/top"
Fields = dict[str, Any]


def request(*messages: Fields) -> types.PublishRequest:
    return types.PublishRequest(topic=TOPIC, messages=list(messages))


@pytest.mark.parametrize(
    "messages",
    [
        [{"data": b"x"}] * 1000,
        [{"attributes": {"a": ""}}],
        [{"data": b"x" * (limits.REQUEST_BYTES - 40)}],
        [{"data": b"x", "ordering_key": "k" * 1024}],
        [{"attributes": {f"{n}": "" for n in range(100)}}],
        [{"attributes": {"k" * 256: "v" * 1024}}],
    ],
)
def test_what_is_within_the_limits_may_be_published(messages: list[Fields]) -> None:
    limits.check_publish(request(*messages))


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "1 to 1,000 messages"),
        ([{"data": b"x"}] * 1001, "1 to 1,000 messages"),
        ([{}], "data or at least one attribute"),
        ([{"ordering_key": "k"}], "data or at least one attribute"),
        ([{"data": b"x" * limits.REQUEST_BYTES}], "a publish request has at most 10,000,000 bytes"),
        ([{"data": b"x", "ordering_key": "k" * 1025}], "an ordering key has at most 1,024 bytes"),
        ([{"data": b"x", "ordering_key": "ü" * 513}], "an ordering key has at most 1,024 bytes"),
        ([{"attributes": {f"{n}": "" for n in range(101)}}], "at most 100 attributes"),
        ([{"attributes": {"k" * 257: ""}}], "the key of an attribute has at most 256 bytes"),
        ([{"attributes": {"k": "v" * 1025}}], "the value of an attribute has at most 1,024 bytes"),
        ([{"attributes": {"": "v"}}], "must not be empty"),
        ([{"attributes": {"googleish": "v"}}], "must not begin with goog"),
    ],
)
def test_what_is_beyond_them_may_not(messages: list[Fields], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        limits.check_publish(request(*messages))


@pytest.mark.parametrize("id", ["abc", "a" * 255, "Az0-._~+%", "a-goog"])
def test_a_name_of_the_documented_grammar_is_one(id: str) -> None:
    assert names.check("topics", f"projects/p/topics/{id}")


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/topics/ab",
        f"projects/p/topics/{'a' * 256}",
        "projects/p/topics/1bc",
        "projects/p/topics/google",
        "projects/p/topics/a b",
        "projects/p/topics/abc/",
        "projects/p/topics/abc\n",
        "projects/p/subscriptions/abc",
        "projects//topics/abc",
        "abc",
        "",
    ],
)
def test_any_other_name_is_none(name: str) -> None:
    with pytest.raises(InvalidArgument):
        names.check("topics", name)


def subscription(**fields: Any) -> types.Subscription:
    return types.Subscription(name="projects/p/subscriptions/sub", topic=TOPIC, **fields)


DEAD = "projects/p/topics/dead"


@pytest.mark.parametrize(
    "fields",
    [
        {"ack_deadline_seconds": 10},
        {"ack_deadline_seconds": 600},
        {"message_retention_duration": {"seconds": 600}},
        {"message_retention_duration": {"seconds": 31 * 86400}},
        {"retry_policy": {"minimum_backoff": {"seconds": 0}, "maximum_backoff": {"seconds": 600}}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 5}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 100}},
        {"push_config": {"push_endpoint": "http://localhost:1/x"}},
    ],
)
def test_a_subscription_may_be_all_that_is_documented(fields: Fields) -> None:
    configs.completed_subscription(subscription(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"ack_deadline_seconds": 9},
        {"ack_deadline_seconds": 601},
        {"ack_deadline_seconds": -1},
        {"message_retention_duration": {"seconds": 599}},
        {"message_retention_duration": {"seconds": 31 * 86400 + 1}},
        {"retry_policy": {"maximum_backoff": {"seconds": 601}}},
        {"retry_policy": {"minimum_backoff": {"seconds": 30}, "maximum_backoff": {"seconds": 20}}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 4}},
        {"dead_letter_policy": {"dead_letter_topic": DEAD, "max_delivery_attempts": 101}},
        {"dead_letter_policy": {"max_delivery_attempts": 5}},
        {"push_config": {"push_endpoint": "localhost:1"}},
        {"push_config": {"push_endpoint": "http://localhost:1", "oidc_token": {"audience": "a"}}},
        {"labels": {f"{n}": "" for n in range(65)}},
    ],
)
def test_and_nothing_else(fields: Fields) -> None:
    with pytest.raises(InvalidArgument):
        configs.completed_subscription(subscription(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"filter": "attributes:a"},
        {"enable_exactly_once_delivery": True},
        {"bigquery_config": {"table": "t"}},
        {"message_transforms": [{"enabled": True}]},
        {"push_config": {"push_endpoint": "http://localhost:1", "no_wrapper": {}}},
    ],
)
def test_what_is_not_emulated_is_refused_and_not_ignored(fields: Fields) -> None:
    with pytest.raises(Unimplemented):
        configs.completed_subscription(subscription(**fields))


def test_a_schema_is_refused() -> None:
    with pytest.raises(Unimplemented):
        configs.completed_topic(types.Topic(name=TOPIC, schema_settings={"schema": "s"}))


@pytest.mark.parametrize("seconds", [-1, 601])
def test_a_deadline_is_extended_by_at_most_ten_minutes(seconds: int) -> None:
    limits.check_extensions([0, 600])
    with pytest.raises(InvalidArgument):
        limits.check_extensions([600, seconds])


def test_a_request_with_too_many_ack_ids_is_refused() -> None:
    limits.check_ack_ids(types.AcknowledgeRequest(ack_ids=["x" * 1000] * 500))
    with pytest.raises(InvalidArgument):
        limits.check_ack_ids(types.AcknowledgeRequest(ack_ids=["x" * 1000] * 525))


@pytest.mark.parametrize("mask", [[], ["topic"], ["filter"], ["enable_message_ordering"], ["nonsense"]])
def test_a_change_that_cannot_be_made_is_refused(mask: list[str]) -> None:
    wanted = types.UpdateSubscriptionRequest(subscription=subscription(), update_mask={"paths": mask})
    with pytest.raises(Refusal):
        configs.changed(subscription(), wanted.subscription, wanted.update_mask)


# Over gRPC


def test_a_limit_is_an_invalid_argument_to_the_client(emulated: Service) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="1 to 1,000 messages"):
        emulated.publish_at_once(emulated.topic())


def test_a_request_that_is_too_large_is_refused_in_our_words(emulated: Service) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="at most 10,000,000 bytes"):
        emulated.publish_at_once(emulated.topic(), {"data": b"x" * 10_000_001})


def test_a_method_that_is_not_emulated_is_unimplemented(emulated: Service) -> None:
    name = emulated.subscription(emulated.topic())
    with pytest.raises(exceptions.MethodNotImplemented):
        emulated.subscriber.seek(request={"subscription": name})


@pytest.mark.parametrize(
    "later",
    [
        {"max_outstanding_messages": 5},
        {"subscription": "projects/p/subscriptions/other"},
        {"stream_ack_deadline_seconds": 9},
        {"modify_deadline_ack_ids": ["a"]},
        {"modify_deadline_ack_ids": ["a"], "modify_deadline_seconds": [601]},
    ],
)
def test_a_stream_is_ended_by_a_request_that_it_may_not_have(emulated: Service, later: Fields) -> None:
    name = emulated.subscription(emulated.topic())

    def requests() -> Iterator[types.StreamingPullRequest]:
        yield types.StreamingPullRequest(subscription=name, stream_ack_deadline_seconds=10)
        yield types.StreamingPullRequest(**later)

    with pytest.raises(exceptions.InvalidArgument):
        list(emulated.subscriber.streaming_pull(requests(), timeout=20))


def test_a_stream_has_a_deadline(emulated: Service) -> None:
    name = emulated.subscription(emulated.topic())
    first = types.StreamingPullRequest(subscription=name)
    with pytest.raises(exceptions.InvalidArgument):
        list(emulated.subscriber.streaming_pull(iter([first]), timeout=20))


def test_an_extension_has_its_limit_also_by_itself(emulated: Service) -> None:
    name = emulated.subscription(emulated.topic())
    with pytest.raises(exceptions.InvalidArgument):
        emulated.subscriber.modify_ack_deadline(subscription=name, ack_ids=["a"], ack_deadline_seconds=601)


def test_a_request_without_ack_ids_is_refused(emulated: Service) -> None:
    name = emulated.subscription(emulated.topic())
    with pytest.raises(exceptions.InvalidArgument):
        emulated.subscriber.acknowledge(subscription=name, ack_ids=[])
    with pytest.raises(exceptions.InvalidArgument):
        emulated.subscriber.modify_ack_deadline(subscription=name, ack_ids=[], ack_deadline_seconds=60)


def test_a_pull_asks_for_at_least_one_message(emulated: Service) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        emulated.pull(emulated.subscription(emulated.topic()), 0)
