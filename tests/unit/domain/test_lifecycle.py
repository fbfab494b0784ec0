"""The state machine against the table of DESIGN, and every decision against the table of moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobyard.domain.lifecycle import (
    CRASHES_ALLOWED,
    DEAD_LETTER_REASONS,
    MOVES,
    SOLITARY,
    SUSPECT,
    TRUSTED,
    Cause,
    Change,
    Crashed,
    Fail,
    Failed,
    Outcome,
    Reason,
    Retry,
    Standing,
    Status,
    Succeeded,
    TimedOut,
    abandon,
    crash,
    is_final,
    release,
    settle,
)
from jobyard.domain.retry import Backoff

BOOM = {"type": "Boom", "message": "it went wrong"}
OUTCOMES: list[Outcome] = [
    Succeeded('{"sent":true}'),
    Failed(BOOM),
    Retry(),
    Retry(after=7.0),
    Fail("no such address"),
    TimedOut(5.0),
]


def standing(
    attempt: int = 1,
    max_attempts: int = 5,
    crashes: int = 0,
    suspect: int = TRUSTED,
    backoff: Backoff | None = None,
) -> Standing:
    return Standing(attempt, max_attempts, crashes, suspect, backoff or Backoff(2.0, 3600.0))


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """Every standing that an attempt in flight can have."""
    most = draw(st.integers(1, 100))
    return Standing(
        attempt=draw(st.integers(1, most)),
        max_attempts=most,
        crashes=draw(st.integers(0, CRASHES_ALLOWED - 1)),
        suspect=draw(st.sampled_from((TRUSTED, SUSPECT, SOLITARY))),
        backoff=Backoff(draw(st.floats(0, 1e6)), draw(st.floats(0, 1e6))),
    )


outcomes = st.one_of(
    st.builds(Succeeded, st.none() | st.just("{}")),
    st.builds(Failed, st.just(BOOM)),
    st.builds(Retry, st.none() | st.floats(0, 1e6)),
    st.builds(Fail, st.text()),
    st.builds(TimedOut, st.floats(0.001, 1e6)),
)
chances = st.floats(0, 1, exclude_max=True)
decisions = st.one_of(
    st.builds(lambda outcome, chance: lambda it: settle(it, outcome, chance), outcomes, chances),
    st.just(release),
    st.builds(lambda chance: lambda it: abandon(it, chance), chances),
)

P, R, C, F = Status.PENDING, Status.PROCESSING, Status.COMPLETED, Status.FAILED
TABLE = {
    (P, R): {"claim"},
    (R, C): {"returned"},
    (R, F): {"non_retryable", "exhausted", "timeout", "crashed", "cancelled"},
    (R, P): {"retry", "release", "orphan", "crash"},
    (P, F): {"cancelled", "expired", "dependency_failed"},
    (F, P): {"redrive"},
}
"""DESIGN 3, row by row, written down a second time on purpose."""


def test_there_are_four_statuses_and_no_other():
    assert [status.value for status in Status] == ["pending", "processing", "completed", "failed"]


@pytest.mark.parametrize("start", Status)
@pytest.mark.parametrize("end", Status)
def test_a_job_moves_only_along_the_rows_of_the_design(start: Status, end: Status):
    assert {cause.value for cause in MOVES.get((start, end), ())} == TABLE.get((start, end), set())


def test_a_final_state_is_left_by_a_redrive_of_a_failed_job_alone():
    ways_out = {move: set(causes) for move, causes in MOVES.items() if is_final(move[0])}
    assert ways_out == {(F, P): {Cause.REDRIVE}}
    assert [status for status in Status if is_final(status)] == [C, F]


def test_each_reason_is_a_cause_of_failing_and_of_nothing_else():
    failing = {cause.value for (_, end), causes in MOVES.items() if end is F for cause in causes}
    others = {cause.value for (_, end), causes in MOVES.items() if end is not F for cause in causes}
    assert {reason.value for reason in Reason} == failing
    assert not failing & others


def test_every_cause_stands_in_the_table():
    assert set(Cause) == {cause for causes in MOVES.values() for cause in causes}


def test_dead_letters_are_what_failed_without_anyone_wanting_it():
    assert {reason.value for reason in DEAD_LETTER_REASONS} == {
        "exhausted",
        "non_retryable",
        "timeout",
        "crashed",
    }


@given(standings(), decisions)
def test_every_decision_is_an_allowed_move(it: Standing, decide: Callable[[Standing], Change]):
    change = decide(it)
    assert change.cause in MOVES[Status.PROCESSING, change.status]


@given(standings(), decisions)
def test_a_change_carries_what_its_status_needs_and_nothing_else(
    it: Standing, decide: Callable[[Standing], Change]
):
    change = decide(it)
    assert (change.reason is None) == (change.status is not F)
    assert change.reason is None or change.reason.value == change.cause.value
    assert (change.run_in is None) == is_final(change.status)
    assert change.run_in is None or change.run_in >= 0
    assert change.result is None or change.status is C
    # A release is nobody's fault and a success has none; everything else leaves its error on record.
    assert (change.error is None) == (change.cause in (Cause.RETURNED, Cause.RELEASE))


@given(standings(), decisions)
def test_a_job_never_counts_more_tries_than_were_started(it: Standing, decide: Callable[[Standing], Change]):
    change = decide(it)
    uncharged = change.cause in (Cause.RELEASE, Cause.ORPHAN, Cause.CRASH)
    assert change.attempt == it.attempt - uncharged
    assert change.status is not P or change.attempt < it.max_attempts


@given(standings(), decisions)
def test_only_a_lonely_death_is_charged_as_a_crash(it: Standing, decide: Callable[[Standing], Change]):
    change = decide(it)
    assert change.crashes == it.crashes + (change.cause in (Cause.CRASH, Cause.CRASHED))


@given(standings(), outcomes, chances)
def test_suspicion_ends_with_an_attempt_that_ends_by_itself(it: Standing, outcome: Outcome, chance: float):
    assert settle(it, outcome, chance).suspect == TRUSTED


@pytest.mark.parametrize("level", [TRUSTED, SUSPECT, SOLITARY])
def test_a_release_keeps_the_suspicion_and_burns_nothing(level: int):
    change = release(standing(attempt=3, crashes=1, suspect=level))
    assert change == Change(P, Cause.RELEASE, attempt=2, crashes=1, suspect=level, run_in=0.0)


def test_a_success_completes_with_its_result():
    change = settle(standing(attempt=2), Succeeded('{"sent":true}'), 0.5)
    assert change == Change(C, Cause.RETURNED, attempt=2, result='{"sent":true}')


def test_a_failure_is_tried_again_by_the_backoff_while_tries_are_left():
    change = settle(standing(attempt=3, max_attempts=5), Failed(BOOM), 0.5)
    assert change == Change(P, Cause.RETRY, attempt=3, run_in=0.5 * 2.0 * 2**2, error=BOOM)


def test_a_handler_may_say_when_to_try_again():
    assert settle(standing(), Retry(after=7.0), 0.5).run_in == 7.0
    assert settle(standing(), Retry(after=0.0), 0.5).run_in == 0.0
    assert settle(standing(), Retry(), 0.5).run_in == 0.5 * 2.0


@pytest.mark.parametrize("outcome", [Failed(BOOM), Retry(), Retry(after=7.0)])
def test_the_last_failure_exhausts_the_job(outcome: Outcome):
    change = settle(standing(attempt=5, max_attempts=5), outcome, 0.5)
    assert (change.status, change.reason) == (F, Reason.EXHAUSTED)


def test_a_timeout_is_tried_again_like_a_failure():
    change = settle(standing(attempt=4), TimedOut(5.0), 0.5)
    assert (change.status, change.cause, change.attempt) == (P, Cause.RETRY, 4)


def test_the_last_timeout_fails_the_job_with_that_reason():
    change = settle(standing(attempt=5), TimedOut(5.0), 0.5)
    assert (change.status, change.reason) == (F, Reason.TIMEOUT)
    assert change.error == {"type": "Timeout", "message": "the attempt ran longer than 5 s"}


def test_a_failure_for_good_is_not_tried_again():
    change = settle(standing(attempt=1), Fail("no such address", "BadAddress"), 0.5)
    assert (change.status, change.reason) == (F, Reason.NON_RETRYABLE)
    assert change.error == {"type": "BadAddress", "message": "no such address"}


def test_the_first_death_of_its_worker_suspects_a_job_and_charges_nothing():
    change = abandon(standing(attempt=1), 0.5)
    assert (change.cause, change.attempt, change.crashes, change.suspect, change.run_in) == (
        Cause.ORPHAN,
        0,
        0,
        SUSPECT,
        0.0,
    )


def test_a_poison_job_is_found_level_by_level_and_fails_as_crashed():
    it, seen = standing(attempt=1, max_attempts=2), list[tuple[Cause, int, int, int]]()
    while (change := abandon(it, 0.5)).status is P:
        seen.append((change.cause, change.attempt, change.crashes, change.suspect))
        it = standing(change.attempt + 1, it.max_attempts, change.crashes, change.suspect)
    assert seen == [
        (Cause.ORPHAN, 0, 0, SUSPECT),
        (Cause.ORPHAN, 0, 0, SOLITARY),
        (Cause.CRASH, 0, 1, SOLITARY),
        (Cause.CRASH, 0, 2, SOLITARY),
    ]
    assert (change.status, change.reason, change.crashes) == (F, Reason.CRASHED, 3)


KILLED = "the process running this job was killed by SIGSEGV"


@pytest.mark.parametrize(("level", "after"), [(TRUSTED, SUSPECT), (SUSPECT, SUSPECT), (SOLITARY, SOLITARY)])
def test_the_death_of_an_attempts_own_process_is_charged_to_it_and_is_no_try(level: int, after: int):
    change = settle(standing(attempt=3, max_attempts=3, suspect=level), Crashed(KILLED), 0.5)
    assert change == Change(
        P, Cause.CRASH, 2, 1, after, 1.0, error={"type": "Crash", "message": f"{KILLED} (crash 1 of 3)"}
    )


@given(standings(), chances)
def test_only_the_third_crash_fails_a_job(it: Standing, chance: float):
    change = crash(it, chance, KILLED)
    assert change.crashes == it.crashes + 1
    assert change.reason == (Reason.CRASHED if change.crashes == CRASHES_ALLOWED else None)
    assert change.suspect >= SUSPECT


def test_a_charged_crash_waits_by_the_backoff():
    waits = [abandon(standing(crashes=crashes, suspect=SOLITARY), 0.5).run_in for crashes in range(2)]
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_crashes_stay_charged_after_an_attempt_that_ended_by_itself(outcome: Outcome):
    assert settle(standing(crashes=2, suspect=SOLITARY), outcome, 0.5).crashes == 2
