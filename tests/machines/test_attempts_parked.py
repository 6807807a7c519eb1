"""The pause that a target asks for: it only grows, and it ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.parked import Parked


def test_nobody_waits_for_a_target_that_asked_for_nothing():
    assert Parked().wait(5.0, lambda: 0.5) == (0.0, 0.0)


def test_all_wait_until_the_end_and_leave_spread_over_a_tenth_more():
    parked = Parked()
    parked.park(100.0, 10.0, 60.0)
    assert parked.wait(104.0, lambda: 0.0) == (6.0, 6.0)
    assert parked.wait(104.0, lambda: 0.5) == (6.0, 6.5)
    assert parked.wait(110.0, lambda: 0.5) == (0.0, 0.0)


def test_only_the_first_to_park_is_told_so():
    parked = Parked()
    assert parked.park(100.0, 10.0, 60.0)
    assert not parked.park(101.0, 30.0, 60.0)
    assert parked.park(131.0, 1.0, 60.0)


def test_a_pause_that_is_longer_than_anybody_waits_is_hopeless_and_ends_all_the_same():
    parked = Parked()
    parked.park(100.0, float("inf"), 60.0)
    assert parked.hopeless
    assert parked.until == 160.0
    assert parked.over(160.0)
    parked.park(200.0, 5.0, 60.0)
    assert not parked.hopeless
    parked.park(200.0, 60.0, 60.0)
    assert not parked.hopeless


def test_it_is_over_only_when_it_is_over():
    parked = Parked()
    parked.park(100.0, 10.0, 60.0)
    assert not parked.over(109.9)
    assert parked.until == 110.0
    assert parked.over(110.0)
    assert parked.until == 0.0


def test_after_a_fork_the_lock_is_free():
    parked = Parked()
    parked._lock.acquire()
    parked.after_fork()
    assert parked.park(1.0, 1.0, 60.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), max_size=30))
def test_the_end_is_the_latest_that_was_asked_for(parks):
    parked, now, ends = Parked(), 10.0, [0.0]
    for passed, seconds in parks:
        now += passed
        parked.park(now, seconds, 60.0)
        ends.append(now + min(seconds, 60.0))
        assert parked.until == max(ends)
