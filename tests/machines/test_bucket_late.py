"""A rate limiter whose waiters come late, because their event loop is busy: they are put off, and still get in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import Request
from asyncguard._machines.rates import Rate
from asyncguard._machines.timetable import Timetable

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


def test_putting_a_queue_off_costs_no_look_at_all_who_wait(monkeypatch):
    clock = Clock()
    bucket = Bucket([Rate("1000/s burst 2")], clock)
    places = [place_in(bucket) for _ in range(100)]
    looked = []
    monkeypatch.setattr(Timetable, "_time_anew", lambda *_: looked.append(1))
    for place in places[2:]:
        clock.now += 50 * MS  # everybody comes late
        assert place.claim(clock.now / 1e9) is not None
    assert not looked


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
    """With one rate a late queue is put off at once, with several it is timed place by place: the same must result."""
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
