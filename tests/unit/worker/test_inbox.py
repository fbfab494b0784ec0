"""What waits to be claimed by name: in which order it is taken, and when it is acked."""

from __future__ import annotations

from uuid import uuid4

from jobyard.domain.announcement import Announcement
from jobyard.ports import Message
from jobyard.worker.inbox import Inbox
from worker.yard import claimed


class Noted:
    """A delivery that notes its acks."""

    attempt = 1

    def __init__(self) -> None:
        self.message = Message("m", b"")
        self.acks = 0

    async def ack(self) -> None:
        self.acks += 1

    async def nack(self, delay_seconds: float = 0.0) -> None: ...

    async def extend(self, seconds: float) -> None: ...


def filled(*seqs: int, ack_at_end: bool = False) -> tuple[Inbox, list[Noted]]:
    inbox, deliveries = Inbox(lambda: None, ack_at_end=ack_at_end), [Noted() for _ in seqs]
    for seq, delivery in zip(seqs, deliveries, strict=True):
        inbox.put(Announcement(uuid4(), 1, seq), delivery)
    return inbox, deliveries


def by_seq(announcement: Announcement) -> tuple[int, ...] | None:
    return (announcement.seq,)


def seqs(inbox: Inbox, limit: int) -> list[int]:
    return [heard.announcement.seq for heard in inbox.take(limit, by_seq)]


def test_the_first_by_the_order_are_taken_and_the_others_stay() -> None:
    inbox, _ = filled(5, 9, 1, 7)
    assert seqs(inbox, 2) == [1, 5]
    assert seqs(inbox, 9) == [7, 9]
    assert not inbox


def test_what_cannot_be_claimed_now_stays() -> None:
    inbox, _ = filled(1, 2, 3)
    taken = inbox.take(9, lambda one: None if one.seq == 2 else (-one.seq,))
    assert [heard.announcement.seq for heard in taken] == [3, 1]
    assert seqs(inbox, 9) == [2]


def test_what_is_given_back_is_there_again() -> None:
    inbox, _ = filled(1, 2)
    inbox.give_back(inbox.take(1, by_seq))
    assert seqs(inbox, 9) == [1, 2]


async def test_claimed_or_gone_it_is_acked_once() -> None:
    inbox, deliveries = filled(1, 2)
    heard = inbox.take(2, by_seq)
    inbox.claimed(heard, [claimed(job=heard[0].announcement.job)])
    await inbox.acked()
    inbox.ended(heard[0].announcement.job)
    await inbox.acked()
    assert [it.acks for it in deliveries] == [1, 1]


async def test_with_acks_at_the_end_what_is_gone_is_acked_at_once_and_the_claimed_when_it_ended() -> None:
    inbox, deliveries = filled(1, 2, ack_at_end=True)
    heard = inbox.take(2, by_seq)
    job = heard[0].announcement.job
    inbox.claimed(heard, [claimed(job=job)])
    await inbox.acked()
    assert [it.acks for it in deliveries] == [0, 1]
    inbox.ended(job)
    await inbox.acked()
    assert [it.acks for it in deliveries] == [1, 1]


async def test_a_second_announcement_of_a_job_that_runs_is_acked_at_once() -> None:
    inbox, deliveries = filled(1, 1, ack_at_end=True)
    first, second = inbox.take(2, by_seq)
    attempt = claimed(job=first.announcement.job)
    inbox.claimed([first], [attempt])
    inbox.claimed([second._replace(announcement=first.announcement)], [attempt])
    await inbox.acked()
    assert [it.acks for it in deliveries] == [0, 1]
