"""The windows against models that keep every call; and what threads and jumping clocks do to them."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.window import BUCKETS, NEVER, STRIDE, CountWindow, Tally, TimeWindow

OUTCOMES = st.sampled_from(["good", "good", "good", "failed", "slow", "both"])


@dataclass
class Exact:
    """Every call with its time; sub-buckets are worked out when asked."""

    seconds: float
    start: float
    calls: list[tuple[float, bool, bool]] = field(default_factory=list)

    def bucket(self, when: float) -> int:
        return int((when - self.start) // (self.seconds / BUCKETS))

    def tally(self, now: float) -> tuple[int, int, int]:
        inside = [call for call in self.calls if self.bucket(now) - self.bucket(call[0]) < BUCKETS]
        return len(inside), sum(failed for _, failed, _ in inside), sum(slow for _, _, slow in inside)


def report(window: CountWindow | TimeWindow, outcome: str, now: float) -> bool:
    """Do what the breaker does with a call; tell whether the call came in."""
    if outcome == "good":
        number = window.tick()
        if number < window.look:
            return False
        window.good(number, now)
    else:
        window.bad(now, failed=outcome != "slow", slow=outcome != "failed")
    return True


@given(st.lists(OUTCOMES, max_size=60), st.integers(1, 12), st.integers(1, 12))
def test_the_last_calls_are_counted_exactly(outcomes: list[str], size: int, minimum: int) -> None:
    window = CountWindow(size, minimum)
    for i, outcome in enumerate(outcomes, 1):
        came_in = report(window, outcome, 0.0)
        assert came_in or outcome == "good"
        if i == min(size, minimum):
            assert came_in, "the call that makes the minimum has to come in"
        last = outcomes[max(0, i - size) : i]
        expected = (
            len(last),
            sum(each in {"failed", "both"} for each in last),
            sum(each in {"slow", "both"} for each in last),
        )
        if came_in:
            assert window.tally(0.0)[:3] == expected
        assert window.read(0.0)[:3] == expected


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 40)), max_size=120))
def test_seconds_are_counted_with_no_call_too_few_and_at_most_fifteen_old_good_ones_too_many(
    calls: list[tuple[str, int]],
) -> None:
    # Whole seconds and sub-buckets of 4 s: no rounding, so that the model may be exact.
    window, exact, now = TimeWindow(40.0, 0.0), Exact(40.0, 0.0), 0.0
    for outcome, wait in calls:
        now += wait / 4 if wait < 20 else wait
        exact.calls.append((now, outcome in {"failed", "both"}, outcome in {"slow", "both"}))
        if report(window, outcome, now):
            found, true = window.tally(now), exact.tally(now)
            assert found[1:3] == true[1:3], "bad calls are exact"
            assert true[0] <= found[0] <= true[0] + STRIDE - 1


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 40)), max_size=60))
def test_seconds_are_counted_exactly_while_a_bad_call_is_in_the_window(calls: list[tuple[str, int]]) -> None:
    window, exact, now = TimeWindow(40.0, 0.0), Exact(40.0, 0.0), 0.0
    window.bad(now, failed=True, slow=False)
    exact.calls.append((now, True, False))
    for outcome, wait in calls:
        now += wait / 8
        if exact.tally(now)[1] + exact.tally(now)[2] == 0:
            return
        exact.calls.append((now, outcome in {"failed", "both"}, outcome in {"slow", "both"}))
        assert report(window, outcome, now), "every call comes in"
        assert window.tally(now)[:3] == exact.tally(now)


def test_good_calls_read_the_clock_every_sixteenth_time_once_they_come_fast() -> None:
    window = TimeWindow(60.0, 0.0)
    looks = sum(report(window, "good", 0.0) for _ in range(1600))
    assert looks <= 1600 / STRIDE + 5


def test_good_calls_that_come_slowly_read_the_clock_every_time() -> None:
    window = TimeWindow(60.0, 0.0)
    assert all(report(window, "good", 6.0 * i) for i in range(1, 100))


def test_a_window_expires_when_it_is_read() -> None:
    window = TimeWindow(60.0, 0.0)
    for _ in range(5):
        report(window, "failed", 0.0)
    assert window.read(53.9) == Tally(5, 5, 0, 5)
    assert window.read(60.0)[:3] == (0, 0, 0)


def test_a_window_is_clean_again_when_its_bad_calls_have_expired() -> None:
    window = TimeWindow(60.0, 0.0)
    report(window, "failed", 0.0)
    assert window.look == 0
    report(window, "good", 1.0)
    assert window.look == 0
    report(window, "good", 61.0)
    assert window.look > 0


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -86400.0, 1e12])
def test_a_clock_that_jumps_neither_freezes_nor_breaks_a_window(jump: float) -> None:
    window = TimeWindow(60.0, 1e6)
    report(window, "failed", 1e6)
    now = 1e6 + jump
    report(window, "failed", now)
    assert window.tally(now).failed == (2 if jump < 0 else 1)
    assert window.read(now + 61.0)[:3] == (0, 0, 0)


def test_failures_are_in_a_row_only_without_a_call_between_them() -> None:
    window = CountWindow(100, NEVER)
    runs = []
    for outcome in ["failed", "failed", "good", "failed", "both", "slow", "failed"]:
        report(window, outcome, 0.0)
        runs.append(window.read(0.0).run)
    assert [runs[i] for i in (0, 1, 3, 4, 6)] == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("window", [CountWindow(10**9, NEVER), TimeWindow(1e9, 0.0)], ids=["calls", "seconds"])
def test_no_call_is_lost_between_threads(window: CountWindow | TimeWindow) -> None:
    lock = threading.Lock()

    def work(bad: bool) -> None:
        for i in range(3000):
            if bad and i % 100 == 0:
                with lock:
                    window.bad(1.0, failed=True, slow=False)
                continue
            number = window.tick()
            if number >= window.look:
                with lock:
                    window.good(number, 1.0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert window.read(1.0)[:2] == (12000, 60)
