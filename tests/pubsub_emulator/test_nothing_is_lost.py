"""Whatever is done to a subscription, in whatever order: nothing is lost, nothing comes back after its ack, and keys keep
their order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jobyard.pubsub_emulator.backlog import Backlog, Backoff, Message, Rules

ACK_SECONDS = 10


class Subscription(RuleBasedStateMachine):
    """A backlog, and beside it what a careful observer would write down."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(
            Rules(ACK_SECONDS, ordered=True, backoff=Backoff(1, 30), max_attempts=5), self.bury
        )
        self.now = 0.0
        self.published: list[Message] = []
        self.over: set[str] = set()
        """Acked while leased, or buried."""
        self.leased: dict[str, tuple[str, float]] = {}
        """Message and end by ack id."""
        self.settled: dict[str, list[str]] = defaultdict(list)
        """The messages of each key in the order in which they were over."""

    def bury(self, message: Message, attempts: int) -> bool:
        assert attempts == 5
        self.end(message.id)
        return True

    def end(self, id: str) -> None:
        assert id not in self.over
        self.over.add(id)
        self.settled[self.published[int(id)].ordering_key].append(id)

    def lives(self, ack_id: str) -> bool:
        return self.leased[ack_id][1] > self.now

    @rule(key=st.sampled_from(["", "", "k", "l"]))
    def publish(self, key: str) -> None:
        message = Message(str(len(self.published)), b"", {"a": "b"}, key, self.now)
        self.published.append(message)
        self.backlog.add(message)

    @rule(limit=st.integers(1, 4))
    def deliver(self, limit: int) -> None:
        out = {id for ack_id, (id, _) in self.leased.items() if self.lives(ack_id)}
        for lease in self.backlog.take(limit, self.now):
            assert lease.message.id not in self.over | out
            out.add(lease.message.id)
            self.leased[lease.ack_id] = (lease.message.id, self.now + ACK_SECONDS)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        ack_id = data.draw(st.sampled_from(sorted(self.leased)))
        self.backlog.pass_time(self.now)
        if self.lives(ack_id):
            self.end(self.leased[ack_id][0])
        self.backlog.ack([ack_id], self.now)
        del self.leased[ack_id]

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), seconds=st.sampled_from([0, 1, 20]))
    def extend(self, data: st.DataObject, seconds: float) -> None:
        ack_id = data.draw(st.sampled_from(sorted(self.leased)))
        id, _ = self.leased[ack_id]
        if self.lives(ack_id):
            self.leased[ack_id] = (id, self.now + seconds)
        self.backlog.extend([ack_id], seconds, self.now)

    @rule(seconds=st.sampled_from([0.5, 3, 10, 40]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def all_that_is_not_over_is_still_there(self) -> None:
        self.backlog.pass_time(self.now)
        assert len(self.backlog) == len(self.published) - len(self.over)

    @invariant()
    def a_key_is_done_in_the_order_of_its_messages(self) -> None:
        for key, ids in self.settled.items():
            assert not key or ids == sorted(ids, key=int)

    def teardown(self) -> None:
        """In the end all of it is delivered to whoever keeps acking."""
        for _ in range(2 * len(self.published) + 1):
            self.now += 60
            for lease in self.backlog.take(1000, self.now):
                self.end(lease.message.id)
                self.backlog.ack([lease.ack_id], self.now)
        assert len(self.over) == len(self.published)


test_nothing_is_lost_or_comes_back_and_keys_keep_their_order = Subscription.TestCase
