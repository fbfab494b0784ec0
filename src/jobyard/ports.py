"""The seams where another implementation can stand: what carries messages, what wakes workers, and what tells and passes
time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from jobyard.domain.errors import JobyardError


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Work has become ready. `lanes`: where; empty means anywhere. `workers`: who should look; empty means all."""

    lanes: frozenset[int] = frozenset()
    workers: frozenset[int] = frozenset()


class WakeUps(Protocol):
    """What wakes an idle worker. Only a hint: polling finds every job, a lost message is a delay and never a loss."""

    def subscribe(self, on_wake: Callable[[WakeUp], None]) -> AbstractAsyncContextManager[None]:
        """Call `on_wake` for every wake-up while the context is open, and once after each reconnection."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether wake-ups arrive now."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """`id` stays the same on every repeat. Messages of one `key` come in the order they were published, where the bus can;
    none means no order."""

    id: str
    body: bytes
    key: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Subscription:
    """A name under which any number of subscribers share the messages of a topic: each goes to one of them, and again, to
    any of them, until it is acked. `ack_seconds`: how long a delivery may take before it is taken for lost, unless it is
    extended. `max_deliveries`: after so many the message is set aside, where the bus can."""

    topic: str
    name: str
    ack_seconds: float = 30.0
    max_deliveries: int = 20


class Delivery(Protocol):
    """A message in somebody's hands. What is done with it too late, or twice, changes nothing and is no error; nor is it
    one that the bus cannot be reached: then the message comes again."""

    @property
    def message(self) -> Message: ...

    @property
    def attempt(self) -> int:
        """How often the bus has delivered it, this time included; 0 where it does not count."""
        ...

    async def ack(self) -> None:
        """Never again."""
        ...

    async def nack(self, delay_seconds: float = 0.0) -> None:
        """Again, after this time where the bus can, else when it likes."""
        ...

    async def extend(self, seconds: float) -> None:
        """It takes so much longer from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a bus does by itself, so that whoever uses it need not. `largest_message`: bytes of a body."""

    delays: bool
    orders: bool
    deduplicates: bool
    sets_aside: bool
    largest_message: int


class BusUnavailable(JobyardError):
    """The bus cannot be reached, or did not say that it has the messages: some may be published, and all may be again."""


class MessageTooLarge(JobyardError):
    """None of the batch is published."""


class EventBus(Protocol):
    """Carries messages from whoever publishes to every subscription of the topic, at least once. It knows nothing of jobs."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def healthy(self) -> bool:
        """Whether it could be reached when it was last needed."""
        ...

    async def ensure(self, topic: str, subscriptions: Sequence[Subscription] = ()) -> None:
        """Make what is missing of the topic and these subscriptions, and change none that is there. A subscription has
        what is published from then on. Raises BusUnavailable."""
        ...

    async def publish(self, topic: str, messages: Sequence[Message], /) -> None:
        """Returns when the bus keeps all of them. Raises BusUnavailable and MessageTooLarge."""
        ...

    def subscribe(
        self, subscription: Subscription, in_flight: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Deliveries as long as the context is open, with at most `in_flight` of them neither acked nor nacked: what is
        answered in neither way keeps its room. Trouble on the way is waited out. What is open at the end comes to others."""
        ...

    async def close(self) -> None: ...


class Clock(Protocol):
    """Elapsed time inside this process. What is due, and when, is for the database's clock to say."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    async def sleep(self, seconds: float) -> None: ...
