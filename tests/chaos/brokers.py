"""The message brokers that a run of the harness needs, and who meddles and listens there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.follower import Follower
from chaos.jobs import TYPES
from chaos.meddler import HEARD, TOLD, Meddler
from contract.nats_server import NatsServer
from contract.pubsub_server import PubsubServer
from jobyard.bus.nats import NatsBus
from jobyard.clock import SystemClock


@dataclass(frozen=True, slots=True)
class Brokers:
    """`announced_over` and `heard_over`: JOBYARD_BUS of the maintainer and of the workers; `settings`: more of all processes.
    `killable`: may be killed and started again. `switches`: the buses that a fleet goes through."""

    announced_over: str = "postgres"
    heard_over: str = "postgres"
    settings: dict[str, str] = field(default_factory=dict[str, str])
    killable: NatsServer | None = None
    meddler: Meddler | None = None
    follower: Follower | None = None
    switches: tuple[str, ...] = ()


@asynccontextmanager
async def a_bad_one(folder: Path, seed: int) -> AsyncGenerator[Brokers]:
    """NATS, with a meddler between who announces and who hears, and a service that follows all events."""
    server = _nats(folder)
    bus = NatsBus(server.url, SystemClock())
    meddler, follower = Meddler(bus, seed, TYPES), Follower(bus, TOLD)
    try:
        async with follower.following(), meddler.meddling():
            yield Brokers(
                f"{server.url}/{TOLD}",
                f"{server.url}/{HEARD}",
                {"JOBYARD_EVENTS": "on"},
                server,
                meddler,
                follower,
            )
    finally:
        await bus.close()
        server.kill()


@asynccontextmanager
async def several(folder: Path) -> AsyncGenerator[Brokers]:
    """NATS and Pub/Sub, for a fleet that begins with PostgreSQL and comes back to it."""
    nats, pubsub = _nats(folder), PubsubServer("")
    pubsub.start()
    buses = ("postgres", nats.url, f"pubsub://{pubsub.project}", "postgres")
    try:
        yield Brokers(settings={"PUBSUB_EMULATOR_HOST": f"{pubsub.host}:{pubsub.port}"}, switches=buses)
    finally:
        nats.kill()
        pubsub.kill()


@asynccontextmanager
async def none() -> AsyncGenerator[Brokers]:
    yield Brokers()


def _nats(folder: Path) -> NatsServer:
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    server.start()
    return server
