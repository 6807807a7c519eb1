"""The delays of a retry against published numbers, against each other, and at the ends of what floats can say."""

from __future__ import annotations

import heapq
import json
import math
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.backoff import Backoff, check_jitter

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "retry.json").read_text(encoding="utf-8"))

delays = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
unit = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)


def never() -> float:
    raise AssertionError("no random number is needed")


@pytest.mark.parametrize("name", ["aws_retry_2_0_backoff", "aws_retry_2_1_backoff", "polly_exponential"])
def test_delays_without_jitter_are_the_published_ones(name):
    case = REFERENCE[name]
    backoff = Backoff(case["initial"], case["factor"], case["maximum"], "none")
    assert [backoff.delay(n, 0.0, never) for n in range(1, len(case["delays"]) + 1)] == pytest.approx(case["delays"])


def test_full_jitter_with_a_random_number_of_one_is_the_published_delay():
    case = REFERENCE["aws_retry_2_0_backoff"]
    backoff = Backoff(case["initial"], case["factor"], case["maximum"], "full")
    assert [backoff.delay(n, 0.0, lambda: 1.0) for n in range(1, 8)] == pytest.approx(case["delays"])


@pytest.mark.parametrize("name", ["polly_jitter", "grpc_a6_jitter"])
def test_a_fraction_spreads_to_both_sides_as_published(name):
    case = REFERENCE[name]
    backoff = Backoff(1.0, 1.0, 100.0, case["fraction"])
    for number, delay in case["random_to_delay"]:
        assert backoff.delay(3, 0.0, lambda number=number: number) == pytest.approx(delay)


@pytest.mark.parametrize("jitter", ["none", "full", "equal", "decorrelated", 0.5])
@pytest.mark.parametrize("retry", [1_100, 10_000, 10**6, 10**9])
def test_late_attempts_do_not_overflow(jitter, retry):
    assert 0.0 <= Backoff(0.2, 2.0, 20.0, jitter).delay(retry, 20.0, random.random) <= 30.0


@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-12, 1.5, 10.0, 1e300])
def test_no_factor_overflows(factor):
    backoff = Backoff(1e-9, factor, 1e9, "none")
    assert all(1e-9 <= backoff.ceiling(n) <= 1e9 for n in (1, 2, 3, 100, 10**6))


@given(initial=delays, extra=delays, factor=st.floats(1.0, 100.0), retry=st.integers(1, 60), least=delays)
def test_the_ceiling_is_the_plain_formula(initial, extra, factor, retry, least):
    maximum = initial + extra
    expected = min(maximum, min(maximum, max(initial, least)) * factor ** (retry - 1))
    assert Backoff(initial, factor, maximum, "none").ceiling(retry, least) == pytest.approx(expected, rel=1e-9)


@given(retry=st.integers(1, 40), number=unit)
def test_jitters_stay_within_their_bounds_and_the_cap_comes_first(retry, number):
    ceiling = Backoff(0.2, 2.0, 20.0, "none").ceiling(retry)
    bounds = {"full": (0.0, ceiling), "equal": (ceiling / 2, ceiling), 0.25: (ceiling * 0.75, ceiling * 1.25)}
    for jitter, (low, high) in bounds.items():
        delay = Backoff(0.2, 2.0, 20.0, jitter).delay(retry, 0.0, lambda: number)
        assert low - 1e-12 <= delay <= high + 1e-12
        assert delay == pytest.approx(low + (high - low) * number)


def test_at_the_cap_the_delays_are_spread_and_do_not_converge():
    """Jittered first and capped then, half of those who wait long would come back in the same moment."""
    backoff, rng = Backoff(1.0, 2.0, 20.0, "full"), random.Random(3)
    drawn = [backoff.delay(50, 20.0, rng.random) for _ in range(2_000)]
    assert statistics.mean(drawn) == pytest.approx(10.0, abs=0.5)
    assert sum(delay > 19.9 for delay in drawn) < 40


def test_the_decorrelated_delay_is_between_the_first_and_three_times_the_one_before():
    backoff = Backoff(1.0, 2.0, 20.0, "decorrelated")
    assert backoff.delay(1, 0.0, lambda: 0.0) == 1.0
    assert backoff.delay(1, 0.0, lambda: 1.0) == 3.0
    assert backoff.delay(2, 3.0, lambda: 1.0) == 9.0
    assert backoff.delay(3, 9.0, lambda: 1.0) == 20.0
    assert backoff.delay(4, 20.0, lambda: 0.5) == pytest.approx(10.5), "at the cap it stays spread"


def test_a_callable_gets_the_capped_delay():
    seen = []
    backoff = Backoff(1.0, 2.0, 5.0, lambda delay: seen.append(delay) or delay / 2)
    assert [backoff.delay(n, 0.0, never) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 2.5]
    assert seen == [1.0, 2.0, 4.0, 5.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, "x", None, True])
def test_a_callable_that_returns_no_duration_is_named(bad):
    with pytest.raises(ValueError, match="the delay that jitter= returns"):
        Backoff(1.0, 2.0, 5.0, lambda _delay: bad).delay(1, 0.0, never)


def test_who_is_throttled_starts_slower_but_not_beyond_the_cap():
    assert Backoff(0.2, 2.0, 20.0, "none").delay(1, 0.0, never, 1.0) == 1.0
    assert Backoff(0.2, 2.0, 20.0, "none").delay(2, 0.0, never, 1.0) == 2.0
    assert Backoff(0.2, 2.0, 0.5, "none").delay(1, 0.0, never, 1.0) == 0.5
    assert Backoff(3.0, 2.0, 20.0, "none").delay(1, 0.0, never, 1.0) == 3.0


@pytest.mark.parametrize("jitter", ["full", "equal", "none", 0.5, "decorrelated"])
def test_no_delay_is_no_delay(jitter):
    assert Backoff(0.0, 2.0, 0.0, jitter).delay(7, 0.0, random.random) == 0.0


@pytest.mark.parametrize("bad", ["Full", "", "random", -0.1, 1.1, math.nan, math.inf, True, None, [0.5]])
def test_what_is_no_jitter_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"jitter must be 'full'.*got"):
        check_jitter(bad)


@pytest.mark.parametrize("good", ["full", "equal", "decorrelated", "none", 0, 0.0, 0.3, 1])
def test_what_is_a_jitter_is_taken(good):
    assert check_jitter(good) == good


# --- the simulation behind the default --------------------------------------------------------------------------------


def simulate(clients, backoff, rng):
    """Clients that all write one record: read it, write it if nobody else did meanwhile, back off otherwise.

    Returns the milliseconds until the last one is done, and how many writes it took.
    """
    version, calls, end = 0, 0, 0.0
    retries, previous = [0] * clients, [0.0] * clients
    queue, order = [], iter(range(10**9))

    def hop():
        return max(0.0, rng.gauss(10, 2))

    for client in range(clients):
        heapq.heappush(queue, (hop(), next(order), client, None))
    while queue:
        now, _, client, seen = heapq.heappop(queue)
        if seen is None:  # a read arrives; its answer travels back, the write there
            heapq.heappush(queue, (now + hop() + hop(), next(order), client, version))
            continue
        calls += 1
        answered = now + hop()
        if seen == version:
            version += 1
            end = max(end, answered)
            continue
        retries[client] += 1
        previous[client] = backoff.delay(retries[client], previous[client], rng.random)
        heapq.heappush(queue, (answered + previous[client] + hop(), next(order), client, None))
    return end, calls


ROWS = REFERENCE["aws_simulation"]["rows"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['clients']}-{row['jitter']}")
def test_contention_ends_as_in_the_published_simulation(row):
    backoff = Backoff(row["base"], 2.0, REFERENCE["aws_simulation"]["cap"], row["jitter"])
    rng = random.Random(7)
    runs = [simulate(row["clients"], backoff, rng) for _ in range(30 if row["clients"] < 100 else 8)]
    assert statistics.mean(time for time, _ in runs) == pytest.approx(row["time"], rel=0.25)
    assert statistics.mean(calls for _, calls in runs) == pytest.approx(row["calls"], rel=0.1)


def test_full_jitter_is_the_default_because_it_ends_contention_with_the_fewest_calls():
    rng = random.Random(11)

    def mean(jitter):
        backoff = Backoff(10.0, 2.0, 2000.0, jitter)
        runs = [simulate(100, backoff, rng) for _ in range(5)]
        return [statistics.mean(each) for each in zip(*runs, strict=True)]

    (full_time, full_calls), (plain_time, plain_calls) = mean("full"), mean("none")
    assert full_calls <= 0.45 * plain_calls
    assert full_time <= 0.1 * plain_time
