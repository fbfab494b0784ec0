"""What a subscription delivers, when, and how often: the rules without a network, at any moment we like."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from jobyard.pubsub_emulator.backlog import Backlog, Backoff, Lease, Message, Receiver, Rules


class Graveyard:
    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.buried: list[tuple[str, int]] = []

    def bury(self, message: Message, attempts: int) -> bool:
        if self.is_open:
            self.buried.append((message.id, attempts))
        return self.is_open


def message(id: str, key: str = "", *, data: bytes = b"x", published: float = 0) -> Message:
    return Message(id, data, {}, key, published)


def backlog_of(ids: Iterable[str], rules: Rules | None = None, key: str = "") -> Backlog:
    backlog = Backlog(rules or Rules(), Graveyard().bury)
    for id in ids:
        backlog.add(message(id, key))
    return backlog


def ids(leases: Iterable[Lease]) -> list[str]:
    return [lease.message.id for lease in leases]


def take(backlog: Backlog, now: float, limit: int = 100) -> list[str]:
    return ids(backlog.take(limit, now))


def ack_ids(leases: Iterable[Lease]) -> list[str]:
    return [lease.ack_id for lease in leases]


def test_a_leased_message_is_not_delivered_again_before_its_deadline() -> None:
    backlog = backlog_of("a", Rules(ack_seconds=10))
    assert take(backlog, 0) == ["a"]
    assert take(backlog, 9.9) == []
    assert take(backlog, 10) == ["a"]


def test_an_acked_message_is_gone() -> None:
    backlog = backlog_of("ab")
    [first, _] = backlog.take(2, 0)
    backlog.ack([first.ack_id], 1)
    assert take(backlog, 60) == ["b"]
    assert len(backlog) == 1


def test_an_ack_after_the_deadline_changes_nothing() -> None:
    backlog = backlog_of("a")
    [late] = backlog.take(1, 0)
    backlog.ack([late.ack_id], 10)
    [again] = backlog.take(1, 11)
    assert again.ack_id != late.ack_id
    backlog.ack([late.ack_id], 12)
    assert len(backlog) == 1


def test_a_lease_that_is_extended_lasts_from_then_on() -> None:
    backlog = backlog_of("a")
    [lease] = backlog.take(1, 0)
    backlog.extend([lease.ack_id], 30, 9)
    assert take(backlog, 38.9) == []
    assert take(backlog, 39) == ["a"]


def test_a_lease_may_be_shortened() -> None:
    backlog = backlog_of("a", Rules(ack_seconds=600))
    [lease] = backlog.take(1, 0)
    backlog.extend([lease.ack_id], 5, 0)
    assert take(backlog, 5) == ["a"]


def test_an_extension_of_no_seconds_gives_the_message_back() -> None:
    backlog = backlog_of("a")
    [lease] = backlog.take(1, 0)
    backlog.extend([lease.ack_id], 0, 1)
    assert take(backlog, 1) == ["a"]


def test_messages_of_one_key_come_one_after_the_other() -> None:
    backlog = backlog_of("abc", Rules(ordered=True), key="k")
    seen: list[str] = []
    while leases := backlog.take(100, 0):
        seen += ids(leases)
        assert len(leases) == 1
        backlog.ack(ack_ids(leases), 0)
    assert seen == ["a", "b", "c"]


def test_a_failure_holds_up_its_key_and_no_other() -> None:
    backlog = backlog_of("ab", Rules(ordered=True, backoff=Backoff(10, 600)), key="k")
    backlog.add(message("other", "another key"))
    backlog.add(message("free"))
    leases = backlog.take(100, 0)
    assert ids(leases) == ["a", "other", "free"]
    backlog.extend([leases[0].ack_id], 0, 0)
    backlog.ack(ack_ids(leases[1:]), 0)
    assert take(backlog, 9.9) == []
    assert take(backlog, 10) == ["a"]


def test_without_ordering_a_key_holds_up_nothing() -> None:
    assert take(backlog_of("abc", key="k"), 0) == ["a", "b", "c"]


def test_a_key_can_be_used_again_after_its_last_message_was_acked() -> None:
    backlog = backlog_of("a", Rules(ordered=True), key="k")
    backlog.ack(ack_ids(backlog.take(1, 0)), 0)
    backlog.add(message("b", "k"))
    assert take(backlog, 0) == ["b"]


def test_the_backoff_doubles_up_to_its_most() -> None:
    backlog = backlog_of("a", Rules(backoff=Backoff(10, 35)))
    now = 0.0
    for wait in (10, 20, 35, 35):
        [lease] = backlog.take(1, now)
        backlog.extend([lease.ack_id], 0, now)
        assert backlog.take(1, now + wait - 0.1) == []
        now += wait


def test_the_backoff_of_a_lost_lease_begins_at_its_deadline() -> None:
    backlog = backlog_of("a", Rules(ack_seconds=10, backoff=Backoff(10, 600)))
    backlog.take(1, 0)
    assert take(backlog, 19.9) == []
    assert backlog.next_change() == 20
    assert take(backlog, 20) == ["a"]


def test_a_message_that_failed_too_often_is_buried() -> None:
    graveyard = Graveyard()
    backlog = Backlog(Rules(max_attempts=3), graveyard.bury)
    backlog.add(message("a"))
    for attempt in (1, 2, 3):
        [lease] = backlog.take(1, 0)
        assert lease.attempt == attempt
        backlog.extend([lease.ack_id], 0, 0)
    assert graveyard.buried == [("a", 3)]
    assert len(backlog) == 0


def test_the_next_of_a_key_follows_a_buried_one() -> None:
    backlog = backlog_of("ab", Rules(ordered=True, max_attempts=1), key="k")
    backlog.extend(ack_ids(backlog.take(1, 0)), 0, 0)
    assert take(backlog, 0) == ["b"]


def test_a_message_that_cannot_be_buried_is_delivered_on() -> None:
    backlog = Backlog(Rules(max_attempts=1), Graveyard(is_open=False).bury)
    backlog.add(message("a"))
    backlog.extend(ack_ids(backlog.take(1, 0)), 0, 0)
    [lease] = backlog.take(1, 0)
    assert lease.attempt == 2


def test_a_message_is_dropped_when_its_retention_is_over() -> None:
    backlog = Backlog(Rules(retention_seconds=600), Graveyard().bury)
    backlog.add(message("old", published=0))
    backlog.add(message("young", published=1))
    assert take(backlog, 600) == ["young"]


def test_a_key_whose_messages_were_all_dropped_can_be_used_again() -> None:
    backlog = Backlog(Rules(retention_seconds=600, ordered=True), Graveyard().bury)
    backlog.add(message("old", "k", published=0))
    assert take(backlog, 600) == []
    backlog.add(message("new", "k", published=600))
    assert take(backlog, 600) == ["new"]


@pytest.mark.parametrize(("receiver", "fits"), [(Receiver(max_messages=2), 2), (Receiver(max_bytes=25), 3)])
def test_no_more_is_delivered_than_the_receiver_has_room_for(receiver: Receiver, fits: int) -> None:
    backlog = Backlog(Rules(), Graveyard().bury)
    for id in "abcdef":
        backlog.add(message(id, data=b"x" * 10))
    leases = backlog.take(100, 0, receiver=receiver)
    assert len(leases) == fits  # that which fills the last of the room is let in, as the service has it
    assert backlog.take(100, 0, receiver=receiver) == []
    backlog.ack([leases[0].ack_id], 0)
    assert len(backlog.take(100, 0, receiver=receiver)) == 1


def test_a_delivery_stops_growing_at_ten_megabytes() -> None:
    backlog = Backlog(Rules(), Graveyard().bury)
    for id in "abc":
        backlog.add(message(id, data=b"x" * 6_000_000))
    assert take(backlog, 0) == ["a", "b"]
    assert take(backlog, 0) == ["c"]


def test_a_lease_that_is_over_makes_room_at_its_receiver() -> None:
    receiver = Receiver(max_messages=1)
    backlog = backlog_of("ab")
    backlog.take(100, 0, receiver=receiver)
    assert len(backlog.take(100, 10, receiver=receiver)) == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_a_repeated_message_comes_twice_though_it_is_acked(ordered: bool) -> None:
    backlog = backlog_of("ab", Rules(ordered=ordered), key="k")
    seen: list[str] = []
    backlog.repeat(backlog.take(1, 0)[0])
    now = 10.0
    while leases := backlog.take(1, now):
        seen += ids(leases)
        backlog.ack(ack_ids(leases), now)
    assert sorted(seen) == ["a", "a", "b"]
    if ordered:
        assert seen == ["a", "a", "b"]
