"""Push subscriptions: what an endpoint receives, who it can tell it is from, and what its answers do."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from queue import Queue
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from emulating import Running
from google.api_core import exceptions
from google.auth.transport import requests
from google.oauth2 import id_token
from service import DEADLINE, Service, datas

from web_server import Received, WebServer, answer, web_server_in_a_thread

ACCOUNT = "pusher@test.iam.gserviceaccount.com"


class Endpoint:
    """Answers each push with the next of its statuses, the last one for ever; None hangs up."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = [204]
        self.received: Queue[Received] = Queue()
        self.server: WebServer

    async def reply(self, received: Received, writer: asyncio.StreamWriter) -> None:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(answer(status) if status else b"")
        self.received.put(received)

    @property
    def url(self) -> str:
        return f"{self.server.url}/push"

    def next(self) -> Received:
        return self.received.get(timeout=DEADLINE)

    def next_data(self) -> bytes:
        return base64.b64decode(json.loads(self.next().body)["message"]["data"])


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    with web_server_in_a_thread(endpoint.reply) as endpoint.server:
        yield endpoint


@pytest.fixture
def topic(emulated: Service) -> str:
    return emulated.topic()


def pushed(
    emulated: Service, topic: str, endpoint: Endpoint, push: dict[str, Any] | None = None, **config: Any
) -> str:
    return emulated.subscription(topic, push_config={"push_endpoint": endpoint.url, **(push or {})}, **config)


def test_a_message_is_pushed_in_the_documented_envelope(
    emulated: Service, topic: str, endpoint: Endpoint
) -> None:
    subscription = pushed(emulated, topic, endpoint)
    [id] = emulated.publish(topic, b"\x00data", key="k", colour="blue")
    received = endpoint.next()
    assert (received.method, received.target) == ("POST", "/push")
    assert received.header("content-type") == "application/json"
    assert received.header("authorization") is None
    body = json.loads(received.body)
    at = body["message"]["publishTime"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(at)) < timedelta(minutes=1)
    assert body == {
        "message": {
            "data": base64.b64encode(b"\x00data").decode(),
            "attributes": {"colour": "blue"},
            "messageId": id,
            "message_id": id,
            "publishTime": at,
            "publish_time": at,
            "orderingKey": "k",
        },
        "subscription": subscription,
    }


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_these_answers_are_acks(emulated: Service, topic: str, endpoint: Endpoint, status: int) -> None:
    endpoint.statuses = [status]
    pushed(emulated, topic, endpoint, enable_message_ordering=True)
    emulated.publish(topic, b"1", b"2", key="k")
    assert [endpoint.next_data(), endpoint.next_data()] == [b"1", b"2"]


@pytest.mark.parametrize("status", [203, 301, 400, 429, 503, None])
def test_after_any_other_answer_the_message_is_pushed_again(
    emulated: Service, topic: str, endpoint: Endpoint, status: int | None
) -> None:
    endpoint.statuses = [status, 204]
    pushed(emulated, topic, endpoint, enable_message_ordering=True)
    emulated.publish(topic, b"1", b"2", key="k")
    assert [endpoint.next_data() for _ in range(3)] == [b"1", b"1", b"2"]


def test_a_push_that_fails_too_often_becomes_a_dead_letter(
    emulated: Service, topic: str, endpoint: Endpoint
) -> None:
    endpoint.statuses = [500]
    graves = emulated.topic()
    grave = emulated.subscription(graves)
    pushed(
        emulated,
        topic,
        endpoint,
        dead_letter_policy={"dead_letter_topic": graves},
        retry_policy={"minimum_backoff": {"seconds": 0}, "maximum_backoff": {"seconds": 0}},
    )
    emulated.publish(topic, b"poison")
    assert datas(emulated.pull(grave)) == [b"poison"]
    assert [json.loads(endpoint.next().body)["deliveryAttempt"] for _ in range(5)] == [1, 2, 3, 4, 5]


def test_googles_own_library_accepts_the_token_of_a_push(
    emulated: Service, emulator: Running, topic: str, endpoint: Endpoint
) -> None:
    token = {"service_account_email": ACCOUNT, "audience": "the audience"}
    pushed(emulated, topic, endpoint, {"oidc_token": token})
    emulated.publish(topic, b"a")
    [scheme, signed] = str(endpoint.next().header("authorization")).split()
    with requests.requests.Session() as session:
        claims: Any = id_token.verify_token(
            signed,
            requests.Request(session),
            audience="the audience",
            certs_url=f"{emulator.http}/oauth2/v1/certs",
        )
    assert scheme == "Bearer"
    assert (claims["iss"], claims["email"]) == ("https://accounts.google.com", ACCOUNT)
    assert claims["email_verified"] is True
    assert claims["sub"]
    assert claims["iat"] <= time.time() < claims["exp"] <= claims["iat"] + 3600


def test_the_token_is_signed_by_the_key_of_the_key_set(
    emulated: Service, emulator: Running, topic: str, endpoint: Endpoint
) -> None:
    pushed(emulated, topic, endpoint, {"oidc_token": {"service_account_email": ACCOUNT}})
    emulated.publish(topic, b"a")
    head, claims, signature = str(endpoint.next().header("authorization")).split()[1].split(".")
    [key] = httpx.get(f"{emulator.http}/oauth2/v3/certs", trust_env=False).json()["keys"]
    assert json.loads(decoded(head)) == {"alg": "RS256", "typ": "JWT", "kid": key["kid"]}
    assert json.loads(decoded(claims))["aud"] == endpoint.url
    numbers = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"]))
    numbers.public_key().verify(
        decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    return int.from_bytes(decoded(text))


def test_a_subscription_to_pull_can_become_one_that_pushes_and_back(
    emulated: Service, topic: str, endpoint: Endpoint
) -> None:
    subscription = emulated.subscription(topic)
    emulated.subscriber.modify_push_config(
        subscription=subscription, push_config={"push_endpoint": endpoint.url}
    )
    emulated.publish(topic, b"pushed")
    assert endpoint.next_data() == b"pushed"
    with pytest.raises(exceptions.FailedPrecondition):
        emulated.pull(subscription)
    emulated.subscriber.modify_push_config(subscription=subscription, push_config={})
    emulated.publish(topic, b"pulled")
    assert datas(emulated.pull_all(subscription, 1)) == [b"pulled"]
    assert endpoint.received.empty()
