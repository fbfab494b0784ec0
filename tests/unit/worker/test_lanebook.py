from __future__ import annotations

from collections.abc import Iterable

import pytest

from jobyard.worker.lanebook import LANES_A_CLAIM, OLDEST_FIRST_EVERY, LaneBook
from worker.yard import a_lane, claimed


class Time:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def book(time: Time) -> LaneBook:
    return LaneBook(time)


def lanes_of(book: LaneBook, *, everywhere: bool = False) -> list[int]:
    """The lanes of one claim, in order."""
    return [lane for lanes, _ in book.groups(everywhere=everywhere) for lane in lanes]


def hints_of(book: LaneBook, *, everywhere: bool = False) -> dict[int, int]:
    return {
        lane: hint
        for lanes, hints in book.groups(everywhere=everywhere)
        for lane, hint in zip(lanes, hints, strict=True)
    }


def claim(book: LaneBook, lane: int, leases: Iterable[int], *, short: bool = False) -> None:
    asked = lanes_of(book)
    book.saw(asked, [claimed(lane=lane, lease=lease) for lease in leases], short=short)


def past_the_first_claim(book: LaneBook) -> None:
    """Under load: the claims from the beginning and from the recent hints are behind us."""
    for _ in range(2):
        lanes_of(book)


def test_lanes_of_larger_priority_come_first(book: LaneBook) -> None:
    book.learn([a_lane(1, 0), a_lane(2, 9), a_lane(3, 5)])
    assert lanes_of(book) == [2, 3, 1]


def test_lanes_of_one_priority_take_turns(book: LaneBook) -> None:
    book.learn([a_lane(1), a_lane(2), a_lane(3), a_lane(4, 9)])
    claim(book, 1, [1])
    assert lanes_of(book) == [4, 2, 3, 1]
    claim(book, 2, [2])
    assert lanes_of(book) == [4, 3, 1, 2]


def test_every_tenth_claim_takes_the_oldest_head_whatever_its_priority(book: LaneBook) -> None:
    book.learn([a_lane(1, 9), a_lane(2, 0), a_lane(3, 5)])
    for lease in range(1, OLDEST_FIRST_EVERY):
        claim(book, 1 if lease > 1 else 3, [lease * 10])
    assert lanes_of(book) == [2, 3, 1]
    assert lanes_of(book) == [1, 3, 2]


def test_a_claim_under_load_names_at_most_thirty_lanes(book: LaneBook) -> None:
    book.learn(a_lane(id) for id in range(1, 101))
    for _ in range(25):
        assert len(set(lanes_of(book))) == LANES_A_CLAIM


def test_looking_everywhere_names_every_lane_once_in_groups_of_thirty(book: LaneBook) -> None:
    book.learn(a_lane(id) for id in range(1, 101))
    groups = list(book.groups(everywhere=True))
    assert [len(lanes) for lanes, _ in groups] == [30, 30, 30, 10]
    assert sorted(lane for lanes, _ in groups for lane in lanes) == list(range(1, 101))
    assert all(hint == 0 for _, hints in groups for hint in hints)


def test_probes_in_turn_reach_every_lane_that_is_not_known_to_hold_work(book: LaneBook) -> None:
    book.learn(a_lane(id) for id in range(1, 201))
    book.saw(range(1, 201), [], short=True)
    book.woken(range(1, 31))
    seen: set[int] = set()
    for _ in range(60):
        seen.update(lanes_of(book))
    assert seen == set(range(1, 201))


@pytest.mark.parametrize("lanes", [31, 32, 37, 60, 61])
def test_probes_reach_every_lane_also_while_the_busy_ones_rotate(book: LaneBook, lanes: int) -> None:
    book.learn(a_lane(id) for id in range(1, lanes + 1))
    seen: set[int] = set()
    for lease in range(1, 200):
        asked = lanes_of(book)
        assert len(asked) == len(set(asked)) == LANES_A_CLAIM
        seen.update(asked)
        book.saw(asked, [claimed(lane=asked[0], lease=lease)], short=False)
    assert seen == set(range(1, lanes + 1))


def test_busy_lanes_of_a_low_priority_are_probed_behind_many_urgent_ones(book: LaneBook) -> None:
    book.learn([a_lane(99, 0), *(a_lane(id, 9) for id in range(1, 60))])
    assert any(99 in lanes_of(book) for _ in range(10))


def test_a_claim_starts_behind_the_newest_that_was_claimed_in_each_lane(book: LaneBook) -> None:
    book.learn([a_lane(1), a_lane(2)])
    past_the_first_claim(book)
    claim(book, 1, [7, 9, 8])
    claim(book, 1, [6])
    assert hints_of(book) == {1: 9, 2: 0}


def test_once_a_second_a_claim_starts_from_the_hints_of_two_seconds_ago(book: LaneBook, time: Time) -> None:
    book.learn([a_lane(1)])
    past_the_first_claim(book)
    started: list[int] = []
    for second in range(1, 7):
        time.seconds += 0.5
        claim(book, 1, [second * 10])
        time.seconds += 0.5
        started.append(hints_of(book)[1])
        assert hints_of(book)[1] == second * 10, "only one claim in a second"
    assert started == [0, 0, 10, 20, 30, 40]


def test_every_seven_seconds_a_claim_starts_at_the_beginning(book: LaneBook, time: Time) -> None:
    book.learn([a_lane(1)])
    past_the_first_claim(book)
    claim(book, 1, [10])
    from_the_beginning: list[int] = []
    for tenths in range(1, 211):
        time.seconds = 100 + tenths / 10
        if hints_of(book)[1] == 0 and tenths > 30:
            from_the_beginning.append(tenths)
    assert from_the_beginning == [70, 140, 210]


def test_going_everywhere_counts_as_a_start_at_the_beginning(book: LaneBook, time: Time) -> None:
    book.learn([a_lane(1)])
    past_the_first_claim(book)
    claim(book, 1, [10])
    time.seconds += 6.9
    assert hints_of(book, everywhere=True) == {1: 0}
    hints_of(book)  # the one a second
    time.seconds += 0.2
    assert hints_of(book) == {1: 10}


def test_solitary_lanes_stand_apart_and_start_at_the_beginning(book: LaneBook) -> None:
    book.learn([a_lane(1), a_lane(2, 9, suspect=2), a_lane(3, suspect=1)])
    assert book.solitary(everywhere=False) == ([2], [0])
    assert sorted(lanes_of(book)) == [1, 3]
    assert sorted(lanes_of(book, everywhere=True)) == [1, 3]
    book.saw([2], [claimed(lane=2, lease=50)], short=False)
    assert book.solitary(everywhere=False) == ([2], [0])
    book.saw([2], [], short=True)
    assert book.solitary(everywhere=False) == ([], []), "without known work it costs no statement"
    assert book.solitary(everywhere=True) == ([2], [0])


def test_a_worker_that_waits_for_wake_ups_starts_at_the_hints_of_a_while_ago(
    book: LaneBook, time: Time
) -> None:
    book.learn([a_lane(1)])
    past_the_first_claim(book)
    claim(book, 1, [10])
    (asked, hints), *_ = book.groups(everywhere=False, careful=True)
    assert (asked, hints) == ([1], [0]), (
        "a row with a lower seq may have been committed after the one with 10"
    )
    for _ in range(3):
        time.seconds += 1.1
        hints_of(book)
    (_, hints), *_ = book.groups(everywhere=False, careful=True)
    assert hints == [10]


def test_a_wake_up_for_an_unknown_lane_says_that_the_lanes_must_be_read(book: LaneBook) -> None:
    book.learn([a_lane(1)])
    assert book.woken([1])
    assert book.woken([])
    assert not book.woken([1, 2])


def test_learning_a_lane_again_keeps_what_is_known_of_it(book: LaneBook) -> None:
    book.learn([a_lane(1)])
    past_the_first_claim(book)
    claim(book, 1, [10])
    book.learn([a_lane(1), a_lane(2)])
    assert hints_of(book) == {1: 10, 2: 0}
