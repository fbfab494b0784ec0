"""What the emulator does wrong when it is asked to, and that programs can tell."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from queue import Queue
from typing import Any

import httpx
import msgspec
import pytest
from emulating import Running, emulator_process
from google.api_core import exceptions
from google.api_core.retry import Retry
from service import DEADLINE, Service, datas

from jobyard.pubsub_emulator.faults import Faults, Plan
from web_server import Received, answer, web_server_in_a_thread

CUTS_THE_FIRST = 2
"""With this seed half of the streams are cut, beginning with the first response and not the second."""


@pytest.fixture(scope="module")
def faulty() -> Iterator[Running]:
    """One of its own: nobody else is to meet its faults."""
    with emulator_process() as running:
        yield running


@pytest.fixture
def service(faulty: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", faulty.address)
    with Service(f"test-{uuid.uuid4().hex[:8]}") as made:
        yield made
        plan(faulty, {})


def plan(faulty: Running, faults: dict[str, float]) -> httpx.Response:
    return httpx.put(f"{faulty.http}/faults", json=faults, trust_env=False)


def test_a_duplicate_comes_after_the_ack(service: Service, faulty: Running) -> None:
    subscription = service.subscription(service.topic())
    topic = service.subscriber.get_subscription(subscription=subscription).topic
    plan(faulty, {"duplicate": 1})
    [id] = service.publish(topic, b"a")
    twice = service.pull_all(subscription, 2)
    assert [message.message.message_id for message in twice] == [id, id]


def test_a_lost_ack_brings_the_message_back(service: Service, faulty: Running) -> None:
    topic = service.topic()
    subscription = service.subscription(topic)
    plan(faulty, {"loseAck": 1})
    service.publish(topic, b"a")
    [message] = service.pull(subscription)
    service.ack(subscription, message)
    plan(faulty, {})
    service.nack(subscription, message)  # as its deadline would
    assert datas(service.pull_all(subscription, 1)) == [b"a"]


def test_a_cut_stream_loses_its_messages_until_their_deadline(service: Service, faulty: Running) -> None:
    topic = service.topic()
    subscription = service.subscription(topic)
    service.publish(topic, b"a")
    plan(faulty, {"cutStream": 1})
    stream = service.stream(subscription)
    assert not next(stream).received_messages
    with pytest.raises(exceptions.ServiceUnavailable):
        next(stream)
    service.publish(topic, b"b")
    assert datas(service.pull(subscription)) == [b"b"]


def test_the_client_opens_a_cut_stream_again(service: Service, faulty: Running) -> None:
    topic = service.topic()
    subscription = service.subscription(topic)
    arrived: Queue[bytes] = Queue()

    def take(message: Any) -> None:
        arrived.put(message.data)
        message.ack()

    with service.streaming(subscription, take):
        service.publish(topic, b"whole")
        assert arrived.get(timeout=DEADLINE) == b"whole"
        plan(faulty, {"cutStream": 0.5, "seed": CUTS_THE_FIRST})
        service.publish(topic, b"lost")
        service.publish(topic, b"after")
        assert arrived.get(timeout=DEADLINE) == b"after"


def test_a_call_is_refused_as_unavailable(service: Service, faulty: Running) -> None:
    topic = service.topic()
    plan(faulty, {"unavailable": 1})
    with pytest.raises(exceptions.ServiceUnavailable, match="a fault that was asked for"):
        service.publisher.get_topic(topic=topic, retry=None)


def test_a_stream_is_refused_as_unavailable(service: Service, faulty: Running) -> None:
    subscription = service.subscription(service.topic())
    plan(faulty, {"unavailable": 1})
    with pytest.raises(exceptions.ServiceUnavailable, match="a fault that was asked for"):
        next(service.stream(subscription))


def test_the_client_tries_an_unavailable_call_again(service: Service, faulty: Running) -> None:
    topic = service.topic()
    plan(faulty, {"unavailable": 0.5, "seed": 1})
    refused: list[Exception] = []
    retry = Retry(initial=0.01, on_error=refused.append, timeout=DEADLINE)
    for _ in range(10):
        assert service.publisher.get_topic(topic=topic, retry=retry).name == topic
    assert refused


def test_a_call_comes_late(service: Service, faulty: Running) -> None:
    topic = service.topic()
    plan(faulty, {"slow": 1, "slowSeconds": 60})
    with pytest.raises(exceptions.DeadlineExceeded):
        service.publisher.get_topic(topic=topic, retry=None, timeout=0.2)


def test_a_delivery_comes_late(service: Service, faulty: Running) -> None:
    topic = service.topic()
    stream = service.stream(service.subscription(topic))
    next(stream)
    endpoint: Queue[float] = Queue()

    async def reply(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(204))
        endpoint.put(time.monotonic())

    with web_server_in_a_thread(reply) as server:
        service.subscription(topic, push_config={"push_endpoint": server.url})
        service.publish(topic, b"first")
        endpoint.get(timeout=DEADLINE)
        next(stream)
        plan(faulty, {"slow": 1, "slowSeconds": 0.2})
        begin = time.monotonic()
        service.publish_at_once(topic, {"data": b"late"})  # late itself
        next(stream)
        assert time.monotonic() - begin >= 0.4
        assert endpoint.get(timeout=DEADLINE) - begin >= 0.4


@pytest.mark.parametrize("wrong", [{"duplicate": 1.1}, {"duplicate": "often"}, {"dubplicate": 1}])
def test_a_plan_that_cannot_be_is_refused_and_the_old_one_stays(
    faulty: Running, wrong: dict[str, float]
) -> None:
    plan(faulty, {"slow": 0.001})
    assert plan(faulty, wrong).status_code == 400
    now = httpx.get(f"{faulty.http}/faults", trust_env=False).json()
    assert (now["slow"], now["duplicate"]) == (0.001, 0)
    plan(faulty, {})


def test_one_seed_gives_the_same_faults_again() -> None:
    def strikes(seed: int, *also: str) -> list[bool]:
        faults = Faults(Plan(duplicate=0.5, slow=0.5, seed=seed))
        found: list[bool] = []
        for _ in range(50):
            found.append(faults.strikes("duplicate"))
            if also:
                faults.strikes("slow")
        return found

    assert strikes(7) == strikes(7) == strikes(7, "beside another fault")
    assert strikes(7) != strikes(8)


def test_a_plan_that_is_set_again_begins_anew() -> None:
    faults = Faults()
    found: list[list[bool]] = []
    for _ in range(2):
        faults.set(Plan(duplicate=0.5))
        found.append([faults.strikes("duplicate") for _ in range(50)])
    assert found[0] == found[1]


def test_without_a_plan_nothing_goes_wrong() -> None:
    faults = Faults()
    assert not any(
        faults.strikes(name) for name in ("duplicate", "lose_ack", "cut_stream", "unavailable", "slow")
    )


def test_a_plan_says_itself_in_full() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Plan(seed=3))) == {
        "duplicate": 0,
        "loseAck": 0,
        "cutStream": 0,
        "unavailable": 0,
        "slow": 0,
        "slowSeconds": 1,
        "seed": 3,
    }
