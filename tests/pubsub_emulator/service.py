"""The official clients on one project, with names for what most tests do."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.futures import StreamingPullFuture
from google.cloud.pubsub_v1.types import (
    PublisherOptions,
    ReceivedMessage,
    StreamingPullRequest,
    StreamingPullResponse,
)
from google.pubsub_v1 import PublisherClient

DEADLINE = 20.0


class Service:
    def __init__(self, project: str) -> None:
        self.project = project
        ordering = PublisherOptions(enable_message_ordering=True)
        self.publisher: Any = pubsub_v1.PublisherClient(publisher_options=ordering)
        self.subscriber: Any = pubsub_v1.SubscriberClient()
        self._made: list[tuple[Any, dict[str, str]]] = []

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        for delete, names in reversed(self._made):
            with contextlib.suppress(GoogleAPICallError):
                delete(**names, retry=None)
        self.publisher.stop()
        self.publisher.transport.close()
        self.subscriber.close()

    def topic(self, **config: Any) -> str:
        name = f"projects/{self.project}/topics/t-{uuid.uuid4().hex[:12]}"
        self.publisher.create_topic(request={"name": name, **config})
        self._made.append((self.publisher.delete_topic, {"topic": name}))
        return name

    def subscription(self, topic: str, **config: Any) -> str:
        name = f"projects/{self.project}/subscriptions/s-{uuid.uuid4().hex[:12]}"
        self.subscriber.create_subscription(request={"name": name, "topic": topic, **config})
        self._made.append((self.subscriber.delete_subscription, {"subscription": name}))
        return name

    def publish(self, topic: str, *datas: bytes, key: str = "", **attributes: str) -> list[str]:
        """Through the high-level publisher, one after the other."""
        futures = [self.publisher.publish(topic, data, ordering_key=key, **attributes) for data in datas]
        return [future.result(DEADLINE) for future in futures]

    def publish_at_once(self, topic: str, *messages: dict[str, Any]) -> list[str]:
        """In one request."""
        plain: Any = PublisherClient(transport=self.publisher.transport)
        return list(plain.publish(topic=topic, messages=messages).message_ids)

    def pull(self, subscription: str, limit: int = 100) -> list[ReceivedMessage]:
        """What one pull brings, waiting for the first."""
        response = self.subscriber.pull(subscription=subscription, max_messages=limit, timeout=DEADLINE)
        return list(response.received_messages)

    def pull_all(self, subscription: str, count: int, *, ack: bool = True) -> list[ReceivedMessage]:
        """So many, in as many pulls as it takes."""
        found: list[ReceivedMessage] = []
        end = time.monotonic() + DEADLINE
        while len(found) < count and time.monotonic() < end:
            got = self.pull(subscription, count - len(found))
            if ack:
                self.ack(subscription, *got)
            found += got
        return found

    def stream(self, subscription: str) -> Iterator[StreamingPullResponse]:
        """A bare one, whose client stays and has no more to say."""

        def requests() -> Iterator[StreamingPullRequest]:
            yield StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10)
            threading.Event().wait()

        return self.subscriber.streaming_pull(requests(), timeout=DEADLINE)

    @contextlib.contextmanager
    def streaming(
        self, subscription: str, take: Callable[[Any], None], **options: Any
    ) -> Generator[StreamingPullFuture]:
        """The high-level subscriber, while the context is open."""
        future = self.subscriber.subscribe(subscription, callback=take, **options)
        try:
            yield future
        finally:
            future.cancel()
            future.result(DEADLINE)

    def ack(self, subscription: str, *messages: ReceivedMessage) -> None:
        if messages:
            ack_ids = [message.ack_id for message in messages]
            self.subscriber.acknowledge(subscription=subscription, ack_ids=ack_ids)

    def extend(self, subscription: str, seconds: int, *messages: ReceivedMessage) -> None:
        self.subscriber.modify_ack_deadline(
            subscription=subscription,
            ack_ids=[message.ack_id for message in messages],
            ack_deadline_seconds=seconds,
        )

    def nack(self, subscription: str, *messages: ReceivedMessage) -> None:
        self.extend(subscription, 0, *messages)


def datas(messages: list[ReceivedMessage]) -> list[bytes]:
    return [message.message.data for message in messages]
