"""Learning the bytes of a call: what a measurement is worth, and when the next one is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.estimate import LEAST_GUESS, MOST_FAILURES, SOON, WINDOW, Estimator, Learner, guess

MIB = 1 << 20


def known(peak: int) -> Estimator:
    estimator = Estimator()
    estimator.observe(peak)
    return estimator


def test_the_need_is_the_peak_and_a_fifth_more() -> None:
    assert known(100).need == 120


def test_a_bigger_measurement_counts_at_once() -> None:
    estimator = known(100)
    estimator.observe(300)
    assert estimator.need == 360


def test_a_smaller_measurement_lowers_the_need_by_a_twentieth_of_the_distance() -> None:
    estimator = known(1000)
    estimator.observe(0)
    assert estimator.need == 1140


def test_a_burst_of_small_calls_does_not_make_the_big_one_forgotten() -> None:
    estimator = known(1000)
    for _ in range(10):
        estimator.observe(100)
    assert estimator.need is not None
    assert estimator.need > 1.2 * 600


def test_a_need_that_is_too_big_is_forgotten_in_the_end() -> None:
    estimator = known(1000)
    for _ in range(200):
        estimator.observe(100)
    assert estimator.need == pytest.approx(120, abs=1)


def test_a_dirty_heap_may_raise_the_need_and_never_lower_it() -> None:
    estimator = known(100)
    estimator.observe(10, clean=False)
    assert estimator.need == 120
    estimator.observe(200, clean=False)
    assert estimator.need == 240


def test_company_during_the_measurement_makes_it_worthless_unless_nothing_is_known() -> None:
    estimator = known(100)
    estimator.observe(5000, alone=False)
    assert estimator.need == 120
    fresh = Estimator()
    fresh.observe(5000, alone=False)
    assert fresh.need == 6000


def test_a_doubtful_first_measurement_counts_at_least_as_much_as_was_reserved() -> None:
    estimator = Estimator()
    estimator.observe(10, clean=False, least=1200)
    assert estimator.need == 1200


def test_the_first_good_measurement_replaces_what_was_doubtful() -> None:
    for estimator in (Estimator(), Estimator(initial=5000)):
        estimator.observe(100, clean=False, least=3000)
        estimator.observe(100)
        assert estimator.need == 120


def test_calls_that_run_out_of_memory_together_double_the_need_once() -> None:
    estimator = known(100)
    for _ in range(60):
        estimator.ran_out(120)
    assert estimator.need == 240


def test_running_out_of_memory_before_anything_is_known_doubles_what_was_reserved() -> None:
    estimator = Estimator()
    estimator.ran_out(1000)
    assert estimator.need == 2000


@given(st.lists(st.tuples(st.integers(0, 10**12), st.booleans(), st.booleans())))
def test_the_need_stays_between_nothing_and_what_was_seen(measurements: list[tuple[int, bool, bool]]) -> None:
    estimator = Estimator()
    for peak, clean, alone in measurements:
        estimator.observe(peak, clean=clean, alone=alone)
    most = max((peak for peak, _, _ in measurements), default=0)
    assert estimator.need is None if not measurements else 0 <= (estimator.need or 0) <= 1.2 * most + 1


@given(st.lists(st.integers(1, 10**9), min_size=1))
def test_right_after_a_clean_measurement_the_need_covers_it(peaks: list[int]) -> None:
    estimator = Estimator()
    for peak in peaks:
        estimator.observe(peak)
        assert (estimator.need or 0) >= peak


def test_the_guess_grows_with_the_arguments_and_is_never_small() -> None:
    assert guess(0) == LEAST_GUESS
    assert guess(100 * MIB) == 800 * MIB


@dataclass(eq=False)
class Call:
    need: int = 1000
    clean: bool = True
    alone: bool = True
    level: int | None = None
    company: int = 1
    strangers: bool = False


def end(learner: Learner, call: Call, peak: int | None, now: float = 0.0) -> None:
    learner.ends(call, peak, now)


def proven(learner: Learner, peak: int = 100) -> Learner:
    """One that has seen enough calls to trust its estimate for any number at once."""
    while learner.need is None or learner.window < math.inf:
        end(learner, Call(), peak)
    return learner


def test_while_the_first_call_is_measured_the_others_are_told_to_wait() -> None:
    learner, first = Learner(), Call()
    assert learner.ask(0, 0.0, alone=True) == (LEAST_GUESS, True)
    learner.begins(first)
    assert learner.ask(0, 0.0, alone=False) == (None, False)
    end(learner, first, 100)
    assert learner.ask(0, 0.5, alone=False, free=False) == (240, False)


def test_when_others_run_the_first_call_goes_by_a_guess() -> None:
    assert Learner().ask(4 * MIB, 0.0, alone=False) == (32 * MIB, False)


def test_a_measurement_that_has_to_be_put_off_is_tried_again_soon() -> None:
    learner = Learner(initial=10)
    assert learner.ask(0, 5.0, alone=False) == (10, False)
    assert learner.ask(0, 5.05, alone=True) == (10, False)
    assert learner.ask(0, 5.2, alone=True) == (10, True)


def test_after_good_measurements_the_next_one_comes_later_each_time() -> None:
    learner, pauses, now = Learner(), [], 0.0
    proven(learner)
    now = learner.measure_at
    for _ in range(8):
        end(learner, Call(), 100, now)
        pauses.append(learner.measure_at - now)
        now = learner.measure_at
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_after_a_doubtful_measurement_the_next_one_comes_soon() -> None:
    learner = proven(Learner())
    end(learner, Call(clean=False), 100, 50.0)
    assert learner.measure_at == pytest.approx(50.1)


def test_after_three_first_calls_that_failed_what_they_had_reserved_serves() -> None:
    learner = Learner()
    for _ in range(3):
        assert learner.need is None
        call = Call()
        learner.begins(call)
        end(learner, call, None)
    assert learner.need == 1000


def test_after_first_calls_that_failed_the_first_that_succeeds_is_measured_among_others_and_begins_the_slow_start() -> (
    None
):
    """In a process that is never idle from then on; the guess was far too small."""
    learner = Learner()
    for _ in range(MOST_FAILURES):
        call = Call(need=16, level=100)
        learner.begins(call)
        learner.ends(call, None, 0.0)
    assert learner.ask(0, 0.0, alone=False) == (32, True)
    windows = []
    while learner.window < math.inf:
        windows.append(learner.window)
        learner.ends(Call(need=16, level=700, company=10, alone=False), None, 0.0)
    assert windows == [2, 4, 8, 16, 32], "a function that always fails is not serialised"
    assert learner.ask(0, 0.0, alone=False) == (16, False)
    assert learner.ask(0, SOON, alone=False, free=False) == (16, False)
    assert learner.ask(0, SOON, alone=False) == (16, True)
    learner.ends(Call(need=16, level=700, company=10, alone=False), 60, 2 * SOON)
    assert learner.window == WINDOW
    learner.ends(Call(need=32, level=160, company=2, alone=False), 60, 1.0)
    assert (learner.need, learner.window) == (66, WINDOW), "above the 100 that were held when nothing ran"


def test_a_guess_that_was_assumed_is_still_one_in_a_forked_child() -> None:
    learner = Learner()
    for _ in range(MOST_FAILURES):
        call = Call(need=16)
        learner.begins(call)
        learner.ends(call, None, 0.0)
    learner.after_fork()
    assert learner.ask(0, 0.0, alone=False) == (32, True)


def test_running_out_of_memory_makes_the_next_measurements_frequent_again() -> None:
    learner = proven(Learner())
    for _ in range(6):
        end(learner, Call(), 100)
    learner.ran_out(500)
    end(learner, Call(), 100)
    assert learner.measure_at == 1.0


def test_a_forked_child_keeps_what_was_learned_and_waits_for_nobody() -> None:
    learner = Learner()
    learner.begins(Call())
    learner.after_fork()
    assert not learner.busy
    end(learner, Call(), 100)
    learner.after_fork()
    assert learner.need == 120


# --- a size learned from one call is trusted for two, then for four ... ---


def test_the_window_doubles_with_each_measurement_that_agrees() -> None:
    learner, windows = Learner(), []
    for _ in range(7):
        end(learner, Call(), 100)
        windows.append(learner.window)
    assert windows == [2, 4, 8, 16, 32, math.inf, math.inf]


def test_while_there_is_a_window_whatever_can_be_measured_is() -> None:
    learner = Learner()
    end(learner, Call(), 100)
    assert learner.measure_at == -math.inf, "nobody takes the fast path"
    assert learner.ask(0, 0.0, alone=False, free=True) == (240, True)
    assert learner.ask(0, 0.0, alone=False, free=False) == (240, False)


def test_the_less_is_known_the_more_is_reserved() -> None:
    learner, needs = Learner(), []
    for _ in range(6):
        end(learner, Call(), 100)
        needs.append(learner.ask(0, 0.0, alone=False)[0])
    assert needs == [240, 180, 150, 135, 128, 120]


def test_calls_that_take_more_together_than_the_first_one_raise_the_estimate_and_keep_the_window() -> None:
    learner = Learner()
    end(learner, Call(level=1000), 100)
    end(learner, Call(alone=False, level=1100, company=4), 700)  # 800 in all
    assert (learner.need, learner.window) == (220, 2)
    end(learner, Call(alone=False, level=1100, company=4), 700)
    assert (learner.need, learner.window) == (220, 4)


def test_calls_that_take_less_together_prove_the_estimate_and_do_not_lower_it() -> None:
    learner = Learner()
    end(learner, Call(level=1000), 100)
    end(learner, Call(alone=False, level=1050, company=4), 100)
    assert (learner.need, learner.window) == (120, 4)


def test_what_ran_together_with_calls_of_other_functions_proves_nothing() -> None:
    learner = Learner()
    end(learner, Call(level=1000), 100)
    end(learner, Call(alone=False, level=9000, company=1, strangers=True), 9000)
    assert (learner.need, learner.window) == (120, 2)


def test_where_the_level_is_not_known_the_peak_above_the_start_serves() -> None:
    learner = Learner()
    end(learner, Call(), 100)
    end(learner, Call(alone=False, company=2), 600)
    assert (learner.need, learner.window) == (330, 2)


def test_a_call_that_fails_does_not_widen_the_window() -> None:
    learner = Learner()
    end(learner, Call(), 100)
    end(learner, Call(), None)
    assert learner.window == 2


def test_a_call_that_reserved_nothing_and_ran_out_of_memory_makes_the_next_one_reserve_a_guess() -> None:
    estimator = Estimator()
    estimator.observe(0)
    assert estimator.need == 0
    estimator.ran_out(0)
    assert estimator.need == guess(0)
