"""Opens the event bus that an address names."""

from __future__ import annotations

from jobyard.bus.nats import NatsBus
from jobyard.bus.postgres import PostgresBus
from jobyard.bus.pubsub import PubsubBus
from jobyard.config import BusAddress
from jobyard.ports import Clock, EventBus


def open_bus(address: BusAddress, database_url: str, clock: Clock) -> EventBus:
    """Nothing is connected yet. Raises JobyardError where the client of this bus is not installed."""
    match address.kind:
        case "postgres":
            return PostgresBus(database_url, clock)
        case "nats":
            return NatsBus(address.url, clock)
        case "pubsub":
            return PubsubBus(address.url, clock)
        case other:
            raise ValueError(other)
