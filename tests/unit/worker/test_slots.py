from __future__ import annotations

from jobyard.worker.slots import AHEAD_ROWS, CLAIM_ROWS, Place, Running, Slots
from worker.yard import a_lane, claimed

LANE = a_lane(1)


def slots(concurrency: int, *, running: int = 0, waiting: int = 0) -> Slots:
    made = Slots(concurrency)
    for lease in range(running):
        made.running[lease] = Running(claimed(lease=lease), LANE, Place.LOOP)
    for _ in range(waiting):
        made.waiting.append((claimed(), LANE))
    return made


def end(slots: Slots, count: int, begin: float, seconds: float) -> float:
    """That many attempts end, evenly spread over so many seconds; when the last one did."""
    for index in range(count):
        slots.count_ended(begin + (index + 1) * seconds / count)
    return begin + seconds


def test_nothing_is_claimed_ahead_until_a_rate_is_known() -> None:
    assert slots(8).room(100.0) == 8
    assert slots(8, running=3).room(100.0) == 5
    assert slots(8, running=8).room(100.0) == 0


def test_the_first_ending_after_a_long_idle_time_makes_no_rate() -> None:
    idle = slots(8)
    idle.count_ended(5000.0)
    assert idle.room(5000.0) == 8


def test_as_many_are_claimed_ahead_as_start_within_a_second() -> None:
    known = slots(4)
    now = end(known, 100, 10.0, 1.0)
    assert 94 <= known.room(now) - 4 <= 106


def test_a_claim_and_the_attempts_at_hand_are_bounded() -> None:
    fast = slots(4)
    now = end(fast, 100_000, 10.0, 1.0)
    assert fast.room(now) == CLAIM_ROWS
    for _ in range(AHEAD_ROWS + 4):
        fast.waiting.append((claimed(), LANE))
    assert fast.room(now) == 0


def test_with_enough_at_hand_it_waits_until_a_claim_is_worth_its_round_trip() -> None:
    fast = slots(4, running=4, waiting=201)
    now = end(fast, 100_000, 10.0, 1.0)
    assert fast.room(now) == 0
    fast.waiting.popleft()
    assert fast.room(now) == CLAIM_ROWS


def test_a_rate_of_long_ago_does_not_count() -> None:
    """A job must not wait in one worker's hands for slots that fast jobs left an hour ago."""
    once_fast = slots(4)
    now = end(once_fast, 100_000, 10.0, 1.0)
    assert once_fast.room(now + 0.9) > 4
    assert once_fast.room(now + 3600) == 4


def test_an_attempt_starts_only_in_a_free_slot_and_in_the_order_of_the_claims() -> None:
    two = slots(2, running=1)
    first, second = (claimed(), LANE), (claimed(), LANE)
    two.waiting.extend([first, second])
    assert two.next_to_start() is first
    two.running[7] = Running(claimed(), LANE, Place.LOOP)
    assert two.next_to_start() is None
    assert not two.empty
    assert slots(2).empty
