"""What one subscription still has to deliver. Pure: the time is an argument, so a test can be at any moment.

Messages stand in lines. Those of one ordering key share a line, in the order in which they were published; any other
message is a line of its own. A line offers its head when that may be delivered, and nothing while its head is leased or
put off: that is all there is to the order of a key.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

DAY = 24 * 3600
BATCH_BYTES = 10_000_000
"""A delivery stops growing here: clients limit what they take in at once."""

Moment = float
"""Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str
    published: Moment

    @property
    def size(self) -> int:
        texts = itertools.chain([self.ordering_key], *self.attributes.items())
        return len(self.data) + sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a message is put off after it failed: twice as long each time."""

    least: float
    most: float

    def after(self, failures: int) -> float:
        return min(self.most, self.least * 2 ** min(failures - 1, 60))


AT_ONCE = Backoff(0, 0)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a subscription asks for."""

    ack_seconds: float = 10
    ordered: bool = False
    retention_seconds: float = 7 * DAY
    backoff: Backoff = AT_ONCE
    max_attempts: int | None = None
    """After so many a message is buried as a dead letter; None: never."""


@dataclass(slots=True)
class Receiver:
    """Whoever it is delivered to: how much may be outstanding there, and for how long. None is no wish."""

    max_messages: int | None = None
    max_bytes: int | None = None
    ack_seconds: float | None = None
    messages: int = 0
    bytes: int = 0

    @property
    def has_room(self) -> bool:
        return (self.max_messages is None or self.messages < self.max_messages) and (
            self.max_bytes is None or self.bytes < self.max_bytes
        )

    def take(self, message: Message) -> None:
        self.messages += 1
        self.bytes += message.size

    def give_back(self, message: Message) -> None:
        self.messages -= 1
        self.bytes -= message.size


@dataclass(slots=True)
class Entry:
    """A message on its way through one subscription."""

    message: Message
    failures: int = 0


@dataclass(slots=True, eq=False)
class Line:
    """Entries that are delivered one after the other."""

    key: str | None = None
    entries: deque[Entry] = field(default_factory=deque[Entry])

    @property
    def head(self) -> Entry:
        return self.entries[0]


@dataclass(slots=True)
class Lease:
    """A delivery that nobody has answered yet."""

    ack_id: str
    line: Line
    until: Moment
    receiver: Receiver
    message: Message = field(init=False)
    attempt: int = field(init=False)

    def __post_init__(self) -> None:
        self.message = self.line.head.message
        self.attempt = self.line.head.failures + 1


Bury = Callable[[Message, int], bool]
"""Takes in a dead letter and how often it was delivered; False where it cannot, and the message is delivered on."""


class Backlog:
    def __init__(self, rules: Rules, bury: Bury) -> None:
        self.rules = rules
        self._bury = bury
        self._ready: deque[Line] = deque()
        self._put_off: list[tuple[Moment, int, Line]] = []
        self._of_key: dict[str, Line] = {}
        self._leases: dict[str, Lease] = {}
        self._ends: list[tuple[Moment, str]] = []
        self._numbers = itertools.count(1)

    def add(self, message: Message) -> None:
        key = message.ordering_key if self.rules.ordered else ""
        line = self._of_key.get(key) if key else None
        if line is None:
            line = Line(key or None)
            if key:
                self._of_key[key] = line
            self._ready.append(line)
        line.entries.append(Entry(message))

    def repeat(self, lease: Lease) -> None:
        """Deliver its message once more, whatever becomes of this delivery."""
        again = Entry(lease.message, lease.attempt - 1)
        if lease.line.key:
            lease.line.entries.insert(1, again)
        else:
            self._ready.append(Line(entries=deque([again])))

    def take(self, limit: int, now: Moment, *, receiver: Receiver | None = None) -> list[Lease]:
        """Lease what is ready, within the limits."""
        self.pass_time(now)
        receiver = receiver or Receiver()
        until = now + (receiver.ack_seconds or self.rules.ack_seconds)
        taken: list[Lease] = []
        size = 0
        while self._ready and len(taken) < limit and size < BATCH_BYTES and receiver.has_room:
            line = self._ready.popleft()
            if self._has_fresh(line, now):
                taken.append(self._lease(line, until, receiver))
                size += line.head.message.size
        return taken

    def ack(self, ack_ids: Iterable[str], now: Moment) -> None:
        """Done with. An id whose lease is over changes nothing: its message is delivered again."""
        self.pass_time(now)
        for lease in self._known(ack_ids):
            self._end(lease)
            self._drop_head(lease.line)

    def extend(self, ack_ids: Iterable[str], seconds: float, now: Moment) -> None:
        """Lease for so long from now on; for 0 seconds is to give it back."""
        self.pass_time(now)
        for lease in self._known(ack_ids):
            if seconds:
                lease.until = now + seconds
                heapq.heappush(self._ends, (lease.until, lease.ack_id))
            else:
                self._fail(lease, now)

    def pass_time(self, now: Moment) -> None:
        """End the leases that are over, and offer again what was put off until now."""
        while self._ends and self._ends[0][0] <= now:
            end, ack_id = heapq.heappop(self._ends)
            lease = self._leases.get(ack_id)
            if lease and lease.until == end:
                self._fail(lease, end)
        while self._put_off and self._put_off[0][0] <= now:
            self._ready.append(heapq.heappop(self._put_off)[2])

    def next_change(self) -> Moment | None:
        """When time alone changes something, at the earliest."""
        moments = [heap[0][0] for heap in (self._ends, self._put_off) if heap]
        return min(moments, default=None)

    def clear(self) -> None:
        """Forget everything."""
        for lease in list(self._leases.values()):
            self._end(lease)
        self._ready.clear()
        self._put_off.clear()
        self._of_key.clear()
        self._ends.clear()

    def __len__(self) -> int:
        leased = (lease.line for lease in self._leases.values())
        put_off = (line for _, _, line in self._put_off)
        return sum(len(line.entries) for line in itertools.chain(self._ready, put_off, leased))

    def _lease(self, line: Line, until: Moment, receiver: Receiver) -> Lease:
        lease = Lease(f"{line.head.message.id}:{next(self._numbers)}", line, until, receiver)
        self._leases[lease.ack_id] = lease
        heapq.heappush(self._ends, (until, lease.ack_id))
        receiver.take(lease.message)
        return lease

    def _known(self, ack_ids: Iterable[str]) -> Iterator[Lease]:
        return (lease for ack_id in ack_ids if (lease := self._leases.get(ack_id)))

    def _end(self, lease: Lease) -> None:
        del self._leases[lease.ack_id]
        lease.receiver.give_back(lease.message)

    def _fail(self, lease: Lease, now: Moment) -> None:
        self._end(lease)
        entry = lease.line.head
        entry.failures += 1
        limit = self.rules.max_attempts
        if limit is not None and entry.failures >= limit and self._bury(entry.message, entry.failures):
            self._drop_head(lease.line)
        elif wait := self.rules.backoff.after(entry.failures):
            heapq.heappush(self._put_off, (now + wait, next(self._numbers), lease.line))
        else:
            self._ready.append(lease.line)

    def _drop_head(self, line: Line) -> None:
        """The next of its line takes its place among the ready, if there is one."""
        line.entries.popleft()
        if line.entries:
            self._ready.append(line)
        else:
            self._forget(line)

    def _has_fresh(self, line: Line, now: Moment) -> bool:
        """Whether anything of it is left, after dropping what was kept for as long as it had to be."""
        while line.entries and line.head.message.published + self.rules.retention_seconds <= now:
            line.entries.popleft()
        if not line.entries:
            self._forget(line)
        return bool(line.entries)

    def _forget(self, line: Line) -> None:
        if line.key:
            del self._of_key[line.key]
