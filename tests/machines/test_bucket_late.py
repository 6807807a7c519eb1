"""A rate limiter whose waiters come late, because their event loop is busy: they are put off, and still get in."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncguard._machines import maxplus, timetable
from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import Request
from asyncguard._machines.rates import Rate

MS = 10**6


class Spot:
    def wake(self) -> None: ...

    def alive(self) -> bool:
        return True


@dataclass
class Clock:
    now: int = 10**12

    def __call__(self) -> int:
        return self.now


def place_in(bucket: Bucket, until: float = 1e9, cost: Any = 1) -> Any:
    return bucket.admit(Request(Spot(), until, cost=cost))


def test_a_late_waiter_is_let_in_although_the_clock_moved_on_since_it_looked():
    """The place is timed anew from the bucket's own clock, which is later than the time the waiter read before."""
    clock = Clock()
    bucket = Bucket([Rate("1000/s burst 1")], clock)
    bucket.take()
    place = place_in(bucket)
    clock.now += 500 * MS  # its event loop was busy
    seen = clock.now / 1e9
    clock.now += 1  # and time does not stand still between its look and ours
    assert place.claim(seen) is not None


@pytest.mark.parametrize("rates", [["1000/s burst 2"], ["1000/s burst 1", "50000/min burst 3"]])
@pytest.mark.parametrize("waiters", [16, 1024])
def test_no_step_looks_at_all_who_wait(monkeypatch, rates, waiters):
    """Late claims, cancellations, corrections and newcomers: the work of each is bounded by the logarithm."""
    clock = Clock()
    bucket = Bucket([Rate(rate) for rate in rates], clock)
    places = [place for place in [place_in(bucket) for _ in range(waiters)] if hasattr(place, "claim")]
    rng, worked = random.Random(5), [0]
    for module, name in ((maxplus, "then"), (timetable, "apply")):
        monkeypatch.setattr(module, name, counting(worked, getattr(module, name)))
    while places:
        clock.now += 50 * MS  # everybody comes late
        first = places.pop(0)
        steps = [
            functools.partial(first.claim, clock.now / 1e9),
            functools.partial(bucket.reconcile, first.permit, 0.5),
        ]
        if places:
            steps += [places.pop(rng.randrange(len(places))).withdraw, lambda: come_and_go(bucket)]
            steps += [functools.partial(rng.choice(places).due, 0.0)] if places else []
            steps += [lambda: bucket.wait((1,) * len(rates)), bucket.describe]
        for step in steps:
            worked[0] = 0
            assert step() is not None
            assert worked[0] <= 8 * math.log2(waiters) + 8
    assert not bucket.queue


def come_and_go(bucket):
    place = place_in(bucket)
    return place.withdraw() if hasattr(place, "withdraw") else place


def counting(worked, function):
    def counted(*args):
        worked[0] += 1
        return function(*args)

    return counted


def seconds_after(start, place):
    return round(place.due(0.0) - start / 1e9, 6)


def test_who_moves_forward_is_not_timed_into_the_past():
    clock = Clock()
    start, bucket = clock.now, Bucket([Rate("1/s burst 1")], clock)
    bucket.take()
    places = [place_in(bucket) for _ in range(3)]
    clock.now += 1500 * MS  # the first is late, but not so late that all are put off
    places.pop(0).withdraw()
    assert [seconds_after(start, place) for place in places] == [1.5, 2.5]


def test_a_call_that_started_keeps_its_time_whoever_leaves_before_it():
    clock = Clock()
    start, bucket = clock.now, Bucket([Rate("1/s burst 2", cost=len), Rate("10/s burst 1", cost=len)], clock)
    for cost in ([2, 0], [0, 1]):
        place_in(bucket, cost=cost)
    first, between, third = [place_in(bucket, cost=cost) for cost in ([2, 0], [0, 1], [1, 0])]
    clock.now += 3000 * MS
    assert third.claim(clock.now / 1e9) is not None
    clock.now += 500 * MS
    first.withdraw()
    newest = place_in(bucket, cost=[2, 0])
    assert seconds_after(start, newest) == 4.0
    assert list(between.withdraw()) == [newest.spot], "it waits for nobody who has started"


def test_after_a_late_claim_nobody_is_timed_into_the_past():
    clock = Clock()
    start, bucket = clock.now, Bucket([Rate("1/s burst 1", cost=len), Rate("10/s burst 1", cost=len)], clock)
    place_in(bucket, cost=[1, 1])
    first, second, third = [place_in(bucket, cost=cost) for cost in ([1, 0], [1, 0], [0, 1])]
    clock.now += 5000 * MS
    assert first.claim(clock.now / 1e9) is not None
    assert [seconds_after(start, place) for place in (second, third)] == [6.0, 5.0]


def test_a_newcomer_is_told_how_many_wait_before_it():
    bucket = Bucket([Rate("1/s burst 1")], Clock())
    bucket.take()
    places = [place_in(bucket) for _ in range(4)]
    places[1].withdraw()
    assert [place.ahead for place in [*places, place_in(bucket)]] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize(("text", "left"), [("10000000/s", "9999999"), ("3/s burst 2.5", "1.5"), ("7/s", "6")])
def test_what_is_left_is_shown_in_tenths_and_without_exponents(text, left):
    bucket = Bucket([Rate(text)], Clock())
    bucket.take()
    assert bucket.describe() == f"{text}: {left} left; 0 waiting"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.integers(-20, 400)),
        st.tuples(st.just("ask"), st.integers(0, 3)),
        st.tuples(st.just("claim"), st.integers(0, 20)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("refund"), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from(["10/s burst 1", "10/s burst 3", "3/s burst 2", "7/min burst 5"]))
def test_one_rate_times_as_the_same_rate_given_twice(steps, text):
    """The steps of one rate are joined by a shorter way than those of several: the same must result."""
    clock = Clock()
    buckets = [Bucket([Rate(text)] * lines, clock) for lines in (1, 2)]
    waiting: list[list[Any]] = []
    permits: list[list[Any]] = []
    for what, number in steps:
        chosen = waiting[number % len(waiting)] if waiting else None
        if what == "time":
            clock.now += number * MS
        elif what == "ask":
            cost = min(number, buckets[0].lines[0].rate.burst)
            pair = [place_in(bucket, cost=int(cost)) for bucket in buckets]
            assert len({hasattr(each, "claim") for each in pair}) == 1
            (waiting if hasattr(pair[0], "claim") else permits).append(pair)
        elif what == "claim" and chosen:
            pair = [place.claim(clock.now / 1e9) for place in chosen]
            assert len({each is None for each in pair}) == 1
            if pair[0] is not None:
                waiting.remove(chosen)
                permits.append(pair)
        elif what == "leave" and chosen:
            waiting.remove(chosen)
            for place in chosen:
                place.withdraw()
        elif what == "refund" and permits:
            for bucket, permit in zip(buckets, permits.pop(number % len(permits)), strict=True):
                bucket.refund(permit)
        for one, two in waiting:
            assert one.due(0.0) == two.due(0.0)
        assert buckets[0].wait(1) == buckets[1].wait((1, 1))


@example(3, 4, [50_000] * 3 + [850_001, 1_000_000] + [50_000] * 55)
@example(8, 2, [50_000] * 3 + [9_000_000] + [1_000_000] * 56)
@given(st.integers(3, 8), st.integers(0, 5), st.lists(st.integers(50_000, 1_500_000), min_size=60, max_size=60))
def test_who_waited_when_the_rates_changed_still_starts_first_come_first_served(waiters, change, pauses):
    """Waiters of before look at their own table: it has to be put off for late ones like any other."""
    clock = Clock()
    bucket = Bucket([Rate("2000/s burst 1")], clock)
    bucket.take()
    woken = [WokenSpot() for _ in range(waiters)]
    waiting = {number: bucket.admit(Request(spot, 1e9, cost=1)) for number, spot in enumerate(woken)}
    due = {number: place.due(clock.now / 1e9) for number, place in waiting.items()}
    starts = {}
    for step, pause in enumerate(pauses):
        if step == change:
            bucket.configure([Rate("1000/s burst 1")])
        ready = [each for each in waiting if due[each] * 1e9 <= clock.now or woken[each].called]
        for number in sorted(ready, key=due.get):
            woken[number].called = False
            if waiting[number].claim(clock.now / 1e9) is None:
                due[number] = waiting[number].due(clock.now / 1e9)
            else:
                starts[number] = clock.now
                del waiting[number]
        clock.now += pause
    assert [starts[each] for each in sorted(starts)] == sorted(starts.values()), "nobody starts before who came earlier"
    together = max(list(starts.values()).count(moment) for moment in starts.values())
    assert together <= 2, "one that is late and one that is on time, but not all who are late"


class WokenSpot(Spot):
    called = False

    def wake(self) -> None:
        self.called = True
