"""A consumer in a process of its own, which takes messages, tells their ids, and never acks: `python -m contract.consumer
postgres|nats|pubsub ADDRESS NAMESPACE`."""

from __future__ import annotations

import asyncio
import sys

from jobyard.bus.nats import NatsBus
from jobyard.bus.postgres import PostgresBus
from jobyard.bus.pubsub import PubsubBus
from jobyard.clock import SystemClock
from jobyard.ports import EventBus, Subscription


def opened(kind: str, address: str, namespace: str) -> EventBus:
    match kind:
        case "postgres":
            return PostgresBus(address, SystemClock())
        case "nats":
            return NatsBus(address, SystemClock())
        case _:
            return PubsubBus(address, SystemClock(), namespace)


async def main() -> None:
    bus = opened(*sys.argv[1:])
    async with bus.subscribe(Subscription("orders", "mailer", ack_seconds=1.0), 10) as deliveries:
        async for delivery in deliveries:
            sys.stdout.write(f"{delivery.message.id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
