"""The buckets against a slow count, and numpy's own percentiles."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.histogram import SECONDS, Histogram, fine_seconds

durations = st.lists(st.floats(0, 100), max_size=1500)


def slow_counts(bounds: tuple[float, ...], values: list[float]) -> tuple[int, ...]:
    edges = [-math.inf, *bounds, math.inf]
    return tuple(sum(low < value <= high for value in values) for low, high in itertools.pairwise(edges))


@given(durations)
def test_every_value_is_in_its_bucket(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    snapshot = histogram.snapshot()
    assert snapshot.counts == slow_counts(SECONDS, values)
    assert snapshot.count == len(values)
    assert snapshot.total == pytest.approx(math.fsum(values))


@given(st.lists(st.sampled_from(SECONDS), min_size=1))
def test_a_bound_belongs_to_the_bucket_below_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.snapshot().counts == slow_counts(SECONDS, values)


@given(durations, durations)
def test_merged_counts_are_those_of_all_values(some: list[float], others: list[float]) -> None:
    parts = []
    for values in (some, others, some + others):
        histogram = Histogram()
        for value in values:
            histogram.add(value)
        parts.append(histogram.snapshot())
    merged = parts[0].merged(parts[1])
    assert merged.counts == parts[2].counts
    assert merged.total == pytest.approx(parts[2].total)


def test_histograms_of_other_bounds_do_not_merge() -> None:
    with pytest.raises(ValueError, match="equal"):
        Histogram((1.0, 2.0)).snapshot().merged(Histogram((1.0, 3.0)).snapshot())


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.99])
def test_a_quantile_is_off_by_a_bucket_at_most(share: float) -> None:
    values = np.random.default_rng(7).gamma(2.0, 0.1, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    exact = float(np.quantile(values, share))
    above = min(bound for bound in SECONDS if bound >= exact)
    below = max([0.0, *(bound for bound in SECONDS if bound < exact)])
    assert below <= histogram.snapshot().quantile(share) <= above


def test_without_values_there_is_no_quantile_and_no_mean() -> None:
    snapshot = Histogram().snapshot()
    assert math.isnan(snapshot.quantile(0.5))
    assert snapshot.mean == 0.0


def test_what_is_above_the_last_bound_has_that_as_its_quantile() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.add(50.0)
    assert histogram.snapshot().quantile(0.5) == 2.0
    assert histogram.snapshot().mean == 50.0


def test_no_value_is_lost_between_threads() -> None:
    histogram = Histogram()

    def work() -> None:
        for _ in range(3000):
            histogram.add(0.3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        histogram.snapshot()
        thread.join()
    assert histogram.snapshot().count == 12_000


def test_a_forked_child_starts_from_zero() -> None:
    histogram = Histogram()
    histogram.add(1.0)
    histogram.snapshot()
    histogram.add(1.0)
    histogram.after_fork()
    assert histogram.snapshot().count == 0
    assert histogram.snapshot().total == 0.0


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan,)])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bounds must be"):
        Histogram(bounds)


@given(st.lists(st.floats(2e-7, 1e5), min_size=1, max_size=300), st.sampled_from([0.05, 0.5, 0.95, 0.99]))
def test_fine_buckets_give_a_quantile_that_is_right_within_five_per_cent(values: list[float], share: float) -> None:
    histogram = Histogram(fine_seconds())
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    assert histogram.snapshot().quantile(share) == pytest.approx(exact, rel=0.05)


@given(durations)
def test_fine_buckets_count_as_coarse_ones_do(values: list[float]) -> None:
    histogram = Histogram(fine_seconds())
    for value in values:
        histogram.add(value)
    assert histogram.snapshot().counts == slow_counts(fine_seconds(), values)


def test_what_takes_no_time_has_a_quantile_of_zero() -> None:
    histogram = Histogram(fine_seconds())
    histogram.add(0.0)
    assert histogram.snapshot().quantile(0.5) == 0.0
