"""The retry budget against published numbers, against a slow model that forgets nothing, in threads and in a fork."""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.budget import Allowance, RetryBudget, _renew

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "retry.json").read_text(encoding="utf-8"))


class Clock:
    def __init__(self, start=1_000.0):
        self.time = start

    def now(self):
        return self.time


def withdrawn(allowance, now):
    """Take all there is; return how many it were."""
    count = 0
    while allowance.withdraw(now):
        count += 1
        assert count < 10**6, "it never ends"
    return count


@pytest.mark.parametrize("ratio", REFERENCE["finagle_budget"]["ratios"])
def test_the_share_of_the_calls_can_be_retried_and_no_more(ratio):
    deposits = REFERENCE["finagle_budget"]["deposits"]
    allowance = Allowance(ratio, 0.0, 100.0)
    taken = 0
    for _ in range(deposits):
        allowance.calls += 1.0
        taken += allowance.withdraw(100.0)
    assert taken == pytest.approx(ratio * deposits if ratio <= 1 else deposits, abs=1)
    assert withdrawn(allowance, 100.0) + taken == pytest.approx(ratio * deposits, abs=1)


@pytest.mark.parametrize("case", REFERENCE["tower_budget"]["cases"], ids=lambda case: json.dumps(case["steps"])[:60])
def test_it_leaks_and_reserves_as_published(case):
    now = 50.0
    allowance = Allowance(case["ratio"], case["min_per_second"], now, case["window"])
    for step in case["steps"]:
        allowance.calls += step["deposits"]
        now += step["pass"]
        assert [allowance.withdraw(now) for _ in step["withdrawn"]] == step["withdrawn"]


def test_the_default_lets_those_who_call_seldom_retry():
    budget = RetryBudget()
    assert withdrawn(budget.at(Clock()), 1_000.0) == 100, "ten per second for ten seconds"


def test_the_reserve_comes_back_when_the_retries_have_left_the_window():
    allowance = Allowance(0.0, 1.0, 0.0)
    assert withdrawn(allowance, 0.5) == 10
    assert withdrawn(allowance, 9.9) == 0
    assert withdrawn(allowance, 10.0) == 10


def test_calls_of_long_ago_are_worth_nothing():
    allowance = Allowance(0.2, 0.0, 0.0)
    allowance.calls += 100_000.0
    assert allowance.left(3_600.0) == pytest.approx(0.2 * 100_000 * 10 / 3_600)


def test_calls_of_long_ago_leave_the_window_one_second_after_the_other():
    allowance = Allowance(1.0, 0.0, 0.0)
    allowance.calls += 100.0
    assert [allowance.left(now) for now in (100.0, 101.0, 105.0, 110.0)] == pytest.approx([10.0, 9.0, 5.0, 0.0])


def test_a_shorter_window_is_shorter():
    allowance = Allowance(0.0, 5.0, 7.0, 1.0)
    assert withdrawn(allowance, 7.0) == 5
    assert withdrawn(allowance, 7.99) == 0
    assert withdrawn(allowance, 8.01) == 5


def test_calls_just_before_the_first_look_count_in_full():
    allowance = Allowance(0.2, 0.0, 0.0)
    allowance.calls += 100.0
    assert withdrawn(allowance, 5.0) == 20


def test_looking_takes_nothing():
    allowance = Allowance(1.0, 0.0, 0.0)
    allowance.calls += 3.0
    assert [allowance.left(0.0) for _ in range(5)] == [3.0] * 5
    assert withdrawn(allowance, 0.0) == 3


def test_a_clock_that_goes_back_takes_nothing_away_and_gives_nothing():
    allowance = Allowance(1.0, 0.0, 1_000.0)
    allowance.calls += 5.0
    assert withdrawn(allowance, 1_001.0) == 5
    assert withdrawn(allowance, 900.0) == 0
    allowance.calls += 2.0
    assert withdrawn(allowance, 901.0) == 2


def test_it_is_idle_when_no_retry_is_in_the_window():
    allowance = Allowance(1.0, 1.0, 0.0)
    assert allowance.idle(0.0)
    assert allowance.withdraw(1.0)
    assert not allowance.idle(10.9)
    assert allowance.idle(11.0)


# --- against a slow model ---------------------------------------------------------------------------------------------


class Model:
    """Keeps every call and every retry with the second in which it happened, for ever."""

    def __init__(self, ratio, reserve, now):
        self.ratio, self.reserve, self.last = ratio, reserve, now
        self.calls, self.earned, self.spent = 0, [], []

    def look(self, now):
        now = max(now, self.last)
        elapsed = now - self.last
        share = self.calls * min(1.0, 10.0 / elapsed) if elapsed else self.calls
        seconds = [second for second in range(int(self.last), int(now) + 1) if second > int(now) - 10]
        self.earned += [(second, share / len(seconds)) for second in seconds]
        self.calls, self.last = 0, now

    def withdraw(self, now):
        self.look(now)
        oldest = int(self.last) - 10
        earned = sum(amount for second, amount in self.earned if second > oldest)
        spent = sum(second > oldest for second in self.spent)
        if self.reserve + self.ratio * earned - spent < 1 - 1e-9:
            return False
        self.spent.append(int(self.last))
        return True


steps = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.integers(1, 30)),
        st.tuples(st.just("pass"), st.floats(0.0, 15.0, allow_nan=False)),
        st.tuples(st.just("withdraw"), st.integers(1, 5)),
    ),
    max_size=60,
)


@given(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.1, 0.5]), steps)
def test_the_ring_of_seconds_is_the_model_that_forgets_nothing(ratio, reserve, steps):
    now = 12.0
    allowance, model = Allowance(ratio, reserve, now), Model(ratio, reserve * 10, now)
    for step, amount in steps:
        if step == "calls":
            allowance.calls += float(amount)
            model.calls += amount
        elif step == "pass":
            now += amount
        else:
            for _ in range(amount):
                assert allowance.withdraw(now) == model.withdraw(now)


@given(st.lists(st.tuples(st.floats(0.0, 3.0, allow_nan=False), st.integers(0, 20)), max_size=80))
def test_in_no_window_are_there_more_retries_than_reserve_and_share(steps):
    now, allowance = 5.0, Allowance(0.2, 0.5, 5.0)
    total, taken = 0, []
    for pause, calls in steps:
        now += pause
        allowance.calls += float(calls)
        total += calls
        taken += [now] * withdrawn(allowance, now)
        recent = sum(each > now - 9.0 for each in taken)  # nine full seconds are in every window of ten
        assert recent <= 5 + 0.2 * total + 1e-6


# --- sharing, threads, pickling, forking ------------------------------------------------------------------------------


def test_a_budget_is_the_same_for_all_who_share_it_and_another_one_on_another_clock():
    budget, real, virtual = RetryBudget(0.0, 0.1), Clock(), Clock()
    assert budget.at(real) is budget.at(real)
    assert withdrawn(budget.at(real), real.now()) == 1
    assert withdrawn(budget.at(virtual), virtual.now()) == 1


def test_what_a_clock_saw_is_forgotten_with_the_clock():
    budget, clock = RetryBudget(), Clock()
    budget.at(clock)
    assert len(budget._by_clock) == 1
    del clock
    gc.collect()
    assert len(budget._by_clock) == 0


def test_threads_never_take_more_than_there_is():
    allowance = Allowance(0.0, 20.0, 0.0)
    taken = []

    def take():
        taken.extend(allowance.withdraw(1.0) for _ in range(100))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 200


def test_it_pickles_as_its_numbers():
    budget, clock = RetryBudget(0.3, 7), Clock()
    withdrawn(budget.at(clock), clock.now())
    again = pickle.loads(pickle.dumps(budget))
    assert (again.ratio, again.min_per_second) == (0.3, 7)
    assert again.at(clock).left(clock.now()) == 70
    assert repr(again) == "RetryBudget(ratio=0.3, min_per_second=7)"


def test_after_a_fork_every_budget_has_free_locks():
    budget, clock = RetryBudget(), Clock()
    allowance = budget.at(clock)
    budget._lock.acquire()
    allowance._lock.acquire()
    _renew()
    assert budget.at(clock).withdraw(clock.now())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # other tests may have left daemon threads
def test_a_fork_while_the_lock_is_held_leaves_the_child_able_to_spend():
    budget, clock = RetryBudget(), Clock()
    allowance = budget.at(clock)
    with budget._lock, allowance._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            os._exit(0 if budget.at(clock).withdraw(clock.now()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, 11, True, "0.2", None], ids=repr)
def test_a_ratio_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match="ratio must be a number at least 0 and at most 10, got"):
        RetryBudget(bad)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, False, "10", None], ids=repr)
def test_a_minimum_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match="min_per_second must be a number at least 0, got"):
        RetryBudget(min_per_second=bad)
