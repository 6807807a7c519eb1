"""The limits of adaptive concurrency against published numbers, and what must hold for every sequence of windows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.limits import Aimd, Vegas, new_limit

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "adaptive.json").read_text(encoding="utf-8"))

kinds = pytest.mark.parametrize("kind", [Vegas, Aimd])


@pytest.mark.parametrize("run", REFERENCE["netflix_vegas"]["runs"], ids=str)
def test_vegas_moves_as_published(run):
    case = REFERENCE["netflix_vegas"]
    rule = Vegas(case["initial"], case["least"], case["most"])
    for milliseconds, in_flight, limit in run:
        rule.measured(milliseconds / 1e3, in_flight)
        assert rule.limit == limit


@pytest.mark.parametrize(("smoothing", "limits"), REFERENCE["netflix_vegas_drops"]["smoothing_to_limits"])
def test_vegas_gives_way_to_drops_as_published(smoothing, limits):
    case = REFERENCE["netflix_vegas_drops"]
    rule = Vegas(case["initial"], case["least"], case["most"], case["backoff"], smoothing=smoothing)
    seen = [rule.limit]
    for _ in limits[1:]:
        rule.dropped()
        seen.append(rule.limit)
    assert seen == limits


@pytest.mark.parametrize(("initial", "most", "in_flight", "dropped", "limit"), REFERENCE["netflix_aimd"]["updates"])
def test_aimd_moves_as_published(initial, most, in_flight, dropped, limit):
    rule = Aimd(initial, 1, most)
    if dropped:
        rule.dropped()
    else:
        rule.measured(0.01, in_flight)
    assert rule.limit == limit


@kinds
def test_a_limit_of_which_less_than_half_is_used_stays(kind):
    rule = kind(20, 1, 200)
    for _ in range(5):
        rule.measured(0.05, 9)
    assert rule.limit == 20
    rule.measured(0.05, 10)
    assert rule.limit > 20


def test_vegas_does_not_shrink_either_while_less_than_half_is_used():
    rule = Vegas(20, 1, 200)
    rule.measured(0.05, 9)
    rule.measured(5.0, 9)
    assert rule.limit == 20


@kinds
def test_a_drop_costs_a_tenth_however_little_is_used(kind):
    rule = kind(30, 1, 200)
    rule.dropped()
    assert rule.limit == 27


def test_aimd_does_not_care_about_latency():
    rule = Aimd(20, 1, 200)
    rule.measured(0.01, 20)
    rule.measured(60.0, 20)
    assert rule.limit == 22
    assert rule.base == math.inf
    assert rule.drained() is None


@pytest.mark.parametrize(("queueing", "step"), [(0, 6), (1, 6), (2, 1), (3, 0), (6, 0), (7, -1), (49, -1)])
def test_the_steps_of_vegas_by_the_calls_that_queue(queueing, step):
    rule = Vegas(50, 1, 200)
    rule.measured(1.0, 50)
    rule.measured(1.0 / (1.0 - (queueing - 0.5) / 50) if queueing else 1.0, 50)
    assert rule.limit == 50 + step


@pytest.mark.parametrize(("queueing", "step"), [(2, 12), (5, 2), (6, 0), (12, 0), (13, -2)])
def test_above_a_hundred_the_steps_are_twice_as_long(queueing, step):
    rule = Vegas(100, 1, 200)
    rule.measured(1.0, 100)
    rule.measured(1.0 / (1.0 - (queueing - 0.5) / 100), 100)
    assert rule.limit == 100 + step


def test_one_lucky_window_does_not_become_the_base_latency():
    rule = Vegas(20, 1, 200)
    rule.measured(0.05, 20)
    rule.measured(0.03, 20)
    assert rule.base == pytest.approx(0.0475)
    for _ in range(60):
        rule.measured(0.03, 0)
    assert rule.base == pytest.approx(0.03, rel=0.01)


def test_a_probe_replaces_the_base_latency_also_by_a_higher_one():
    rule = Vegas(20, 1, 200)
    rule.measured(0.05, 20)
    rule.probed(0.1)
    assert rule.base == 0.1
    assert rule.limit == 20


@pytest.mark.parametrize(("limit", "least", "drained"), [(20, 1, 5), (26, 1, 6), (3, 1, 1), (1, 1, 1), (20, 8, 8)])
def test_a_probe_leaves_a_quarter_of_the_limit(limit, least, drained):
    assert Vegas(limit, least, 200).drained() == drained


@pytest.mark.parametrize(("algorithm", "kind"), [("vegas", Vegas), ("aimd", Aimd)])
def test_algorithms_by_name(algorithm, kind):
    rule = new_limit(algorithm, 20, 2, 100)
    assert type(rule) is kind
    assert (rule.limit, rule.least, rule.most) == (20, 2, 100)


windows = st.tuples(st.floats(1e-4, 1e3), st.integers(0, 300), st.sampled_from(["measured", "dropped", "probed"]))


@kinds
@given(windows=st.lists(windows, max_size=60), least=st.integers(1, 20), span=st.integers(0, 200))
def test_the_limit_never_leaves_its_bounds(kind, windows, least, span):
    rule = kind(least, least, least + span)
    for latency, used, what in windows:
        before = rule.estimate
        if what == "measured":
            rule.measured(latency, used)
        elif what == "dropped":
            rule.dropped()
            assert rule.estimate <= before
        else:
            rule.probed(latency)
            assert rule.estimate == before
        assert least <= rule.limit <= least + span
        assert rule.base > 0.0


@kinds
@given(least=st.integers(1, 50), span=st.integers(0, 50))
def test_new_bounds_move_the_limit_only_as_far_as_they_must(kind, least, span):
    rule = kind(30, 1, 200)
    rule.bound(least, least + span)
    assert rule.limit == min(max(30, least), least + span)
