"""What is announced next, what again, and what is forgotten."""

from __future__ import annotations

from uuid import uuid4

import pytest

from jobyard.domain.announcement import Announcement
from jobyard.maintain.outstanding import (
    BEGINNING_SECONDS,
    FIRST_REPEAT_SECONDS,
    LONGEST_REPEAT_SECONDS,
    Outstanding,
)

JOB = uuid4()


def places(*seqs: int) -> list[Announcement]:
    return [Announcement(JOB, 1, seq) for seq in seqs]


def look(outstanding: Outstanding, *seqs: int, now: float = 0.0, behind: int = 0) -> list[int]:
    """What is due of a lane in which these are ready, all of it announced."""
    due = list(outstanding.due(1, behind, places(*seqs)[: outstanding.ahead], now))
    for one in due:
        outstanding.announced(one, now)
    return [one.announcement.seq for one in due]


def test_what_is_ready_is_announced_once() -> None:
    outstanding = Outstanding(10)
    assert look(outstanding, 1, 2) == [1, 2]
    assert look(outstanding, 1, 2, 3) == [3]


def test_what_is_not_claimed_in_time_is_announced_again_after_twice_as_long_each_time() -> None:
    outstanding, now, pauses = Outstanding(10), 0.0, list[float]()
    look(outstanding, 1)
    pause = FIRST_REPEAT_SECONDS
    for _ in range(12):
        assert look(outstanding, 1, now=now + pause - 0.1) == []
        now += pause
        assert look(outstanding, 1, now=now) == [1]
        pauses.append(pause)
        pause = min(2 * pause, LONGEST_REPEAT_SECONDS)
    assert pauses[:3] == [10, 20, 40]
    assert pauses[-1] == LONGEST_REPEAT_SECONDS


def test_each_announcement_of_one_place_is_a_message_of_its_own_and_a_second_try_of_it_is_not() -> None:
    outstanding = Outstanding(10)
    (first,) = outstanding.due(1, 0, places(7), 0)
    (tried_again,) = outstanding.due(1, 0, places(7), 0)
    assert first.id == tried_again.id == "1.7.0"
    outstanding.announced(first, 0)
    (second,) = outstanding.due(1, 0, places(7), FIRST_REPEAT_SECONDS)
    assert second.id == "1.7.1"


def test_a_lane_is_full_until_jobs_of_it_are_claimed() -> None:
    outstanding = Outstanding(2)
    assert look(outstanding, 1, 2, 3) == [1, 2]
    assert outstanding.full == {1}
    assert look(outstanding, 2, 3, 4) == [3]
    assert look(outstanding) == []
    assert outstanding.full == set()


def test_a_row_that_was_committed_late_is_seen_by_the_next_look() -> None:
    outstanding = Outstanding(10)
    assert outstanding.behind([1], 10.0) == [0]
    look(outstanding, 5, now=10.0)
    look(outstanding, now=10.0)
    (behind,) = outstanding.behind([1], 10.1)
    assert look(outstanding, 4, now=10.1, behind=behind) == [4]


def test_after_a_while_looks_begin_behind_what_is_gone_and_now_and_then_at_the_beginning() -> None:
    outstanding = Outstanding(10)
    outstanding.behind([1], 10.0)
    look(outstanding, 5, 6, now=10.0)
    look(outstanding, 6, now=10.0)
    starts = [outstanding.behind([1], 10.0 + second)[0] for second in (1.1, 2.2, 3.3)]
    assert starts[-1] == 5
    assert outstanding.behind([1], 10.0 + BEGINNING_SECONDS) == [0]


def test_what_another_announcer_did_is_not_known() -> None:
    outstanding = Outstanding(10)
    look(outstanding, 1)
    outstanding.forget()
    assert look(outstanding, 1) == [1]


def test_what_stands_before_the_place_of_a_look_is_not_forgotten_by_it() -> None:
    outstanding = Outstanding(10)
    look(outstanding, 3, 9)
    assert look(outstanding, 9, behind=5) == []
    assert look(outstanding, 3, 9) == []


@pytest.mark.parametrize("lane", [2, 3])
def test_lanes_do_not_know_of_each_other(lane: int) -> None:
    outstanding = Outstanding(10)
    look(outstanding, 1)
    assert [one.announcement.seq for one in outstanding.due(lane, 0, [Announcement(JOB, lane, 1)], 0)] == [1]
