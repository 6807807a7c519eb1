"""The rate limiter's machine on an injected clock: exact slots, FIFO, places given back, costs corrected."""

from __future__ import annotations

import dis
import json
import math
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncguard._machines import bucket_quick
from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import Request
from asyncguard._machines.gcra import SHUT, Line
from asyncguard._machines.rate_costs import costs_of
from asyncguard._machines.rates import Rate
from asyncguard._machines.reservation import Reservation
from asyncguard.errors import RateLimitedError

REFERENCE = Path(__file__).parents[1] / "reference"
MS = 10**6


class Clock:
    """Nanoseconds; starts at a time that no float holds exactly."""

    def __init__(self, ms: int = 0) -> None:
        self.start = 1_000_000_000_007
        self.now = self.start
        self.set(ms)

    def __call__(self) -> int:
        return self.now

    def set(self, ms: float) -> None:
        self.now = self.start + round(ms * MS)

    @property
    def seconds(self) -> float:
        return self.now / 1e9


@dataclass(eq=False)
class Spot:
    woken: int = 0
    lives: bool = True

    def wake(self) -> None:
        self.woken += 1

    def alive(self) -> bool:
        return self.lives


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(bucket: Bucket, clock: Clock, cost: Any = 1, wait: float = 1e6, spot: Spot | None = None) -> Any:
    return bucket.admit(Request(spot=spot or Spot(), until=clock.seconds + wait, cost=cost))


def wait_ms(bucket: Bucket, clock: Clock, cost: Any = 1) -> float:
    """Ask, and return for how long the answer makes us wait."""
    answer = ask(bucket, clock, cost)
    return (answer.slot - clock.now) / MS if isinstance(answer, Reservation) else 0.0


# --- vectors ----------------------------------------------------------------------------------------------------------


def failsafe_cases() -> list[Any]:
    data = json.loads((REFERENCE / "rate_limiter_failsafe.json").read_text(encoding="utf-8"))
    smooth = [(f"1/{case['one_per_ms']}ms", case["rows"]) for case in data["smooth"]]
    bursty = [(f"{case['permits']}/{case['period_ms']}ms", case["rows"]) for case in data["bursty"]]
    return [*smooth, *bursty]


@pytest.mark.parametrize(("rate", "rows"), failsafe_cases())
def test_the_waits_are_those_of_failsafe_where_both_mean_the_same(rate: str, rows: list[list[int]]) -> None:
    clock = Clock()
    bucket = Bucket([Rate(rate)], clock)
    queue: list[Reservation] = []
    for time, permits, requests, failsafe, ours in rows:
        while queue and queue[0].slot <= clock.start + time * MS:
            clock.now = queue[0].slot
            assert queue.pop(0).claim(clock.seconds) is not None
        clock.set(time)
        answers = [ask(bucket, clock) for _ in range(permits * requests)]
        queue += [each for each in answers if isinstance(each, Reservation)]
        assert getattr(answers[-1], "slot", clock.now) - clock.now == ours * MS
        assert abs(ours - failsafe) <= float(Rate(rate).period) / MS


def test_what_remains_is_that_of_throttled(clock: Clock) -> None:
    data = json.loads((REFERENCE / "rate_limiter_throttled.json").read_text(encoding="utf-8"))
    bucket, time = Bucket([Rate(data["rate"])], clock), 0
    for sleep, cost, remains in data["rows"]:
        time += sleep * 1000
        clock.set(time)
        if remains is None:
            with pytest.raises(RateLimitedError) as caught:
                ask(bucket, clock, cost, wait=0.0)
            assert caught.value.retry_after == 1.0
        else:
            ask(bucket, clock, cost, wait=0.0)
            assert f"{remains} left" in bucket.describe()


@pytest.mark.parametrize("rate", ["3/s", "7/min burst 5", "0.3/s burst 2", "1000000/s burst 3", "49/7s burst 10"])
def test_a_burst_is_exact_and_so_is_every_call_after_it(clock: Clock, rate: str) -> None:
    """Floats accumulate an error and refuse the last unit of a burst."""
    bucket, parsed = Bucket([Rate(rate)], clock), Rate(rate)
    for _ in range(3):
        taken = 0
        while wait_ms(bucket, clock) == 0.0:
            taken += 1
        assert taken == int(parsed.burst)
        clock.now += int(1000 * parsed.period)  # a long rest
        bucket = Bucket([parsed], clock)
    interval = parsed.period / parsed.limit
    waits = [ask(bucket, clock) for _ in range(int(parsed.burst) + 1000)]
    slots = [each.slot for each in waits if isinstance(each, Reservation)]
    assert slots == [-(-(clock.now + n * interval) // 1) for n in range(1, 1001)]


def test_one_call_of_cost_n_is_n_calls_of_cost_1(clock: Clock) -> None:
    one, many = (Bucket([Rate("7/s burst 5")], clock) for _ in range(2))
    for cost in (3, 1, 5, 2, 4):
        answer = ask(one, clock, cost)
        last = [ask(many, clock) for _ in range(cost)][-1]
        assert getattr(answer, "slot", clock.now) == getattr(last, "slot", clock.now)


# --- the fast path ----------------------------------------------------------------------------------------------------


def test_the_fast_path_reads_the_clock_once() -> None:
    reads = []

    def clock() -> int:
        reads.append(1)
        return 10**9

    bucket = Bucket([Rate("100/s")], clock)
    reads.clear()
    bucket.take()
    assert len(reads) == 1


def test_the_fast_path_and_the_slow_one_take_from_the_same_rate(clock: Clock) -> None:
    bucket = Bucket([Rate("2/s")], clock)
    bucket.take()
    ask(bucket, clock)
    with pytest.raises(LookupError):
        bucket.take()
    clock.set(500)
    assert bucket.take() == [1]


def test_several_rates_have_a_fast_path_that_takes_from_all_or_none(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s"), Rate("3/min")], clock)
    for _ in range(3):
        assert bucket.take() == [1, 1]
    with pytest.raises(LookupError):
        bucket.take()
    assert bucket.describe() == "10/s: 7 left, 3/min: 0 left; 0 waiting, next in 20 s"


def test_the_fast_path_is_shut_while_somebody_waits(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    place = ask(bucket, clock)
    clock.set(150)
    with pytest.raises(LookupError):
        bucket.take()
    assert bucket.lines[0].gap == SHUT
    assert place.claim(clock.seconds) == [1]
    assert bucket.lines[0].gap != SHUT


def test_the_fast_path_lets_no_other_thread_run_between_reading_and_writing() -> None:
    """No call, no jump back: those are where CPython changes threads."""
    take = bucket_quick.quick(Line(Rate("1/s"), 0), lambda: 0, threading.Lock())
    if take.__name__ == "take_locked":
        pytest.skip("a free-threaded interpreter takes the lock")
    steps = list(dis.get_instructions(take))
    tat = [i for i, step in enumerate(steps) if step.argval == "tat"]
    between = [step.opname for step in steps[tat[0] : tat[-1] + 1]]
    switches = [
        name for name in between if "BACKWARD" in name or name.startswith(("CALL", "PRECALL", "RESUME", "SEND"))
    ]
    assert (len(tat), between[0], between[-1], switches) == (3, "LOAD_ATTR", "STORE_ATTR", [])


def test_threads_never_sell_more_than_the_burst() -> None:
    bucket = Bucket([Rate("1/h burst 2000")], lambda: 10**12)
    sold: list[int] = []

    def buy() -> None:
        mine = 0
        for i in range(2000):
            try:
                if i % 7:
                    bucket.take()
                else:
                    bucket.admit(Request(spot=Spot(), until=0.0))
                mine += 1
            except (LookupError, RateLimitedError):
                pass
        sold.append(mine)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=buy) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    # A buyer may find the door shut while another one is inside, so the burst may be left unsold, never oversold.
    assert sum(sold) <= 2000
    assert sum(sold) + int(bucket.describe().split(": ")[1].split()[0]) == 2000


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_places_are_claimed_at_their_time_and_not_before(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    place = ask(bucket, clock)
    due = place.due(clock.seconds)
    assert due == (clock.now + 100 * MS) / 1e9
    assert place.claim(due - 1e-6) is None
    clock.set(100)
    assert place.claim(due) == [1]


def test_a_wait_beyond_the_patience_is_refused_at_once_and_takes_nothing(clock: Clock) -> None:
    bucket = Bucket([Rate("1/s")], clock, "openai")
    ask(bucket, clock)
    for _ in range(5):
        with pytest.raises(
            RateLimitedError, match=r"openai: 1/s allows this call in 1 s, and it may wait for 0.5 s"
        ) as caught:
            ask(bucket, clock, wait=0.5)
        assert caught.value.retry_after == 1.0
    assert wait_ms(bucket, clock) == 1000


def test_a_short_wait_is_told_too(clock: Clock) -> None:
    bucket = Bucket([Rate("1000/s burst 1")], clock)
    ask(bucket, clock)
    with pytest.raises(RateLimitedError, match=r"allows this call in 0\.001 s, and it may wait for 0 s"):
        ask(bucket, clock, wait=0.0)


def test_a_big_call_is_not_starved_by_small_ones(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 10")], clock)
    ask(bucket, clock, 10)
    big = ask(bucket, clock, 8)
    small = [ask(bucket, clock, 1) for _ in range(12)]
    assert [round((place.slot - clock.now) / MS) for place in (big, *small[:2])] == [800, 900, 1000]


def test_20_per_second_delivers_20_per_second_to_30_waiters(clock: Clock) -> None:
    bucket = Bucket([Rate("20/s burst 1")], clock)
    ask(bucket, clock)
    places = [ask(bucket, clock) for _ in range(30)]
    assert [place.slot - clock.now for place in places] == [50 * MS * i for i in range(1, 31)]


def test_a_place_that_is_given_back_moves_those_behind_forward(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    spots = [Spot() for _ in range(4)]
    places = [ask(bucket, clock, spot=spot) for spot in spots]
    dues = [place.due(clock.seconds) for place in places]
    clock.set(10)
    assert list(places[0].withdraw()) == [spots[1]], "the first who waits now is woken"
    assert [place.due(clock.seconds) for place in places[1:]] == dues[:3]
    assert list(places[2].withdraw()) == [spots[1]]
    assert places[3].due(clock.seconds) == dues[1]
    assert wait_ms(bucket, clock) == 290


def test_those_moved_forward_are_woken_one_by_one_as_they_are_claimed(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    spots = [Spot() for _ in range(3)]
    first, second, third = (ask(bucket, clock, spot=spot) for spot in spots)
    for place in (first, second, third):
        place.due(clock.seconds)
    first.withdraw()
    clock.set(100)
    assert second.claim(second.due(clock.seconds)) is not None
    assert spots[2].woken == 1
    third.due(clock.seconds)
    clock.set(200)
    assert third.claim(clock.seconds + 1e-6) is not None


def test_nobody_is_woken_who_was_not_moved(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    spots = [Spot() for _ in range(3)]
    places = [ask(bucket, clock, spot=spot) for spot in spots]
    for place in places:
        place.due(clock.seconds)
    for i, place in enumerate(places, 1):
        clock.set(100 * i)
        place.claim(clock.seconds + 1e-6)
    assert [spot.woken for spot in spots] == [0, 0, 0]


def test_a_thousand_cancelled_waiters_leave_no_trace(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    places = [ask(bucket, clock) for _ in range(1000)]
    for place in places:
        place.withdraw()
    assert wait_ms(bucket, clock) == 100
    assert bucket.describe() == "10/s burst 1: 0 left; 1 waiting, next in 0.1 s"


def test_withdrawing_twice_or_after_the_claim_gives_back_once(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    place, other = ask(bucket, clock), ask(bucket, clock)
    place.withdraw()
    place.withdraw()
    assert (other.due(clock.seconds) - clock.seconds) == pytest.approx(0.1)
    clock.set(100)
    other.claim(clock.seconds + 1e-6)
    other.withdraw()
    other.withdraw()
    assert bucket.wait() == 0.0
    ask(bucket, clock)
    assert bucket.wait() == pytest.approx(0.1)


def test_a_waiter_on_a_stopped_loop_is_skipped(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    dead = Spot()
    ask(bucket, clock, spot=dead)
    place = ask(bucket, clock)
    dead.lives = False
    assert place.due(clock.seconds) == (clock.now + 100 * MS) / 1e9
    clock.set(100)
    assert place.claim(clock.seconds + 1e-6) == [1]


def test_a_waiter_whose_loop_goes_on_is_the_last_of_the_queue_then(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    still = Spot()
    skipped, other = ask(bucket, clock, spot=still), ask(bucket, clock)
    still.lives = False
    assert other.due(clock.seconds) == (clock.now + 100 * MS) / 1e9
    still.lives = True
    assert skipped.claim(clock.seconds) is None
    assert skipped.due(clock.seconds) == (clock.now + 200 * MS) / 1e9
    clock.set(100)
    assert other.claim(clock.seconds + 1e-6) == [1]
    clock.set(200)
    assert skipped.claim(clock.seconds + 1e-6) == [1]
    assert bucket.idle() is False
    clock.set(300)
    assert bucket.idle()


def test_a_waiter_whose_loop_goes_on_when_it_is_too_late_looks_for_nothing_and_is_refused(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    still = Spot()
    skipped = ask(bucket, clock, spot=still, wait=0.15)
    ask(bucket, clock)
    still.lives = False
    bucket.wait()
    still.lives = True
    assert skipped.claim(clock.seconds) is None
    assert skipped.due(clock.seconds) == math.inf, "not again and again until its time is over"
    assert skipped.late(clock.seconds).retry_after == pytest.approx(0.2)
    assert bucket.wait() == pytest.approx(0.2), "nothing is reserved for it"
    skipped.withdraw()
    assert bucket.wait() == pytest.approx(0.2)


def test_a_waiter_whose_loop_goes_on_after_the_rates_changed_pays_the_new_ones(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 4")], clock)
    ask(bucket, clock, 4)
    still = Spot()
    skipped = ask(bucket, clock, 4, spot=still)
    still.lives = False
    bucket.configure([Rate("10/s burst 2"), Rate("1/s burst 1")])
    still.lives = True
    clock.set(1000)
    assert skipped.claim(clock.seconds) == [2, 1]
    assert bucket.wait() == pytest.approx(1.0)


def test_after_a_loop_stood_still_its_waiters_do_not_start_all_at_once(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    places = [ask(bucket, clock) for _ in range(50)]
    clock.set(5000)
    assert [place.claim(clock.seconds) is not None for place in places] == [True] + [False] * 49
    assert places[1].due(clock.seconds) == (clock.now + 100 * MS) / 1e9


def test_waiters_that_are_a_little_late_do_not_slow_the_others_down(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    places = [ask(bucket, clock) for _ in range(50)]
    for i, place in enumerate(places, 1):
        clock.set(100 * i + 30)
        assert place.claim(clock.seconds) is not None


def test_a_claim_behind_one_that_is_due_and_not_claimed_yet_is_kept_when_that_one_leaves(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    first, second = ask(bucket, clock), ask(bucket, clock)
    clock.set(200)
    assert second.claim(clock.seconds + 1e-6) == [1]
    first.withdraw()
    assert bucket.wait() == pytest.approx(0.1), "the second call was made"


# --- costs, refunds, corrections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [11, 10.5, float("inf"), float("nan"), -1, True, "3", None])
def test_a_cost_that_never_fits_is_an_error_at_once(clock: Clock, cost: Any) -> None:
    bucket = Bucket([Rate("5/s burst 10")], clock)
    with pytest.raises(ValueError, match=r"the cost for 5/s burst 10 must be a number at least 0 and at most 10, got"):
        ask(bucket, clock, cost)
    assert bucket.idle()


def test_a_cost_of_nothing_never_waits(clock: Clock) -> None:
    bucket = Bucket([Rate("1/s")], clock)
    ask(bucket, clock)
    ask(bucket, clock)
    assert isinstance(ask(bucket, clock, 0, wait=0.0), list)


def test_whole_numbers_of_other_libraries_are_costs(clock: Clock) -> None:
    numpy = pytest.importorskip("numpy")
    bucket = Bucket([Rate("5/s burst 10")], clock)
    assert ask(bucket, clock, numpy.int64(7)) == [7]


def test_several_rates_are_all_or_nothing_each_with_its_cost(clock: Clock) -> None:
    bucket = Bucket([Rate("100/min"), Rate("1000/min", cost=len)], clock)
    with pytest.raises(LookupError):
        bucket.take()
    ask(bucket, clock, [1, 900])
    with pytest.raises(RateLimitedError):
        ask(bucket, clock, [1, 200], wait=1.0)
    assert bucket.describe() == "100/min: 99 left, 1000/min: 100 left; 0 waiting"
    ask(bucket, clock, [1, 100], wait=0.0)
    place = ask(bucket, clock, [1, 100])
    assert (place.slot - clock.now) / 1e9 == 6.0


def test_a_single_cost_is_for_the_rates_that_weigh_and_for_all_where_none_does(clock: Clock) -> None:
    both, plain = Bucket([Rate("9/s"), Rate("9/min", cost=len)], clock), Bucket([Rate("9/s")], clock)
    assert ask(both, clock, 5) == [1, 5]
    assert ask(plain, clock, 5) == [5]


def test_a_refund_is_as_if_nobody_had_asked(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 2")], clock)
    permits = [bucket.take(), ask(bucket, clock)]
    spot = Spot()
    place = ask(bucket, clock, spot=spot)
    assert list(bucket.refund(permits[0])) == [spot]
    assert place.claim(clock.seconds) == [1]
    bucket.refund(permits[0])
    assert bucket.wait() == pytest.approx(0.1), "only once"


def test_a_refund_never_fills_more_than_the_burst(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 2")], clock)
    permit = ask(bucket, clock)
    clock.set(5000)
    bucket.refund(permit)
    assert [wait_ms(bucket, clock) for _ in range(4)] == [0, 0, 100, 200]


def test_reconciling_gives_back_what_was_not_used_and_takes_what_was_used_beyond(clock: Clock) -> None:
    bucket = Bucket([Rate("60/min", cost=len)], clock)
    permit = ask(bucket, clock, 40)
    bucket.reconcile(permit, 10)
    assert "50 left" in bucket.describe()
    bucket.reconcile(permit, 30)
    assert "30 left" in bucket.describe()
    bucket.reconcile(permit, 100)
    assert bucket.describe() == "60/min: 0 left; 0 waiting, next in 41 s"
    assert wait_ms(bucket, clock, 1) == 41_000, "the debt is repaid first"
    bucket.reconcile(None, 5)


def test_reconciling_moves_those_who_wait(clock: Clock) -> None:
    bucket = Bucket([Rate("60/min", cost=len)], clock)
    permit = ask(bucket, clock, 60)
    spot = Spot()
    place = ask(bucket, clock, 30, spot=spot)
    assert list(bucket.reconcile(permit, 40)) == [spot]
    assert place.due(clock.seconds) == (clock.now + 10_000 * MS) / 1e9
    bucket.reconcile(permit, 90)
    assert place.due(clock.seconds) == (clock.now + 60_000 * MS) / 1e9
    late = place.late(clock.seconds)
    assert isinstance(late, RateLimitedError)
    assert late.retry_after == pytest.approx(60.0)


@pytest.mark.parametrize("actual", [-1, float("nan"), True])
def test_an_actual_cost_is_a_number(clock: Clock, actual: float) -> None:
    bucket = Bucket([Rate("60/min")], clock)
    with pytest.raises(ValueError, match="the actual cost must be a number"):
        bucket.reconcile(ask(bucket, clock), actual)


def test_what_a_service_says_is_left_counts_when_it_is_less_than_we_believe(clock: Clock) -> None:
    bucket = Bucket([Rate("60/min"), Rate("1000/min", cost=len)], clock)
    bucket.limit(20, None, weighed=False)
    bucket.limit(5000, None, weighed=True)
    assert bucket.describe() == "60/min: 20 left, 1000/min: 1000 left; 0 waiting"
    bucket.limit(40, None, weighed=False)
    assert "60/min: 20 left" in bucket.describe()


def test_nothing_starts_before_a_service_has_something_left_again(clock: Clock) -> None:
    bucket = Bucket([Rate("60/min")], clock)
    place_before = None
    for _ in range(61):
        place_before = ask(bucket, clock)
    bucket.limit(0, 17.0, weighed=False)
    assert place_before.due(clock.seconds) == pytest.approx(clock.seconds + 17.0)
    assert bucket.wait() == pytest.approx(18.0)


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3_600_000, 3_600_000])
def test_a_clock_that_jumps_an_hour_neither_sells_twice_nor_for_long_refuses(clock: Clock, jump: int) -> None:
    bucket = Bucket([Rate("10/s")], clock)
    for _ in range(5):
        bucket.take()
    clock.set(jump)
    taken = 0
    while taken < 20 and bucket.wait() == 0.0:
        ask(bucket, clock)
        taken += 1
    assert taken == (10 if jump > 0 else 5)
    clock.set(jump + 1000)
    assert bucket.wait() == 0.0


def test_those_who_wait_do_not_wait_for_the_time_to_come_again(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    first, second = ask(bucket, clock), ask(bucket, clock)
    first.withdraw()
    clock.set(-3_600_000)
    assert second.due(clock.seconds) == pytest.approx(clock.seconds + 0.1)


def test_without_the_interpreters_lock_the_fast_path_takes_its_own(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_quick, "_GIL", False)
    bucket = Bucket([Rate("1/s")], clock)
    assert bucket.take.__name__ == "take_locked"
    assert bucket.take() == [1]
    with pytest.raises(LookupError):
        bucket.take()


def test_a_bucket_is_idle_when_it_is_full_and_nobody_waits(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    assert bucket.idle()
    ask(bucket, clock)
    place = ask(bucket, clock)
    assert not bucket.idle()
    place.withdraw()
    assert not bucket.idle()
    clock.set(100)
    assert bucket.idle()


def test_other_rates_begin_behind_the_places_that_are_reserved(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    place = ask(bucket, clock)
    bucket.configure([Rate("1/s burst 1"), Rate("9/s")])
    assert place.due(clock.seconds) == (clock.now + 100 * MS) / 1e9
    assert wait_ms(bucket, clock, [1, 1]) == 200
    clock.set(100)
    assert place.claim(clock.seconds + 1e-6) == [1]


def test_one_that_leaves_after_the_rates_changed_moves_those_forward_who_waited_with_it(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    leaves, stays, last = (ask(bucket, clock) for _ in range(3))
    bucket.configure([Rate("1/s burst 1")])
    assert list(leaves.withdraw()) == [stays.spot]
    assert stays.due(clock.seconds) == (clock.now + 100 * MS) / 1e9
    clock.set(150)
    assert stays.claim(clock.seconds) == [1]
    clock.set(250)
    assert last.claim(clock.seconds) == [1]


def test_a_cost_that_is_corrected_while_the_rates_change_back_and_forth_is_no_error_of_who_changes_them(
    clock: Clock,
) -> None:
    both, one = [Rate("10/s burst 5", cost=len), Rate("10/s burst 5")], [Rate("10/s burst 5", cost=len)]
    bucket = Bucket(both, clock)
    permit = ask(bucket, clock, [1, 1])
    bucket.configure(one)
    bucket.inside = True  # another thread is
    bucket.reconcile(permit, 3)
    bucket.inside = False
    bucket.configure(both)
    assert permit == [3, 1]


def test_a_call_that_comes_in_while_the_rates_change_pays_the_new_ones(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket([Rate("10/s burst 5")], clock)

    def change(*args: Any) -> Any:
        answer = costs_of(*args)
        bucket.configure([Rate("10/s burst 3"), Rate("10/s burst 5")])
        return answer

    monkeypatch.setattr("asyncguard._machines.bucket.costs_of", change)
    assert ask(bucket, clock, 4) == [3, 1]
    monkeypatch.undo()
    assert bucket.wait(3) == pytest.approx(0.3)


def test_after_a_fork_nobody_waits_and_the_lock_is_new(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    ask(bucket, clock)
    bucket.lock.acquire()
    bucket.after_fork()
    assert bucket.wait() == pytest.approx(0.1)
    clock.set(100)
    assert bucket.take() == [1]


def test_a_waiter_of_the_parent_that_leaves_in_a_forked_child_changes_nothing_there(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    ask(bucket, clock)
    place = ask(bucket, clock)
    bucket.after_fork()
    clock.set(100)
    bucket.take()
    place.withdraw()
    assert bucket.wait() == pytest.approx(0.1)


def test_outcomes_say_nothing_to_a_rate(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s")], clock)
    permit = bucket.take()
    said = [
        bucket.succeeded(permit, 1.0),
        bucket.failed(permit, 1.0, ValueError()),
        bucket.abandoned(permit),
        bucket.release(permit),
    ]
    assert said == [(), (), (), ()]
    assert "9 left" in bucket.describe()


def test_the_pause_is_that_of_the_first_who_waits_or_of_a_newcomer(clock: Clock) -> None:
    bucket = Bucket([Rate("10/s burst 1")], clock)
    assert bucket.pause() == 0.0
    ask(bucket, clock)
    assert bucket.pause() == pytest.approx(0.1)
    places = [ask(bucket, clock) for _ in range(3)]
    assert bucket.pause() == pytest.approx(0.1)
    places[0].withdraw()
    assert bucket.pause() == pytest.approx(0.1)
    assert bucket.describe() == "10/s burst 1: 0 left; 2 waiting, next in 0.1 s"
    assert Bucket([Rate("1/s burst 0.5")], clock).pause() == 0.0
