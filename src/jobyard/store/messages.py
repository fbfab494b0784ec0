"""Messages in PostgreSQL: published once to every subscription of a topic, and given out until they are acked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from jobyard.ports import Message, Subscription
from jobyard.store.database import Connection, repeated_when_transient
from jobyard.store.statements import statement

CHANNEL = "jobyard_message"
"""Notified with the name of the topic whenever something was published."""

KEPT_SECONDS = 3600.0
"""How long a message is known by its id, so that a repeat of it is none."""

EXPIRE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Given:
    """A message, where it stands, and how often it was given."""

    seq: int
    deliveries: int
    message: Message


async def make(connection: Connection, topic: str, subscriptions: Sequence[Subscription]) -> None:
    await connection.execute(
        statement("subscription_make"),
        topic,
        [subscription.name for subscription in subscriptions],
        [subscription.ack_seconds for subscription in subscriptions],
        [subscription.max_deliveries for subscription in subscriptions],
    )


async def publish(connection: Connection, topic: str, messages: Sequence[Message]) -> None:
    async def once() -> None:
        await connection.execute(
            statement("message_publish"),
            topic,
            [message.id for message in messages],
            [message.key for message in messages],
            [message.body for message in messages],
            [json.dumps(dict(message.attributes)) for message in messages],
            CHANNEL,
        )

    await repeated_when_transient(once)


async def take(connection: Connection, subscription: str, limit: int) -> tuple[list[Given], list[Message]]:
    """Up to `limit` messages to deliver, oldest first; and those that were delivered too often and are set aside now."""
    rows = await connection.fetch(statement("message_take"), subscription, limit)
    given = [
        Given(
            row["seq"],
            row["deliveries"],
            Message(row["id"], row["body"], row["key"], json.loads(row["attributes"])),
        )
        for row in rows
        if not row["set_aside"]
    ]
    return given, [
        Message(row["id"], row["body"], row["key"], json.loads(row["attributes"]))
        for row in rows
        if row["set_aside"]
    ]


async def ack(connection: Connection, subscription: str, given: Sequence[tuple[int, int]]) -> None:
    """Done with these (seq, deliveries)."""
    ordered = sorted(given)
    await connection.execute(
        statement("message_ack"), subscription, [seq for seq, _ in ordered], [times for _, times in ordered]
    )


async def give_again(
    connection: Connection, subscription: str, seq: int, deliveries: int, seconds: float
) -> None:
    await connection.execute(statement("message_move"), subscription, seq, deliveries, seconds)


async def delete_old(connection: Connection) -> int:
    """Delete one batch of messages that nobody wants any more; how many went."""
    return await connection.fetchval(statement("message_expire"), KEPT_SECONDS, EXPIRE_ROWS)
