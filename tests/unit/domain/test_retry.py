"""F07: delays grow, stop at the cap, never overflow, and spread a herd."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobyard.domain.retry import Backoff

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (10, 2560)])
def test_the_longest_delay_doubles_with_each_failure(failures: int, seconds: float):
    assert Backoff(5.0, 3600.0).delay(failures, 0.5) == seconds / 2


@pytest.mark.parametrize("failures", [11, 60, 1_100, 10**9])
def test_many_failures_wait_for_the_cap_and_never_overflow(failures: int):
    assert Backoff(5.0, 3600.0).delay(failures, ALMOST_ONE) == pytest.approx(3600.0)


@given(st.integers(-1, 10_000), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_nothing_and_the_cap(failures: int, base: float, cap: float, chance: float):
    assert 0 <= Backoff(base, cap).delay(failures, chance) <= cap


def test_a_herd_of_a_thousand_spreads_over_the_whole_window():
    """Full jitter: each tenth of the window gets about a tenth of the herd."""
    dice = random.Random(7)
    delays = [Backoff(2.0, 3600.0).delay(6, dice.random()) for _ in range(1000)]
    tenths = [sum(tenth * 6.4 <= delay < (tenth + 1) * 6.4 for delay in delays) for tenth in range(10)]
    assert sum(tenths) == 1000
    assert all(60 <= count <= 140 for count in tenths), tenths


def test_chance_nothing_means_at_once():
    assert Backoff(2.0, 3600.0).delay(3, 0.0) == 0.0
