"""The sliding latency sketch: what it answers, what it forgets, what it costs."""

from __future__ import annotations

import math
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.quantile import LatencySketch


def filled(values, now=0.0, minimum=1):
    sketch = LatencySketch(minimum)
    for value in values:
        sketch.add(value, now)
    return sketch


def exact(values, share):
    """The smallest value that is not exceeded by more than 1 - share of the values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


# --- what it answers --------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0]),
)
def test_a_quantile_is_never_less_than_the_exact_one_and_at_most_two_percent_more(values, share):
    expected = exact(values, share)
    assert expected * (1 - 1e-9) <= filled(values).quantile(share, 0.0) <= expected * 1.0201


@pytest.mark.parametrize("extra_load", [0.01, 0.02, 0.05, 0.1, 0.5])
def test_at_most_the_given_share_of_the_samples_exceeds_it(extra_load):
    rng = random.Random(1)
    values = [rng.lognormvariate(-2, 1) for _ in range(5000)]
    delay = filled(values).quantile(1 - extra_load, 0.0)
    share = sum(value > delay for value in values) / len(values)
    assert extra_load * 0.8 <= share <= extra_load


def test_it_answers_from_the_minimum_of_samples_on():
    sketch = filled([0.1] * 49, minimum=50)
    assert sketch.quantile(0.95, 0.0) is None
    sketch.add(0.1, 0.0)
    assert sketch.quantile(0.95, 0.0) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("value", [0.0, -1.0, -0.0, 1e-300])
def test_a_call_that_took_no_time_is_counted_as_very_short(value):
    assert 0.0 < filled([value]).quantile(0.5, 0.0) <= 1.1e-5


def test_a_call_that_took_forever_is_counted_as_very_long():
    assert filled([math.inf]).quantile(0.5, 0.0) == pytest.approx(1e5, rel=0.02)


# --- what it forgets --------------------------------------------------------------------------------------------------


def test_samples_are_known_for_twenty_to_thirty_seconds():
    sketch = filled([1.0] * 10, now=109.0)  # in the slice from 100 to 110
    assert sketch.count(129.9) == 10
    assert sketch.count(130.0) == 0
    assert sketch.quantile(0.5, 130.0) is None


def test_the_slices_leave_one_by_one():
    sketch = LatencySketch(1)
    for second in range(60):
        sketch.add(1.0, float(second))
        assert sketch.count(float(second)) == min(second + 1, 20 + second % 10 + 1)


def test_a_long_pause_forgets_everything():
    sketch = filled([1.0] * 10)
    sketch.add(5.0, 1e9)
    assert sketch.count(1e9) == 1
    assert sketch.quantile(0.5, 1e9) == pytest.approx(5.0, rel=0.02)


def test_a_clock_that_goes_back_loses_nothing():
    sketch = filled([1.0] * 10, now=1000.0)
    sketch.add(1.0, 1.0)
    assert sketch.count(2.0) == sketch.count(1000.0) == 11
    assert sketch.quantile(0.5, 3.0) is not None


def test_it_follows_latencies_that_change():
    sketch = filled([0.1] * 100, now=5.0)
    for _ in range(100):
        sketch.add(2.0, 15.0)
    assert sketch.quantile(0.4, 15.0) == pytest.approx(0.1, rel=0.02)
    assert sketch.quantile(0.4, 35.0) == pytest.approx(2.0, rel=0.02)


def test_an_answer_is_good_for_three_seconds():
    sketch = filled([0.1] * 100)
    assert sketch.quantile(0.5, 0.0) == pytest.approx(0.1, rel=0.02)
    for _ in range(1000):
        sketch.add(7.0, 1.0)
    assert sketch.quantile(0.5, 2.9) == pytest.approx(0.1, rel=0.02)
    assert sketch.quantile(0.5, 3.0) == pytest.approx(7.0, rel=0.02)


def test_another_share_is_answered_at_once():
    sketch = filled([0.1] * 90 + [5.0] * 10)
    assert sketch.quantile(0.5, 0.0) == pytest.approx(0.1, rel=0.02)
    assert sketch.quantile(0.95, 0.0) == pytest.approx(5.0, rel=0.02)


def test_what_was_read_of_samples_that_are_gone_is_no_answer():
    sketch = filled([9.0] * 50, now=5.0, minimum=50)
    assert sketch.quantile(0.5, 29.9) == pytest.approx(9.0, rel=0.02)
    for _ in range(50):
        sketch.add(0.1, 30.0)  # all others have just left
    assert sketch.quantile(0.5, 30.1) == pytest.approx(0.1, rel=0.02)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_its_size_is_bounded_whatever_comes():
    rng = random.Random(2)
    sketch = filled([10 ** rng.uniform(-9, 9) for _ in range(20_000)])
    assert sum(map(len, sketch._slices)) <= math.log(1e10) / math.log(1.02) + 2


def test_no_sample_of_several_threads_is_lost():
    sketch = LatencySketch(1)

    def add():
        for number in range(1000):
            sketch.add(0.1, number / 1000)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sketch.count(1.0) == 8000


def test_a_forked_child_does_not_wait_for_a_lock_that_nobody_holds():
    sketch = filled([1.0])
    sketch._lock.acquire()
    sketch.after_fork()
    assert sketch.count(0.0) == 1
